"""Steps 2 to 6 of Konno and Iwazume (2018) as one function."""

import contextlib
import dataclasses
import functools
import time
import warnings

import numpy as np

from tf_pseudofeat.adjust import remember_mix
from tf_pseudofeat.budget import class_counts, minority_classes, pseudo_counts
from tf_pseudofeat.features import (
    concatenate,
    plain_and_views,
    validation_features,
)
from tf_pseudofeat.gaussian import ClassConditionalGaussian
from tf_pseudofeat.head import fit_head, head_optimizer
from tf_pseudofeat.job import check_job
from tf_pseudofeat.labelled import LabelledFeatures
from tf_pseudofeat.labels import class_ids, labels_like
from tf_pseudofeat.report import RetrainingReport
from tf_pseudofeat.tune import tune_on_features

__all__ = ["retrain_head"]


def retrain_head(
    model,
    layer_name,
    data,
    *,
    validation_data=None,
    output=None,
    sampling_strategy="auto",
    gaussian=None,
    sampler=None,
    epochs=None,
    batch_size=256,
    optimizer=None,
    loss=None,
    fresh_head=False,
    fresh_each_epoch=True,
    freeze_batch_norm=True,
    blend=0.0,
    tau=0.0,
    monitor="balanced_accuracy",
    augment=None,
    views=None,
    settings=None,
    steps=None,
    cache_dir=None,
    trunk=None,
    head=None,
    seed=(1, 2),
    verbose="auto",
):
    """Cures the head of a trained classifier of its rare classes.

    Extracts the features of `data` at a layer, fits a Gaussian per class, and trains
    the layers after it on the real features and on pseudo-features of the rare classes.
    The layers before it are not touched, nor are the model's optimizer, its compiled
    loss and metrics, or its `trainable` flags. On any error or interrupt, on a loss
    that is not finite and, with `validation_data`, on a worse `monitor`, the head gets
    back the weights that it had.

    Args:
        model: trained Keras model with an output `[B, C]`, or `[B, 1]` for two classes.
        layer_name: the layer whose output is the feature, `"outer/inner"` inside a
            nested model; None with `trunk` and `head`.
        data: training data: a `tf.data.Dataset` or `keras.utils.PyDataset` of `(x, y)`
            or `(x, y, sample_weight)` batches, or such a tuple of arrays.
        validation_data: the same, to score before and after. Without it the training
            data are scored, which flatters, and nothing guards against a worse head.
        output: of a model with several outputs, the name of the one whose labels are
            the classes and whose head is retrained. `y` may hold the labels of all, as
            for `fit`, or of this one.
        sampling_strategy: how many pseudo-features, see `pseudo_counts`.
        gaussian: a `ClassConditionalGaussian` with the settings to use; it is fitted
            to the features here. By default full covariances with "oas" shrinkage.
        sampler: an imbalanced-learn sampler to use instead of the Gaussians, such as
            `SMOTE()`. It sees features `[N, D]` and class ids.
        epochs: passes over real and pseudo-features; by default as many as make about
            1,000 steps, from 5 to 100.
        batch_size: B of the head's training.
        optimizer: by default a new one of the model's own kind, whose learning rate
            falls from that kind's default to zero in the last quarter of the steps.
        loss: by default the one that the model was compiled with; for a model that
            was not, the cross-entropy that fits its last activation.
        fresh_head: start from new initial weights, as the paper does, and not from the
            trained ones.
        fresh_each_epoch: draw new pseudo-features in each epoch; False for the paper's
            fixed set.
        freeze_batch_norm: keep BatchNormalization layers in the head as they are.
        blend: share of the trained weights in the result, 0 to 1, see `fit_head`.
        tau: lean further towards what is rare in `data`: `tau * log(prior)` of the
            real examples is taken off the logits after training.
        monitor: the score that must not get worse on `validation_data`; None for no
            such guard. See `classification_scores`.
        augment: a Keras preprocessing model or a function of a batch of inputs, to
            fit and train on features of augmented inputs as well, see
            `extract_features`. Worth its time where the trunk has memorised its
            training data.
        views: how many augmented passes over `data`, beside the plain one; 3 by
            default.
        settings: "auto" to have `tune` choose `gaussian`, `sampling_strategy`,
            `fresh_head`, `blend`, `tau` and whether to use the views, in about a
            minute; what it tried is the report's `tuning`.
        steps: batches to read from an infinite `data`.
        cache_dir: a folder to write the features to, where they do not fit in memory:
            "training" in it, "view-0" and on, and "validation", which `load_features`
            reads. They stay there. Not with a `sampler`.
        trunk: for a model without a graph: inputs -> features.
        head: for a model without a graph: features -> outputs. It must share its
            layers with the model.
        seed: two whole numbers. On one machine and installation the same seed gives the
            same weights and report, to the bit, whatever the process; a `sampler`
            draws from its own `random_state`, and `tf.random.set_seed` counts, too.
            Other numbers of threads, GPUs, XLA or processors round differently, and
            "auto" tries fewer settings in its minute on a slower machine.
        verbose: 0 for silence; otherwise progress bars.

    Returns:
        report: `RetrainingReport`.

    Raises:
        ValueError: Data, labels, layer, loss or settings do not fit, weights are NaN,
            several workers share the model: with what came and what to do, checked on
            one batch before the rest is read.
        TypeError: `model` is not a Keras 3 model, or `data` no data.
        OSError: `cache_dir` cannot be written to, or its disk is full.

    Example:

    >>> report = retrain_head(model, "features", train_ds, validation_data=val_ds)
    >>> print(report)

    References:
        Konno and Iwazume, "Pseudo-Feature Generation for Imbalanced Data Analysis in
        Deep Learning", arXiv 1807.06538, 2018.
    """
    job = check_job(
        model,
        layer_name,
        data,
        validation_data=validation_data,
        output=output,
        gaussian=gaussian,
        sampler=sampler,
        loss=loss,
        monitor=monitor,
        steps=steps,
        trunk=trunk,
        head=head,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        sampling_strategy=sampling_strategy,
        optimizer=optimizer,
        augment=augment,
        views=views,
        blend=blend,
        tau=tau,
        fresh_head=fresh_head,
        freeze_batch_norm=freeze_batch_norm,
        settings=settings,
        cache_dir=cache_dir,
    )
    watch, say = _Stopwatch(), print if verbose else _silence

    say(f"Extracting features at {job.layer_name!r}")
    with watch("extract"):
        plain, extracted = plain_and_views(
            job.trunk,
            job.data,
            augment=augment,
            views=views,
            steps=steps,
            seed=seed,
            cache_dir=cache_dir,
            verbose=verbose,
        )
        training = concatenate([plain, *extracted])
        scoring = training
        if validation_data is not None:
            scoring = validation_features(
                job.trunk, job.validation_data, cache_dir=cache_dir, verbose=verbose
            )
    tuning = None
    if settings == "auto":
        say("Choosing the settings")
        with watch("tune"):
            tuning = tune_on_features(
                model,
                job,
                plain,
                extracted,
                scoring if validation_data is not None else None,
                epochs=epochs,
                batch_size=batch_size,
                seed=seed,
            )
        chosen = tuning.keywords(job.num_classes)
        gaussian, sampling_strategy = chosen["gaussian"], chosen["sampling_strategy"]
        fresh_head = chosen["fresh_head"]
        blend, tau = chosen["blend"], chosen["tau"]
        if not tuning.chosen["on_views"]:
            training, extracted = plain, []
    with watch("resample" if sampler else "fit gaussians"):
        source = sampler or gaussian or ClassConditionalGaussian(job.num_classes)
        real = class_counts(training.labels, job.num_classes)
        material, counts, pseudo = _material(source, training, real, sampling_strategy)

    say(f"Training the head on {(real + pseudo).sum():,} features")
    options = {
        "batch_size": batch_size,
        "fresh_head": fresh_head,
        "fresh_each_epoch": fresh_each_epoch,
        "freeze_batch_norm": freeze_batch_norm,
        "blend": float(blend),
        "tau": float(tau),
        "monitor": monitor if validation_data is not None else None,
        "seed": tuple(int(number) for number in seed),
    }
    with watch("train"):
        result = fit_head(
            job.head,
            material,
            scoring,
            loss=job.loss,
            num_classes=job.num_classes,
            minority=minority_classes(real),
            gaussian=None if sampler else source,
            counts=counts,
            optimizer=functools.partial(
                head_optimizer, model, optimizer=optimizer, strategy=job.strategy
            ),
            epochs=epochs,
            threshold=job.threshold,
            prior=real,
            verbose=verbose,
            strategy=job.strategy,
            **options,
        )
    if not result.kept:
        warnings.warn(
            f"The retrained head was rolled back, the model is as it was: "
            f"{result.reason}.",
            stacklevel=2,
        )
    elif (real + pseudo).all() and not job.output.names:
        remember_mix(model, _prior_of_head(real, real + pseudo, blend, tau))
    outcome = dataclasses.asdict(result)
    for name in ("epochs", "optimizer", "learning_rate"):
        options[name] = outcome.pop(name)
    return RetrainingReport(
        layer_name=job.layer_name,
        feature_shape=training.features.shape[1:],
        real=real.tolist(),
        pseudo=pseudo.tolist(),
        minority=minority_classes(real),
        scored_on="training data" if validation_data is None else "validation data",
        **outcome,
        seconds=watch.seconds,
        settings={
            "source": type(source).__name__,
            "sampling_strategy": None if sampler else _named(sampling_strategy),
            "views": len(extracted),
            **options,
        },
        covariance=None if sampler else source.report,
        tuning=tuning,
    )


def _prior_of_head(real, mix, blend, tau):
    """The prior, up to a factor, that a head has learned: its logits are a mean."""
    log_prior = (blend - tau) * np.log(np.maximum(real, 1) / real.sum())
    return np.exp(log_prior + (1 - blend) * np.log(mix / mix.sum())) * mix.sum()


def _material(source, training, real, sampling_strategy):
    """What the head trains on.

    Returns:
        material: `LabelledFeatures`.
        counts: {class: pseudo-features to draw on top}, None with a sampler.
        pseudo: examples per class that were not there before `[C]`.
    """
    if isinstance(source, ClassConditionalGaussian):
        counts = pseudo_counts(training.labels, sampling_strategy)
        source.adapt(training.features, training.labels)
        return training, counts, np.array([counts.get(c, 0) for c in range(real.size)])
    features, labels = training
    flat, ids = source.fit_resample(
        features.reshape(len(features), -1).astype(np.float32), class_ids(labels)
    )
    features = np.asarray(flat).reshape(-1, *features.shape[1:]).astype(features.dtype)
    pseudo = class_counts(ids, real.size) - real
    return LabelledFeatures(features, labels_like(ids, labels, real.size)), None, pseudo


def _named(strategy):
    """A strategy in words, the same in every run: functions by their names."""
    return getattr(strategy, "__name__", None) or str(strategy)


class _Stopwatch:
    """Wall-clock seconds of named stages."""

    def __init__(self):
        self.seconds = {}

    @contextlib.contextmanager
    def __call__(self, stage):
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


def _silence(text):
    del text
