"""What a backend does not have is not tested where KERAS_BACKEND names it; speed."""

import gc

import pytest

from tests.paths import ROOT

_PACKAGE_FOLDERS = {
    path.parent.name for path in ROOT.glob("tf_pseudofeat/*/__init__.py")
}

gc.disable()  # until all is imported, which makes millions of objects and no garbage


def pytest_collection_finish():
    """Spares the garbage collection what the imports made: it is nearly all there is.

    Beside it, what a test leaves is little; so that is looked for less often, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


def pytest_collection_modifyitems(items):
    """Marks tests of `integration`; skips those for TensorFlow on other backends."""
    for item in items:
        if item.path.parent.name == "integration":
            item.add_marker("integration")
    import keras  # Here, as the process that hands out the tests needs none.

    backend = keras.backend.backend()
    if backend == "tensorflow":
        return
    for item in items:
        for mark in item.iter_markers("tensorflow"):
            reason = f"{mark.kwargs['reason']}; KERAS_BACKEND is {backend!r}"
            item.add_marker(pytest.mark.skip(reason=reason))


def _skips_without_savedmodel():
    """Runs a part of a test; where Keras is on torch, nothing can be exported."""
    try:
        return (yield)
    except NotImplementedError as error:
        import keras

        on_torch = keras.backend.backend() == "torch"
        if not on_torch or "A SavedModel is a graph of TensorFlow" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Skips what a fixture cannot export."""
    return (yield from _skips_without_savedmodel())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skips what cannot be exported, but for a test of the refusal itself."""
    return (yield from _skips_without_savedmodel())


@pytest.fixture(scope="session", autouse=True)
def _no_autotuning():
    """Spares the tests TensorFlow's wait for the autotuner where cores are busy.

    It waits where an iterator is deleted, as at the end of each `fit` of arrays: mostly
    for a tenth of a second, at times for half a minute.
    """
    import tensorflow as tf

    options, begin = tf.data.Options(), tf.data.Dataset.__iter__
    options.autotune.enabled = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tf.data.Dataset, "__iter__", lambda self: begin(self.with_options(options))
        )
        yield


@pytest.fixture(autouse=True)
def _no_training_in_a_folder_of_the_package(request, monkeypatch):
    """Fails a test that trains a model, where tests should take milliseconds."""
    of_package = request.path.parent.name in _PACKAGE_FOLDERS
    if not of_package or request.node.get_closest_marker("integration"):
        return
    import keras

    def fit(self, *args, **kwargs):
        pytest.fail("This test trains a model; mark it `integration`.")

    monkeypatch.setattr(keras.Model, "fit", fit)
