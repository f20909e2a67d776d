"""The methods that are compared: each turns a trained head into another one.

All arms train with `fit_head`, on the same features and for as long, and start from the
trained head where their inventors do not say otherwise.
"""

import functools

import imblearn.over_sampling
import imblearn.under_sampling
import keras
import numpy as np

import tf_pseudofeat as tfpf
from tf_pseudofeat.extraction.chosen import ClassTotals
from tf_pseudofeat.head.bias_shift import shift_bias

__all__ = ["ARMS", "run_arm"]

_LOSS = "sparse_categorical_crossentropy"
# Nothing of the old head, and nothing off the prior, where an arm does not ask for it.
_NOTHING_ELSE = {"blend": 0.0, "tau": 0.0}


def run_arm(name, file, seed):
    """Trains one arm's head and scores it on the test features.

    Args:
        name: a key of `ARMS`.
        file: `FeatureFile`.
        seed: whole number, of the head.

    Returns:
        scores: see `classification_scores`; None where the file has not what the arm
            needs.
    """
    head = file.head()
    predicted = ARMS[name](head, file, seed)
    if predicted is NotImplemented:
        return None
    if predicted is None:
        outputs = keras.ops.convert_to_numpy(head(file.test_features))
        predicted = outputs.argmax(axis=-1)
    minority = [int(class_id) for class_id in file.minority]
    return tfpf.classification_scores(
        file.test_labels, predicted, file.num_classes, minority
    )


def _fit(head, file, seed, features=None, labels=None, weight=None, **recipe):
    """Real features, or those that are given, as they are."""
    features = file.features if features is None else features
    labels = file.labels if labels is None else labels
    data = tfpf.LabeledFeatures(features, labels, weight)
    material = tfpf.Material(data, data.class_counts(file.num_classes))
    loss = recipe.pop("loss", _LOSS)
    task = tfpf.Task(head, file.num_classes, loss)
    recipe = tfpf.HeadRecipe(**{**_NOTHING_ELSE, **recipe})
    tfpf.fit_head(task, material, recipe, seed=(seed, 1), verbose=0)


def _as_trained(head, file, seed):
    """Nothing."""


def _head_only(head, file, seed):
    """The control: the same training, on the real features as they are."""
    _fit(head, file, seed)


def _resampled(head, file, seed, sampler, **options):
    """An imbalanced-learn sampler in feature space."""
    sampler = sampler(random_state=seed)
    _fit(head, file, seed, *sampler.fit_resample(file.features, file.labels), **options)


def _gaussian(head, file, seed, strategy="auto", **options):
    """The paper's method and its variants, on all features."""
    data = tfpf.LabeledFeatures(file.features, file.labels)
    options = {"sampling_strategy": strategy, **_NOTHING_ELSE, **options}
    recipe = tfpf.HeadRecipe(**options)
    material = tfpf.prepare_material(data, recipe, file.num_classes)
    task = tfpf.Task(head, file.num_classes, _LOSS)
    tfpf.fit_head(task, material, recipe, seed=(seed, 1), verbose=0)


def _default(head, file, seed, **options):
    """The package's default: a few hundred examples of each class, through a view."""
    if file.used_features is None:
        return NotImplemented
    totals = ClassTotals()
    totals.add(file.labels)
    data = tfpf.LabeledFeatures(file.used_features, file.used_labels)
    recipe = tfpf.HeadRecipe(**options)
    material = tfpf.prepare_material(
        data, recipe, file.num_classes, totals=totals, viewed=bool(file.used_are_views)
    )
    task = tfpf.Task(head, file.num_classes, _LOSS)
    tfpf.fit_head(task, material, recipe, seed=(seed, 1), verbose=0)
    return None


def _from_scratch(head, file, seed):
    """The paper's under-sampling: the whole network is trained on the small set."""
    known = file.scratch_predictions
    return NotImplemented if known is None else known


def _class_weights(head, file, seed):
    """Every class weighs the same in the loss."""
    counts = np.bincount(file.labels, minlength=file.num_classes)
    weight = (counts.sum() / (file.num_classes * counts))[file.labels]
    _fit(head, file, seed, weight=weight.astype(np.float32))


def _balanced_softmax(head, file, seed):
    """Ren et al. (2020), arXiv 2007.10740: the prior is put on in training only."""
    counts = tfpf.class_counts(file.labels, file.num_classes)
    _fit(head, file, seed, loss=tfpf.BalancedSoftmax(counts))


def _tau_normalized(head, file, seed):
    """Kang et al. (2020), arXiv 1910.09217: kernels of unit length, no bias."""
    dense = head.layers[-1]
    kernel = dense.kernel.numpy()
    dense.set_weights([kernel / np.linalg.norm(kernel, axis=0), 0 * file.bias])


def _lda(head, file, seed):
    """The closed form: Gaussians of one shared covariance, all classes as likely."""
    moments = tfpf.moments_of(file.features, file.labels, file.num_classes, "tied")
    (factor,) = tfpf.estimate_covariance(moments, "tied").scale
    half = np.linalg.solve(factor, moments.mean.T)
    kernel = np.linalg.solve(factor.T, half)
    head.layers[-1].set_weights([kernel, -0.5 * np.square(half).sum(axis=0)])


def _adjusted(head, file, seed, tau):
    """Menon et al. (2021), arXiv 2007.07314: no training, the prior is taken off."""
    shift_bias(head, np.bincount(file.labels, minlength=file.num_classes), tau)


def _oracle(head, file, seed):
    """The examples that were cut away, as real features: what nobody has."""
    if file.removed_features is None:
        return NotImplemented
    features = np.concatenate([file.features, file.removed_features])
    labels = np.concatenate([file.labels, file.removed_labels])
    return _fit(head, file, seed, features, labels)


def _variant(**options):
    return functools.partial(_gaussian, **options)


def _sampler(sampler, **options):
    return functools.partial(_resampled, sampler=sampler, **options)


_over, _under = imblearn.over_sampling, imblearn.under_sampling

ARMS = {
    "baseline": _as_trained,
    "head_only": _head_only,
    "scratch": _from_scratch,
    "under_sampling": _sampler(_under.RandomUnderSampler),
    "random_over_sampling": _sampler(_over.RandomOverSampler),
    "smote": _sampler(_over.SMOTE),
    "perturbed": _sampler(tfpf.PerturbedOverSampler),
    "proposed": _variant(
        gaussian={"shrinkage": 0.0}, fresh_head=True, fresh_each_epoch=False
    ),
    "gaussian": _variant(),
    "gaussian_fresh": _variant(fresh_head=True),
    "diagonal": _variant(gaussian={"covariance_type": "diag"}),
    "tied": _variant(gaussian={"covariance_type": "tied"}),
    "low_rank": _variant(gaussian={"covariance_type": "low_rank", "rank": 8}),
    "minority_x10": _variant(strategy=tfpf.multiply_minority(10)),
    "minority_x20": _variant(strategy=tfpf.multiply_minority(20)),
    "minority_x50": _variant(strategy=tfpf.multiply_minority(50)),
    "minority_x100": _variant(strategy=tfpf.multiply_minority(100)),
    "scale_2": _variant(gaussian={"covariance_scale": 2.0}),
    "scale_4": _variant(gaussian={"covariance_scale": 4.0}),
    "class_weights": _class_weights,
    "balanced_softmax": _balanced_softmax,
    "crt": _sampler(_over.RandomOverSampler, fresh_head=True),
    "tau_norm": _tau_normalized,
    "lda": _lda,
    "logit_adjustment": functools.partial(_adjusted, tau=1.0),
    "logit_adjustment_1.5": functools.partial(_adjusted, tau=1.5),
    "gaussian_adjusted": _variant(blend=0.5, tau=0.8),
    "default": _default,
    "oracle": _oracle,
}
