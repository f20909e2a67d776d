"""Tests for beam_features.py: the trunk in a pipeline gives what it gives alone."""

import os

import keras
import numpy as np
import pytest
from keras import layers

from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.gaussians.moments_file import load_moments
from tf_pseudofeat.serving.export import export_classifier
from tf_pseudofeat.splitting.split_at import split_at

beam = pytest.importorskip("apache_beam")
from apache_beam.ml.inference.base import RunInference  # noqa: E402
from apache_beam.testing.util import assert_that  # noqa: E402

from tests.beam_data import (  # noqa: E402
    C,
    image_model,
    images_and_labels,
    model_of,
    pipeline,
)
from tests.same_moments import assert_same  # noqa: E402
from tf_pseudofeat.engines.beam import (  # noqa: E402
    CombineClassMoments,
    ExtractFeatures,
    FeaturesModelHandler,
    WriteMoments,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """`(model, folder of its SavedModel)`."""
    model, folder = image_model(), tmp_path_factory.mktemp("served")
    return model, export_classifier(model, folder, layer_name="features")


def test_run_inference_gives_the_features_of_the_trunk(served):
    model, path = served
    images, _ = images_and_labels()
    expected = split_at(model, "features").trunk.predict(images, verbose=0)

    def same(received):
        order = {x.tobytes(): row for x, row in zip(images, expected, strict=True)}
        assert len(received) == len(images)
        for result in received:
            row = order[result.example.tobytes()]
            np.testing.assert_allclose(result.inference, row, atol=1e-6)
            assert result.model_id == path

    with pipeline() as p:
        handler = FeaturesModelHandler(path, max_batch_size=32)
        assert_that(p | beam.Create(list(images)) | RunInference(handler), same)


def test_a_newer_model_is_another_folder(served, tmp_path):
    newer = image_model(seed=1)
    handler = FeaturesModelHandler(served[1])
    handler.update_model_path(export_classifier(newer, tmp_path, layer_name="features"))
    images, _ = images_and_labels()
    results = handler.run_inference(list(images), handler.load_model())
    expected = split_at(newer, "features").trunk.predict(images, verbose=0)
    received = np.stack([result.inference for result in results])
    np.testing.assert_allclose(received, expected, atol=1e-6)
    handler.update_model_path(None)  # what a side input says before it knows
    assert handler.load_model() is not None
    assert handler.get_num_bytes(list(images)) == images.nbytes


def test_inputs_by_name(tmp_path):
    inputs = {"left": keras.Input((2,), name="left"), "right": keras.Input((3,))}
    inputs["right"] = keras.Input((3,), name="right")
    model = model_of(inputs, layers.Concatenate()(list(inputs.values())))
    handler = FeaturesModelHandler(
        export_classifier(model, tmp_path, layer_name="features")
    )
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(7, n)) for name, n in (("left", 2), ("right", 3))}
    rows = [{name: array[i] for name, array in x.items()} for i in range(7)]
    results = handler.run_inference(rows, handler.load_model())
    expected = split_at(model, "features").trunk.predict(x, verbose=0)
    received = np.stack([result.inference for result in results])
    np.testing.assert_allclose(received, expected, atol=1e-6)
    assert handler.get_num_bytes(rows) == 7 * 5 * 8


def test_features_keep_their_labels(served, tmp_path):
    model, path = served
    images, labels = images_and_labels()
    expected, _ = extract_features(
        split_at(model, "features").trunk, (images, labels), verbose=0
    )

    def same(batches):
        features, found = map(np.concatenate, zip(*batches, strict=True))
        assert features.dtype == np.float32
        order = np.lexsort(features.T)
        wanted = np.lexsort(expected.T)
        np.testing.assert_allclose(features[order], expected[wanted], atol=1e-6)
        np.testing.assert_array_equal(found[order], labels[wanted])

    with pipeline() as p:
        rows = p | beam.Create(list(zip(images, labels.tolist(), strict=True)))
        batches = rows | ExtractFeatures(path, batch_size=16)
        assert_that(batches, same)
        moments = batches | beam.CombineGlobally(CombineClassMoments(C, "diag"))
        moments | WriteMoments(str(tmp_path / "moments.npz"))
    received = load_moments(tmp_path / "moments.npz")
    assert_same(received, moments_of(expected, labels, C, "diag"), 1e-5)
    assert os.listdir(tmp_path) == ["moments.npz"]


def test_a_model_without_features(served, tmp_path):
    path = export_classifier(served[0], tmp_path)
    with pytest.raises(ValueError, match=r"\['serving_default'\].*layer_name=\.\.\."):
        FeaturesModelHandler(path).load_model()
    with pytest.raises(OSError, match="nowhere"):
        FeaturesModelHandler(str(tmp_path / "nowhere")).load_model()
