"""Tests for moments_check.py: numbers that no examples can have.

Files with such numbers are read in moments_file_test.py.
"""

import dataclasses

import numpy as np
import pytest

from tf_pseudofeat.gaussians.moments_check import check_moments, check_shapes
from tf_pseudofeat.gaussians.moments_estimation import moments_of

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 3)), np.append(np.arange(29) % 2, 2)
KINDS = ["full", "tied", "diag", "low_rank"]


def moments(kind="full"):
    return moments_of(X, Y, 4, kind)  # class 2 has one example, class 3 none


def shapes_of(of):
    fields = ("count", "mean", "scatter", "sketch")
    arrays = {name: getattr(of, name) for name in fields}
    return {k: (a.shape, a.dtype) for k, a in arrays.items() if a is not None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1e-150, 1.0, 1e100])
def test_what_was_computed_passes_at_any_magnitude(kind, size):
    if kind == "low_rank" and size > 1:
        size = 1e15  # float32
    of = moments_of(size * X, Y, 4, kind)
    check_shapes(shapes_of(of), kind, "file")
    check_moments(of, "file")


OPPOSED = [[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]]
APART = [[1e-280, 0, 1e200], [0, 1, 0], [1e200, 0, 1e-280]]


@pytest.mark.parametrize(
    ("field", "place", "value", "message"),
    [
        ("mean", (0, 0), np.nan, "NaN or infinity in `mean`"),
        ("count", 0, -1, "a negative count, -1"),
        ("count", 0, 1.5, "a count that is not a whole number, 1.5"),
        ("count", 0, 1e17, "a count of 1e"),
        ("mean", (3, 0), 1, "statistics of class 3, which has no example"),
        ("scatter", (2, 0, 0), 1, "a scatter of class 2, which has a single example"),
        ("scatter", (1, 0, 0), -9, "the scatter of class 1 has negative squares, -9"),
        ("scatter", (1, 0, 1), 9, "the scatter of class 1 is not symmetric"),
        ("scatter", 1, OPPOSED, "of class 1 is not positive semidefinite"),
        ("scatter", 1, APART, "of class 1 has covariances without"),
    ],
)
def test_what_cannot_be_is_named(field, place, value, message):
    of = moments()
    getattr(of, field)[place] = value
    with pytest.raises(ValueError, match=f"^file .*{message}.*Write it again"):
        check_moments(of, "file")


def test_a_scatter_of_all_classes_needs_an_example():
    of = moments("tied")
    of.count[:], of.mean[:] = 0, 0
    with pytest.raises(ValueError, match="a scatter of no examples"):
        check_moments(of, "file")


@pytest.mark.parametrize(
    ("factor", "wrong"), [(2, "less than what"), (0, "a sketch of")]
)
def test_a_sketch_holds_what_its_scatter_has(factor, wrong):
    of = moments("low_rank")
    of.sketch[0] *= factor
    with pytest.raises(ValueError, match=f"the scatter of class 0 .*{wrong}"):
        check_moments(of, "file")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["mean", "scatter"])
def test_a_missing_or_misshapen_array_is_named(kind, field):
    shapes = shapes_of(moments(kind))
    without = {name: shape for name, shape in shapes.items() if name != field}
    with pytest.raises(ValueError, match="file has "):
        check_shapes(without, kind, "file")
    other = shapes | {field: (shapes[field][0], np.dtype("float16"))}
    with pytest.raises(ValueError, match=f"`{field}` of float16"):
        check_shapes(other, kind, "file")


def test_another_type_of_means_and_kinds_raise():
    of = dataclasses.replace(moments())
    with pytest.raises(ValueError, match=r"means of shape \[4\], not \[C, D\]"):
        check_shapes(shapes_of(of) | {"mean": ((4,), None)}, "full", "file")
    with pytest.raises(ValueError, match="kind"):
        check_shapes(shapes_of(of), "spherical", "file")
