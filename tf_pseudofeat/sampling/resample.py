"""Resamples features with an imbalanced-learn sampler, and checks the result."""

import numpy as np
from imblearn.under_sampling import ClusterCentroids

from tf_pseudofeat.core.finite import check_finite
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.labels import class_ids, labels_like
from tf_pseudofeat.sampling.rounding import cast_draws, warn_of_rounding

__all__ = ["resample"]


def resample(data, sampler, num_classes):
    """Resamples features, keeping their form.

    A sampler may add and remove examples, but not transform features, since the head
    still gets the features of the trunk.

    Args:
        data: `LabeledFeatures`.
        sampler: object with imbalanced-learn's `fit_resample`.
        num_classes: C.

    Returns:
        resampled: `LabeledFeatures`.

    Raises:
        ValueError: If the sampler returns features of another size, labels that are not
            class ids, different numbers of features and labels, or none of the real
            examples unchanged.
    """
    features, labels = data
    features = np.asarray(features)  # reads all of a `StoredArray`
    is_whole = features.dtype.kind in "iu"
    # Only dtypes that float32 can hold exactly.
    short = features.dtype.itemsize <= (2 if is_whole else 4)
    flat = features.reshape(len(features), -1)
    flat = flat.astype(np.float32 if short else np.float64)
    made, ids = sampler.fit_resample(flat, data.ids)
    made, ids = _checked(sampler, made, ids, flat.shape[1], num_classes)
    if not isinstance(sampler, ClusterCentroids):  # whose rows are means
        _check_real_rows(sampler, flat, made.astype(flat.dtype, copy=False))
    if is_whole and (np.rint(made) != made).any():
        warn_of_rounding([features.dtype])
    made = cast_draws(made.reshape(-1, *features.shape[1:]), features.dtype)
    return LabeledFeatures(made, labels_like(ids, labels, num_classes))


def _checked(sampler, made, ids, size, num_classes):
    """Checks features `[M, D]` and class ids `[M]` of a sampler."""
    name, made, ids = type(sampler).__name__, np.asarray(made), np.asarray(ids)
    if made.ndim != 2 or made.shape[1] != size:
        raise ValueError(
            f"`sampler` {name} returns features of shape {list(made.shape)} for "
            f"features [N, {size}]. A sampler must only add and remove examples; put "
            f"feature selection into the model, before the split."
        )
    if ids.shape != (len(made),):
        raise ValueError(
            f"`sampler` {name} returns {len(made)} features and labels of shape "
            f"{list(ids.shape)}; each feature needs one class id, [M]."
        )
    check_finite(made, f"The features of `sampler` {name}")
    try:
        return made, class_ids(ids, num_classes)
    except ValueError as error:
        raise ValueError(f"`sampler` {name} returns invalid labels: {error}") from error


def _check_real_rows(sampler, real, made):
    """Raises ValueError if no row is unchanged."""
    # Rows of zeros, of dead units, stay zeros after scaling.
    known = {hash(row.tobytes()) for row in real[real.any(axis=1)]}
    if not known or any(hash(row.tobytes()) in known for row in made):
        return
    raise ValueError(
        f"`sampler` {type(sampler).__name__} returns {len(made)} features, and none of "
        f"the {len(real)} real ones is among them: it transforms features, for "
        f"instance by scaling, which the model does not do in inference. Put the "
        f"scaling into the model, before the split, or pass only the sampler."
    )
