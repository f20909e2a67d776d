"""Steps 3 and 4 of Konno and Iwazume (2018): the training data of a head."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.extraction.chosen import ClassTotals
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.sampling.counts import (
    check_several_classes,
    minority_classes,
    pseudo_counts,
)
from tf_pseudofeat.sampling.interleave import stream_features
from tf_pseudofeat.sampling.resample import resample
from tf_pseudofeat.sampling.rounding import warn_of_rounding

__all__ = ["Material", "prepare_material"]


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """Real features, and the Gaussians and counts of pseudo-features.

    Attributes:
        features: `LabeledFeatures` to train on, resampled if there is a sampler.
        real: real examples per class, int64 `[C]`.
        gaussian: fitted `ClassConditionalGaussian`, or None.
        counts: {class: pseudo-features to draw in each epoch}.
        totals: `ClassTotals` of the data that the examples were chosen from; None if
            all were chosen.
        viewed: whether the features are those of views.
    """

    features: LabeledFeatures
    real: np.ndarray
    gaussian: ClassConditionalGaussian | None = None
    counts: dict | None = None
    totals: ClassTotals | None = None
    viewed: bool = False

    @property
    def pseudo(self) -> np.ndarray:
        """Pseudo-features per class, int64 `[C]`; negative for removed examples."""
        made = [(self.counts or {}).get(c, 0) for c in range(self.real.size)]
        return self.features.class_counts(self.real.size) - self.real + made

    @property
    def mass(self) -> np.ndarray:
        """Total weight of the real examples of each class, float64 `[C]`."""
        weight, ids = self.features.sample_weight, self.features.ids
        plain = weight is None  # a sampler drops the weights, too
        return 1.0 * self.real if plain else np.bincount(ids, weight, self.real.size)

    @property
    def mix(self) -> np.ndarray:
        """Total weight of each class in the training set, float64 `[C]`."""
        return self.mass * (self.real + self.pseudo) / np.maximum(self.real, 1)

    @property
    def examples(self) -> np.ndarray:
        """Examples per class in the data, int64 `[C]`, chosen or not."""
        return self.real if self.totals is None else self.totals.of(self.real.size)[0]

    @property
    def population(self) -> np.ndarray:
        """Total weights of `examples`, float64 `[C]`."""
        return self.mass if self.totals is None else self.totals.of(self.real.size)[1]

    @property
    def minority(self) -> list[int]:
        """The classes that are rare in the data, see `minority_classes`."""
        return minority_classes(self.examples)

    def weighted_as_population(self, features: LabeledFeatures) -> LabeledFeatures:
        """Weights chosen examples so that classes have the shares of all the data.

        Scores then are those of the data, whatever part of each class was chosen.
        """
        weight = features.sample_weight
        weight = np.ones(features.ids.size) if weight is None else weight
        chosen = np.bincount(features.ids, weight, self.real.size)
        factor = self.population / np.where(chosen > 0, chosen, 1.0)
        if self.totals is None or np.ptp(factor[chosen > 0]) == 0:
            return features
        return dataclasses.replace(
            features, sample_weight=weight * factor[features.ids]
        )

    def stream(self, recipe: HeadRecipe, seed: Sequence[int]) -> tf.data.Dataset:
        """The dataset of batches, see `interleave`."""
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
    """Fits the Gaussians of a recipe, or runs its sampler, and counts pseudo-features.

    Args:
        features: `LabeledFeatures` of the training data.
        recipe: `HeadRecipe`; a `ClassConditionalGaussian` in it is fitted in place.
        num_classes: C.
        totals: counts `[C]` or `ClassTotals` of the data that the examples were chosen
            from; None if all were chosen.
        viewed: see `Material`.

    Returns:
        material: `Material`.

    Raises:
        ValueError: If a label is not a class, all labels are the same, a class has too
            few examples for its covariance, the sampling strategy does not fit, or a
            sampler transforms features, see `resample`.

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
        made = resample(features, recipe.sampler, num_classes)
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
