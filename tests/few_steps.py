"""Heads that are trained for a few steps, where a test asks no more of them."""

import contextlib
from unittest import mock

import pytest

from tf_pseudofeat.head import training

__all__ = ["few_steps", "heads_train_briefly"]


@contextlib.contextmanager
def few_steps():
    """Five epochs are the default of a head's training, not about 1,000 steps."""
    with mock.patch.object(training, "_STEPS", 1):
        yield


@pytest.fixture(scope="module")
def heads_train_briefly():
    """`few_steps` for a test file that has this among its `pytestmark`."""
    with few_steps():
        yield
