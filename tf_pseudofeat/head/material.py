"""Steps 3 and 4 of Konno and Iwazume (2018): what a head trains on."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.extraction.chosen import ClassTotals
from tf_pseudofeat.gaussians.gaussian import ClassConditionalGaussian
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.sampling.budget import (
    check_several_classes,
    minority_classes,
    pseudo_counts,
)
from tf_pseudofeat.sampling.interleave import stream_features
from tf_pseudofeat.sampling.resampled import resampled
from tf_pseudofeat.sampling.rounding import warn_of_rounding

__all__ = ["Material", "prepare_material"]


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """Real features, and the pseudo-features that are drawn beside them.

    Attributes:
        features: `LabeledFeatures` to train on; with a sampler what it made of them.
        real: real examples per class, int64 `[C]`.
        gaussian: fitted `ClassConditionalGaussian`, or None.
        counts: {class: pseudo-features to draw in each epoch}.
        totals: `ClassTotals` of the data that the real ones were chosen from; None
            where they are all there is.
        viewed: whether they are features of views, and not of examples as they are.
    """

    features: LabeledFeatures
    real: np.ndarray
    gaussian: ClassConditionalGaussian | None = None
    counts: dict | None = None
    totals: ClassTotals | None = None
    viewed: bool = False

    @property
    def pseudo(self) -> np.ndarray:
        """Pseudo-features per class, int64 `[C]`; negative where some were taken."""
        made = [(self.counts or {}).get(c, 0) for c in range(self.real.size)]
        return self.features.class_counts(self.real.size) - self.real + made

    @property
    def mass(self) -> np.ndarray:
        """What each class of real examples weighs in all, float64 `[C]`."""
        weight, ids = self.features.sample_weight, self.features.ids
        plain = weight is None  # and after a sampler, of other examples
        return 1.0 * self.real if plain else np.bincount(ids, weight, self.real.size)

    @property
    def examples(self) -> np.ndarray:
        """Examples of each class in the data, int64 `[C]`, looked at or not."""
        return self.real if self.totals is None else self.totals.of(self.real.size)[0]

    @property
    def population(self) -> np.ndarray:
        """What those weigh, float64 `[C]`."""
        return self.mass if self.totals is None else self.totals.of(self.real.size)[1]

    @property
    def minority(self) -> list[int]:
        """The classes that are rare in the data, see `minority_classes`."""
        return minority_classes(self.examples)

    def stream(self, recipe: HeadRecipe, seed: Sequence[int]) -> tf.data.Dataset:
        """The batches of one epoch after the other, see `interleave`."""
        return stream_features(
            self.features,
            self.gaussian,
            self.counts,
            batch_size=recipe.batch_size,
            seed=seed,
            fresh_each_epoch=recipe.fresh_each_epoch,
        )


def prepare_material(
    features: LabeledFeatures,
    recipe: HeadRecipe,
    num_classes: int,
    totals: npt.ArrayLike | ClassTotals | None = None,
    viewed: bool = False,
) -> Material:
    """Fits the Gaussians of a recipe, or runs its sampler, and counts what to draw.

    Args:
        features: `LabeledFeatures` of the training data.
        recipe: `HeadRecipe`; a `ClassConditionalGaussian` in it is fitted in place.
        num_classes: C.
        totals: of the data that the features were chosen from, examples of each class
            `[C]` or `ClassTotals`; None where they are all there is.
        viewed: see `Material`.

    Returns:
        material: `Material`.

    Raises:
        ValueError: A label names no class, all name one, a class has too few examples
            for its covariance, the sampling strategy does not fit them, or a sampler
            changes what an example is, see `resampled`.

    References:
        Konno and Iwazume, arXiv 1807.06538, 2018, Steps 3 and 4.
    """
    real = features.class_counts(num_classes)
    check_several_classes(real, num_classes)
    if totals is not None and not isinstance(totals, ClassTotals):
        totals = ClassTotals(totals)
    if features.sample_weight is not None:
        recipe.check_weighted()
    if recipe.sampler is not None:
        made = resampled(features, recipe.sampler, num_classes)
        return Material(made, real, totals=totals, viewed=viewed)
    examples = real if totals is None else totals.of(num_classes)[0]
    gaussian = recipe.gaussian_for(num_classes, examples)
    counts = pseudo_counts(
        features.ids, recipe.sampling_strategy, features.sample_weight
    )
    if counts:
        warn_of_rounding([features.features.dtype])
    gaussian.adapt(features.features, features.ids)
    return Material(features, real, gaussian, counts, totals, viewed)
