"""Tests for beam_moments.py: any bundling gives what one machine does."""

import functools
import io

import numpy as np
import pytest

from tf_pseudofeat.gaussians.moments import ClassMoments
from tf_pseudofeat.gaussians.moments_estimation import moments_of

beam = pytest.importorskip("apache_beam")
from apache_beam.testing.util import assert_that  # noqa: E402

from tests.beam_data import C, D, make_data, pipeline, random_batches  # noqa: E402
from tests.same_moments import assert_same  # noqa: E402
from tf_pseudofeat.engines.beam import (  # noqa: E402
    ClassMomentsCoder,
    CombineClassMoments,
)

every_kind = pytest.mark.parametrize("kind", ["full", "tied", "diag", "low_rank"])


def as_a_runner_might(combine, batches, rng):
    """Bundles, merges, compacts and sends in whatever order chance has."""
    coder = combine.get_accumulator_coder()
    bundles = [combine.create_accumulator() for _ in range(rng.integers(1, 9))]
    for batch in batches:
        number = rng.integers(len(bundles))
        bundles[number] = combine.add_input(bundles[number], batch)
        if rng.random() < 0.2:
            bundles[number] = combine.compact(bundles[number])
        if rng.random() < 0.2:
            bundles[number] = coder.decode(coder.encode(bundles[number]))
    while len(bundles) > 1:
        rng.shuffle(bundles)
        some = rng.integers(1, len(bundles) + 1)
        bundles = [combine.merge_accumulators(iter(bundles[:some])), *bundles[some:]]
        if rng.random() < 0.5:
            bundles.append(combine.create_accumulator())  # a bundle of nothing
        bundles[0] = coder.decode(coder.encode(bundles[0]))
        if some == 1:
            bundles = [combine.merge_accumulators(bundles)]
    return combine.extract_output(bundles[0])


@every_kind
@pytest.mark.parametrize("waiting_bytes", [0, 1000, 2**22])
def test_any_bundling_in_any_order_gives_what_one_machine_does(
    kind, waiting_bytes, monkeypatch
):
    monkeypatch.setattr(
        "tf_pseudofeat.engines.beam_moments._WAITING_BYTES", waiting_bytes
    )
    features, labels = make_data()
    expected = moments_of(features, labels, C, kind)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        batches = random_batches(features, labels, rng)
        received = as_a_runner_might(CombineClassMoments(C, kind), batches, rng)
        assert_same(received, expected)


def test_few_rows_wait_for_others_and_take_no_more_than_the_statistics(monkeypatch):
    monkeypatch.setattr("tf_pseudofeat.engines.beam_moments._WAITING_BYTES", 2**16)
    combine = CombineClassMoments(2, "tied")
    gathered, rows = combine.create_accumulator(), np.ones((64, 256), "float32")
    waiting, settled = [], 0
    for _ in range(200):
        gathered = combine.add_input(gathered, (rows, np.zeros(64)))
        waiting.append(gathered.buffered_bytes)
        settled += not gathered.batches
    statistics = 8 * (2 + 2 * 256 + 256 * 256)
    assert max(waiting) < statistics
    assert settled == 1 + (200 - 1) * rows.nbytes // (9 * rows.nbytes)


@every_kind
def test_what_was_extracted_or_merged_does_not_change_afterwards(kind, monkeypatch):
    monkeypatch.setattr("tf_pseudofeat.engines.beam_moments._WAITING_BYTES", 0)
    combine, expected = CombineClassMoments(C, kind), moments_of(*make_data(), C, kind)

    def added(accumulator):
        return combine.add_input(accumulator, make_data())

    accumulator = added(combine.create_accumulator())
    output = combine.extract_output(accumulator)
    merged = combine.merge_accumulators([combine.create_accumulator(), accumulator])
    combine.extract_output(added(merged))
    assert_same(combine.extract_output(accumulator), expected)
    combine.extract_output(added(accumulator))
    assert_same(output, expected)


@every_kind
def test_what_is_sent_is_bytes_of_the_size_that_is_promised(kind):
    combine = CombineClassMoments(C, kind)
    sent = combine.compact(combine.add_input(combine.create_accumulator(), make_data()))
    promised = {
        "full": C + C * D + C * D**2,
        "tied": C + C * D + D**2,
        "diag": C + 2 * C * D,
        "low_rank": C + 2 * C * D + C * D * D,  # of rank D
    }
    size = 8 * promised[kind]
    assert isinstance(sent, bytes)
    assert size < len(sent) < size + 1500
    assert combine.get_accumulator_coder().encode(sent) is sent
    assert combine.compact(combine.create_accumulator()) == b""


def test_the_coder_is_beam_s_own_choice_and_has_one_form_for_each_value():
    coder = beam.coders.registry.get_coder(ClassMoments)
    assert isinstance(coder, ClassMomentsCoder)
    assert coder.is_deterministic()
    moments = moments_of(*make_data(), C)
    encoded = coder.encode(moments)
    assert coder.encode(moments_of(*make_data(), C)) == encoded
    assert coder.encode(coder.decode(encoded)) == encoded


def test_a_pickle_among_the_accumulators_raises():
    file = io.BytesIO()
    np.savez(file, count=np.array([{}]), mean=[[1.0]], scatter=[[1.0]], kind="diag")
    combine = CombineClassMoments(1, "diag")
    with pytest.raises(ValueError, match="dtype is object.*needs pickle"):
        combine.merge_accumulators([file.getvalue()])


def test_globally_by_key_and_with_fanout(kind="tied"):
    features, labels = make_data()
    batches = random_batches(features, labels, np.random.default_rng(1))
    odd = [batch for number, batch in enumerate(batches) if number % 2]
    expected = moments_of(features, labels, C, kind)
    expected_odd = moments_of(*map(np.concatenate, zip(*odd, strict=True)), C, kind)

    def same(expected, received):
        (moments,) = received
        assert_same(moments, expected)

    with pipeline() as p:
        combine = CombineClassMoments(C, kind)
        rows = p | beam.Create(list(enumerate(batches))) | beam.Reshuffle()
        values = rows | beam.Values()
        total = values | "One" >> beam.CombineGlobally(combine)
        fanned = values | "Fanned" >> beam.CombineGlobally(combine).with_fanout(3)
        keyed = rows | "Key" >> beam.MapTuple(lambda number, x: (number % 2, x))
        by_key = keyed | "Key by key" >> beam.CombinePerKey(combine)
        hot = keyed | "Hot" >> beam.CombinePerKey(combine).with_hot_key_fanout(3)
        assert total.element_type is ClassMoments
        for name, moments in {"one": total, "fanned": fanned}.items():
            assert_that(moments, functools.partial(same, expected), name)
        for name, moments in {"by key": by_key, "hot": hot}.items():
            moments = moments | f"{name}: odd" >> beam.Filter(lambda pair: pair[0] == 1)
            moments = moments | f"{name}: values" >> beam.Values()
            assert_that(moments, functools.partial(same, expected_odd), name)


def test_of_no_batch_there_are_no_moments():
    combine = CombineClassMoments(C)
    with pytest.raises(ValueError, match=r"no batch.*without_defaults\(\)"):
        combine.extract_output(combine.create_accumulator())
    with pipeline() as p:
        nothing = p | beam.Create([])
        moments = nothing | beam.CombineGlobally(combine).without_defaults()
        assert_that(moments, lambda received: received == [] or pytest.fail(received))


@pytest.mark.parametrize(
    "batch, message",
    [
        (np.ones((3, 2)), r"batches \(features .*received a ndarray. BatchRows"),
        ((np.ones(2), 1), r"shapes \(2,\) and \(\). BatchRows"),
        ((np.ones((3, 2)), [1, 2]), r"shapes \(3, 2\) and \(2,\)"),
        ((np.ones((1, 2)), [9]), "class ids 0 to 3"),
        ((np.full((1, 2), np.nan), [1]), "NaN or infinite"),
    ],
)
def test_what_is_no_batch(batch, message):
    combine = CombineClassMoments(C)
    with pytest.raises(ValueError, match=message):
        combine.compact(combine.add_input(combine.create_accumulator(), batch))


def test_features_of_two_sizes():
    combine = CombineClassMoments(C)
    first, second = ((np.ones((1, size)), [1]) for size in (2, 3))
    gathered = combine.add_input(combine.create_accumulator(), first)
    with pytest.raises(ValueError, match=r"the same shape; .*\[1, 2\] and \[1, 3\]"):
        combine.add_input(gathered, second)
    with pytest.raises(ValueError, match=r"\[4, 2\] and .*\[4, 3\]"):
        combine.add_input(combine.compact(gathered), second)
        combine.merge_accumulators(
            combine.add_input(combine.create_accumulator(), batch)
            for batch in (first, second)
        )
