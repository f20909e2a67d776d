"""Tests for beam_runners.py: runners that lose rows are refused."""

import pytest

beam = pytest.importorskip("apache_beam")
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402

from tf_pseudofeat.engines.beam import (  # noqa: E402
    BatchRows,
    ExtractFeatures,
    WriteFeatureShards,
    WriteMoments,
)


@pytest.mark.parametrize(
    "transform",
    [
        BatchRows(),
        ExtractFeatures("served/1"),
        WriteFeatureShards("features"),
        WriteMoments("moments.npz"),
    ],
)
def test_a_runner_that_loses_rows(transform):
    class DaskRunner(beam.runners.PipelineRunner):  # its package may be missing
        pass

    elements = beam.Pipeline(DaskRunner()) | beam.Create([])
    with pytest.raises(NotImplementedError, match="DaskRunner.*10 rows.*gave 8"):
        elements | transform


def test_beam_s_own_dask_runner_is_recognized():
    pytest.importorskip("distributed")
    name = "apache_beam.runners.dask.dask_runner.DaskRunner"
    for pipeline in (
        beam.Pipeline(name),
        beam.Pipeline(options=PipelineOptions([f"--runner={name}"])),
    ):
        with pytest.raises(NotImplementedError, match=r"tf_pseudofeat\.engines\.parts"):
            pipeline | beam.Create([]) | BatchRows()
