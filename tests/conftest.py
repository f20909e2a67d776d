"""What only Keras on TensorFlow has is not tested where KERAS_BACKEND is another."""

import pytest


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
