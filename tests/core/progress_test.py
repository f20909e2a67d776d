"""Tests for progress.py: silence, a bar or lines, as Keras has it."""

import pytest

from tf_pseudofeat.core.progress import print_status, progress_bar


@pytest.mark.parametrize(
    ("verbose", "printed"), [(0, False), (1, True), (2, True), ("auto", True)]
)
def test_a_line_is_printed_unless_silence_is_asked_for(capsys, verbose, printed):
    print_status("Training", verbose)
    assert capsys.readouterr().out == ("Training\n" if printed else "")


@pytest.mark.parametrize(
    ("total", "verbose"), [(3, 0), (3, 1), (3, 2), (3, "auto"), (None, 0), (None, 1)]
)
def test_a_bar_is_drawn_unless_silence_is_asked_for(capsys, total, verbose):
    bar = progress_bar(total, "epoch", verbose, stateful_metrics=["loss"])
    for step in range(1, 4):
        bar.update(step, [("loss", 0.5 / step)], finalize=step == 3)
    text = capsys.readouterr().out
    assert bool(text) is (verbose != 0)
    if verbose:
        assert f"3/{total or 'Unknown'}" in text
        assert "loss: 0.1667" in text
    assert ("\r" in text or "\b" in text) is (verbose in (1, "auto"))
