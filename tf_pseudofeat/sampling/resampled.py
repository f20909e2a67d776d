"""What an imbalanced-learn sampler makes of features, checked before it is used."""

import numpy as np
from imblearn.under_sampling import ClusterCentroids

from tf_pseudofeat.core.arguments import check_finite
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.labels import class_ids, labels_like
from tf_pseudofeat.sampling.rounding import cast_draws, warn_of_rounding

__all__ = ["resampled"]


def resampled(data, sampler, num_classes):
    """The features that a sampler leaves and makes, in the form of those it was given.

    It may change how many examples there are, and not what an example is: the head goes
    on to see features as the trunk gives them.

    Args:
        data: `LabeledFeatures`.
        sampler: has imbalanced-learn's `fit_resample`.
        num_classes: C.

    Returns:
        resampled: `LabeledFeatures`.

    Raises:
        ValueError: The sampler gives features of another size, labels that are no class
            ids, another number of labels than features, or none of the real examples as
            it was.
    """
    features, labels = data
    features = np.asarray(features)  # of a `StoredArray` all
    is_whole = features.dtype.kind in "iu"
    # What float32 cannot hold would not come back as it was.
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
    """Features `[M, D]` and class ids `[M]` that a sampler gave."""
    name, made, ids = type(sampler).__name__, np.asarray(made), np.asarray(ids)
    if made.ndim != 2 or made.shape[1] != size:
        raise ValueError(
            f"`sampler` {name} gives features of shape {list(made.shape)} for features "
            f"[N, {size}]. A sampler adds and removes examples; what selects or makes "
            f"features belongs into the model, before the split."
        )
    if ids.shape != (len(made),):
        raise ValueError(
            f"`sampler` {name} gives {len(made)} features and labels of shape "
            f"{list(ids.shape)}; each feature needs the class id of its own, [M]."
        )
    check_finite(made, f"The features of `sampler` {name}")
    try:
        return made, class_ids(ids, num_classes)
    except ValueError as error:
        raise ValueError(f"`sampler` {name} gives other labels: {error}") from error


def _check_real_rows(sampler, real, made):
    """Raises where not one row is as it was."""
    # A row of zeros, of dead units, is one after a scaling, too.
    known = {hash(row.tobytes()) for row in real[real.any(axis=1)]}
    if not known or any(hash(row.tobytes()) in known for row in made):
        return
    raise ValueError(
        f"`sampler` {type(sampler).__name__} gives {len(made)} features, and not one "
        f"of the {len(real)} real ones is among them: it changes features, by a "
        f"scaling for instance, and the model would not do so later. Put the scaling "
        f"into the model, before the split, or pass the sampler alone."
    )
