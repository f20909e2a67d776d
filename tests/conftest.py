"""What a backend does not have is not tested where KERAS_BACKEND names it; garbage."""

import gc

import pytest


def pytest_collection_finish():
    """Spares the garbage collection what the imports made: it is nearly all there is.

    Beside it, what a test leaves is little; so that is looked for less often, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_collection_modifyitems(items):
    """Skips tests that are marked `tensorflow` on any other backend."""
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
