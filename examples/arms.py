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
from tf_pseudofeat.adjust import shift_bias
from tf_pseudofeat.search import search_recipe

__all__ = ["ARMS", "run_arm"]

# Enough for the whole search on a busy machine: results do not depend on its speed.
_SEARCH_SECONDS = 600.0
_LOSS = "sparse_categorical_crossentropy"


def run_arm(name, file, seed):
    """Trains one arm's head and scores it on the test features.

    Args:
        name: a key of `ARMS`.
        file: `FeatureFile`.
        seed: whole number, of the head.

    Returns:
        scores: see `classification_scores`; None where the file has not what the arm
            needs (views, removed examples).
        settings: what the arm chose for itself, {} for most.
    """
    head = file.head()
    settings = ARMS[name](head, file, seed)
    if settings is NotImplemented:
        return None, {}
    probabilities = head.predict(file.test_features, batch_size=4096, verbose=0)
    minority = [int(class_id) for class_id in file.minority]
    scores = tfpf.classification_scores(
        file.test_labels, probabilities.argmax(axis=-1), file.num_classes, minority
    )
    return scores, settings or {}


def _fit(head, file, seed, features=None, labels=None, weight=None, **recipe):
    """Real features, or those that are given, as they are."""
    features = file.features if features is None else features
    labels = file.labels if labels is None else labels
    data = tfpf.LabeledFeatures(features, labels, weight)
    material = tfpf.Material(data, data.class_counts(file.num_classes))
    loss = recipe.pop("loss", _LOSS)
    task = tfpf.Task(head, file.num_classes, loss)
    recipe = tfpf.HeadRecipe(**recipe)
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


def _gaussian(
    head,
    file,
    seed,
    strategy="auto",
    on_views=False,
    tau=0.0,
    **options,
):
    """The paper's method and its variants."""
    data = tfpf.LabeledFeatures(file.features, file.labels)
    if on_views:
        if file.view_features is None:
            return NotImplemented
        data = data.concatenate([data, *_views(file)])
    recipe = tfpf.HeadRecipe(sampling_strategy=strategy, tau=tau, **options)
    return _retrained(tfpf.Task(head, file.num_classes, _LOSS), data, recipe, seed)


def _retrained(task, data, recipe, seed):
    """Steps 3 to 5 on features."""
    material = tfpf.prepare_material(data, recipe, task.num_classes)
    tfpf.fit_head(task, material, recipe, seed=(seed, 1), verbose=0)


def _views(file):
    views = () if file.view_features is None else file.view_features
    return [tfpf.LabeledFeatures(view, file.labels) for view in views]


def _class_weights(head, file, seed):
    """Every class weighs the same in the loss."""
    counts = np.bincount(file.labels, minlength=file.num_classes)
    weight = (counts.sum() / (file.num_classes * counts))[file.labels]
    _fit(head, file, seed, weight=weight.astype(np.float32))


def _balanced_softmax(head, file, seed):
    """Ren et al. (2020), arXiv 2007.10740: the prior is put on in training only."""
    prior = np.bincount(file.labels, minlength=file.num_classes) / len(file.labels)
    log_prior = np.log(prior).astype(np.float32)

    def loss(labels, probabilities):
        logits = keras.ops.log(keras.ops.maximum(probabilities, 1e-30))
        logits = keras.ops.add(logits, log_prior)
        return keras.losses.sparse_categorical_crossentropy(
            labels, logits, from_logits=True
        )

    _fit(head, file, seed, loss=loss)


def _tau_normalised(head, file, seed):
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


def _auto(head, file, seed):
    """The package's own choice, without validation data."""
    task = tfpf.Task(head, file.num_classes, _LOSS)
    plain, views = tfpf.LabeledFeatures(file.features, file.labels), _views(file)
    tuning = search_recipe(
        task, plain, views, seed=(seed, 1), time_budget=_SEARCH_SECONDS
    )
    data = plain
    if tuning.chosen["on_views"]:
        data = plain.concatenate([plain, *views])
    _retrained(task, data, tuning.recipe, seed)
    return {**tuning.chosen, "judged_on": tuning.judged_on}


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
    "tau_norm": _tau_normalised,
    "lda": _lda,
    "logit_adjustment": functools.partial(_adjusted, tau=1.0),
    "logit_adjustment_1.5": functools.partial(_adjusted, tau=1.5),
    "gaussian_adjusted": _variant(tau=0.5),
    "views": _variant(on_views=True),
    "views_x20": _variant(on_views=True, strategy=tfpf.multiply_minority(20)),
    "views_blend": _variant(on_views=True, blend=0.5, tau=0.8),
    "auto": _auto,
    "oracle": _oracle,
}
