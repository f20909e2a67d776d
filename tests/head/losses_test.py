"""Tests for losses.py: a loss is tried on the first batch."""

import keras
import numpy as np
import pytest

from tf_pseudofeat.head.losses import check_loss, check_loss_name

P = np.full((6, 3), 1 / 3, "float32")
IDS = np.arange(6) % 3
ONE_HOT = np.eye(3)[IDS]
ONE, BINARY = P[:, :1], IDS.clip(max=1)


@pytest.mark.parametrize(
    ("loss", "outputs", "labels"),
    [
        ("sparse_categorical_crossentropy", P, IDS),
        ("sparse_categorical_crossentropy", P, IDS[:, np.newaxis]),
        ("categorical_crossentropy", P, ONE_HOT),
        ("crossentropy", P, IDS),
        (keras.losses.CategoricalFocalCrossentropy(), P, ONE_HOT),
        ("binary_crossentropy", ONE, BINARY),
        ("binary_crossentropy", ONE, BINARY[:, np.newaxis]),
    ],
)
@pytest.mark.parametrize("rows", [6, 3, 1])
def test_labels_that_fit_pass_whatever_the_size_of_the_batch(
    loss, outputs, labels, rows
):
    check_loss(loss, outputs[:rows], labels[:rows], np.ones(rows))


@pytest.mark.parametrize(
    ("loss", "outputs", "labels", "advice"),
    [
        (
            "categorical_crossentropy",
            P,
            IDS,
            r"\[N\] for .*\[B, 3\]. These labels are cl",
        ),
        ("categorical_crossentropy", P, IDS[:, np.newaxis], r"shape \[N, 1\] .* class"),
        ("sparse_categorical_crossentropy", P, ONE_HOT, "labels are one-hot: pass"),
        ("mse", P, IDS, "class ids: pass loss='sparse_categorical"),
        (
            "sparse_categorical_crossentropy",
            ONE,
            BINARY,
            "For one output, labels are 0",
        ),
    ],
)
@pytest.mark.parametrize("rows", [6, 3, 1])
def test_labels_that_do_not_fit_are_told_which_loss_does(
    loss, outputs, labels, advice, rows
):
    if rows == 1 and outputs is ONE:
        labels = labels[1:]  # the loss takes label 0
    with pytest.raises(ValueError, match=advice):
        check_loss(loss, outputs[:rows], labels[:rows])


def test_an_error_inside_a_loss_of_ones_own_is_not_taken_for_a_misfit():
    def broken(y_true, y_pred):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        check_loss(broken, P, IDS)


def test_an_unknown_name_raises():
    check_loss_name("ce"), check_loss_name("mse"), check_loss_name(len)
    with pytest.raises(ValueError, match="crosentropy"):
        check_loss_name("crosentropy")
