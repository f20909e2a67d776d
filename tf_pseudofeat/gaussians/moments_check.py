"""Checks that statistics from a file are possible statistics of examples."""

import dataclasses

import numpy as np

from tf_pseudofeat.gaussians.moments import shapes_of_moments

__all__ = ["check_moments", "check_shapes"]

# Relative error of float32 sums, at most.
_ROUNDING = 1e-2
# Error of float32 rows of a sketch, relative to the largest variance.
_SKETCH_ROUNDING = 1e-5
# Smaller deviations underflow in a float32 sketch.
_TINY = 1e-30
# Scatter of a single example by rounding, relative to the square of its mean.
_SINGLE_ROUNDING = 1e-10
_MOST_EXAMPLES = 2**53  # largest exact integers in float64
# Smaller products are subnormal in float64.
_VANISHING = 1e-290


def check_shapes(received, kind, name):
    """Checks the shapes of arrays against each other, before any of them is read.

    Args:
        received: {field of `ClassMoments`: (shape, dtype)} of all arrays.
        kind: kind of the moments.
        name: name of the file, for error messages.

    Raises:
        ValueError: If `kind` is unknown, or an array is missing or has another shape.
    """
    shape, _ = received.get("mean", ((), None))
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name} has means of shape {list(shape)}, not [C, D].")
    rank = None
    if "sketch" in received:
        rows = received["sketch"][0][1:2]
        rank = rows[0] // 2 if rows else None
    expected = shapes_of_moments(*shape, kind, rank)
    if received.keys() != expected.keys():
        raise ValueError(
            f"{name} has arrays {sorted(received)}; kind {kind!r} has "
            f"{sorted(expected)}. Write it again."
        )
    for field, (expected_shape, expected_dtype) in expected.items():
        found_shape, found_dtype = received[field]
        if found_shape != expected_shape or found_dtype != expected_dtype:
            raise ValueError(
                f"{name} has a `{field}` of {found_dtype} {list(found_shape)}; kind "
                f"{kind!r} and means {list(shape)} need {expected_dtype} "
                f"{list(expected_shape)}. Write it again."
            )


def check_moments(moments, name):
    """Checks that numbers are possible statistics of examples.

    Args:
        moments: `ClassMoments` whose arrays passed `check_shapes`.
        name: name of the file, for error messages.

    Raises:
        ValueError: If a number is NaN or infinite; a count is negative or not a whole
            number; a class without examples has statistics; a scatter has negative
            squares, is not symmetric or not positive semidefinite; or a sketch holds
            more than the scatter, or nothing. Float32 rounding errors are accepted.
    """
    fields = (field.name for field in dataclasses.fields(moments))
    arrays = {field: getattr(moments, field) for field in fields if field != "kind"}
    for field, array in arrays.items():
        if array is not None and not np.isfinite(array).all():
            raise ValueError(
                f"{name} has NaN or infinity in `{field}`. Write it again."
            )
    wrong = _what_is_wrong(moments)
    if wrong is not None:
        raise ValueError(
            f"{name} cannot be the statistics of any examples: {wrong}. Write it again."
        )


def _what_is_wrong(moments):
    """A description of the first problem, or None."""
    count = moments.count
    if (count < 0).any():
        return f"a negative count, {count.min():g}"
    if count.max() > _MOST_EXAMPLES:
        return f"a count of {count.max():g}"
    if (count != np.floor(count)).any():
        wrong = count[count != np.floor(count)][0]
        return f"a count that is not a whole number, {wrong:g}"
    scatters = {None: moments.scatter}
    if len(moments.scatter) == len(count) and moments.kind != "tied":
        scatters = dict(enumerate(moments.scatter))
    for class_id, count_of_class in enumerate(count):
        parts = [moments.mean[class_id]]
        parts += [scatters[class_id]] if class_id in scatters else []
        parts += [] if moments.sketch is None else [moments.sketch[class_id]]
        if not count_of_class and any(part.any() for part in parts):
            return f"statistics of class {class_id}, which has no example"
        if count_of_class == 1 and class_id in scatters:
            rounding = _SINGLE_ROUNDING * np.square(moments.mean[class_id]).max()
            if np.abs(scatters[class_id]).max() > rounding:
                return f"a scatter of class {class_id}, which has a single example"
    if not count.any() and moments.scatter.any():
        return "a scatter of no examples"
    for class_id, scatter in scatters.items():
        of_class = "" if class_id is None else f" of class {class_id}"
        wrong = _scatter_is_wrong(scatter)
        if wrong is None and moments.sketch is not None:
            wrong = _sketch_is_wrong(moments.sketch[class_id], scatter)
        if wrong is not None:
            return f"the scatter{of_class} {wrong}"
    return None


def _scatter_is_wrong(scatter):
    squares = scatter if scatter.ndim == 1 else np.diagonal(scatter)  # [D]
    if squares.min() < -_ROUNDING * squares.max():
        return f"has negative squares, {squares.min():g}"
    if scatter.ndim == 1:
        return None
    # Covariances of a zero variance must be 0, and are checked in units of 1.
    length = np.sqrt(np.where(squares > _VANISHING, squares, 1))  # [D]
    with np.errstate(over="ignore"):
        relative = scatter / length[:, np.newaxis] / length  # [D, D]
    if not np.isfinite(relative).all():
        return "has covariances without variances"
    if np.abs(relative - relative.T).max() > _ROUNDING:
        return "is not symmetric"
    relative[np.diag_indices(len(relative))] += _ROUNDING
    try:
        factor = np.linalg.cholesky(relative)
    except np.linalg.LinAlgError:
        factor = np.array(np.nan)
    return None if np.isfinite(factor).all() else "is not positive semidefinite"


def _sketch_is_wrong(sketch, squares):
    held = np.square(sketch, dtype=np.float64).sum(axis=0)  # [D]
    allowed = (1 + _ROUNDING) * squares + _SKETCH_ROUNDING * squares.max()
    if (held > allowed + _TINY).any():
        return "is less than what its sketch holds"
    if squares.max() > _TINY and not held.any():
        return "has a sketch of nothing"
    return None
