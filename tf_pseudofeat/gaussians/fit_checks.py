"""Checks of the moments that a `ClassConditionalGaussian` is fitted to."""

import numpy as np

from tf_pseudofeat.gaussians.covariance_types import COVARIANCE_TYPES
from tf_pseudofeat.gaussians.moments import ClassMoments
from tf_pseudofeat.gaussians.rank import resolve_rank

__all__ = ["described_covariance", "rank_of", "shape_of_moments"]


def shape_of_moments(layer, moments, feature_shape):
    """Checks that moments fit a layer; returns the shape of one feature."""
    if not isinstance(moments, ClassMoments):
        raise TypeError(
            f"`moments` must be a ClassMoments; received {type(moments).__name__}. "
            f"Pass features to adapt(features, labels)."
        )
    received = moments.num_classes, moments.kind
    expected = layer.num_classes, COVARIANCE_TYPES[layer.covariance_type].kind
    if received != expected:
        raise ValueError(
            f"{layer.name} has {expected[0]} classes and {layer.covariance_type!r}, "
            f"which takes moments of kind {expected[1]!r}; received {received[0]} "
            f"classes and kind {received[1]!r}."
        )
    if not moments.count.sum() > 0 or not np.isfinite(moments.scatter).all():
        raise ValueError(
            f"The moments have no example, or are NaN or infinite; their counts are "
            f"{moments.count}. Compute them from finite features."
        )
    size = moments.feature_size
    if moments.rank != rank_of(layer, size):
        raise ValueError(
            f"{layer.name} keeps {rank_of(layer, size)} directions of each class, the "
            f"moments {moments.rank}. Pass rank={moments.rank} to the layer."
        )
    built = layer.feature_shape if layer.built else None
    shape = tuple(feature_shape or built or (size,))
    if int(np.prod(shape)) != size:
        raise ValueError(
            f"The moments have {size} features; {list(shape)} has "
            f"{int(np.prod(shape))}. Pass their `feature_shape`, or use a new layer."
        )
    return shape


def rank_of(layer, size):
    """The number of directions for D = `size` features; None unless "low_rank"."""
    return (
        resolve_rank(layer.rank, size)
        if COVARIANCE_TYPES[layer.covariance_type].has_rank
        else None
    )


def described_covariance(layer):
    """The covariance type of a layer, with its rank if there is one."""
    rank = "" if layer.rank is None else f" of rank {layer.rank}"
    return f"{layer.covariance_type!r}{rank}"
