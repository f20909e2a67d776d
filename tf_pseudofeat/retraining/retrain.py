"""Steps 2 to 6 of Konno and Iwazume (2018) as one function."""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from tf_pseudofeat.core.progress import say
from tf_pseudofeat.evaluation.findings import too_few
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.extraction.extraction import Extraction
from tf_pseudofeat.head.head import fit_head
from tf_pseudofeat.head.optimizers import unused
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.weights import restored_unless_kept
from tf_pseudofeat.retraining.job import check_job
from tf_pseudofeat.retraining.report import RetrainingReport
from tf_pseudofeat.retraining.search import search_recipe
from tf_pseudofeat.splitting.split import Split

__all__ = ["retrain_head"]


def retrain_head(
    model: keras.Model,
    layer: str | Split | None,
    data: object,
    *,
    validation_data: object = None,
    recipe: HeadRecipe | str | None = None,
    extraction: Extraction | None = None,
    monitor: object = "balanced_accuracy",
    class_names: Iterable[str] | Mapping[int, str] | None = None,
    seed: Sequence[int] = (1, 2),
    verbose: int | str = "auto",
    **options: Any,
) -> RetrainingReport:
    """Retrains the head of a trained classifier for the sake of its rare classes.

    Extracts the features of some hundred examples of each class at a layer, each seen a
    little changed; fits a Gaussian per class; and trains the layers after it on the
    real features and on pseudo-features of the classes that have fewer. Of the old head
    a share is kept, and of the prior a share is taken off, see `HeadRecipe`.
    The layers before it are not touched, nor are the model's optimizer, its compiled
    loss and metrics, or its `trainable` flags. On any error or interrupt, on a loss
    that is not finite and, with `validation_data`, without a gain of `monitor` that is
    more than chance, the head gets back the weights that it had.

    The head is trained in place: other threads that use the model meanwhile see a head
    that is half trained. Let them use an export or a copy, `clone_model` with the same
    weights.

    Args:
        model: trained Keras model with an output `[B, C]`, or `[B, 1]` for two classes.
        layer: the layer whose output is the feature, by name, `"outer/inner"` inside a
            nested model. None for the usual one, `separating_layers(model).usual`. Or a
            `Split`: `Split(trunk, head)` for a model without a graph of layers, whose
            head shares its layers with the model; `split_at(model, layer, output=name)`
            for one of several outputs, whose labels are then the classes. `y` may hold
            the labels of all outputs, as for `fit`, or of this one.
        data: training data: a `tf.data.Dataset`, `keras.utils.PyDataset` (read by as
            many threads as it has workers), torch DataLoader or other iterable of
            `(x, y)` or `(x, y, sample_weight)` batches, or such a tuple of arrays, data
            frames or sparse matrices. Examples of weight 0 are left out.
        validation_data: the same, to score before and after. Without it the features
            that were trained on are scored, which flatters, and nothing guards against
            a worse head.
        recipe: `HeadRecipe`: how the head is retrained. Or "auto" to have `blend` and
            `tau` chosen by the validation data, among them the model as it is and
            logit adjustment alone; what was tried is the report's `tuning`.
        extraction: `Extraction`: which examples are looked at, and through which
            views. With `cache_dir` their features are in its folders "training", or
            "view-0" and on, and "validation", which `load_features` reads. They stay.
        monitor: the score that must rise on `validation_data`, by name, as a function
            or as a Keras metric; or a `Guard`, which says how surely. None for no such
            guard.
        class_names: list of C strings in the order of the class ids, or a dict
            {id: name}, for the report; labels may be these names, then.
        seed: two whole numbers. On one machine and installation the same seed gives the
            same weights and report, to the bit, whatever the process; a `sampler`
            draws from its own `random_state`, and `tf.random.set_seed` counts, too.
            Other numbers of threads, GPUs, XLA or processors round differently.
        verbose: 0 for silence; otherwise progress bars.
        **options: fields of `HeadRecipe` and of `Extraction` as keywords, which
            override those of `recipe` and `extraction`: `epochs=5`, `augment=shifts`.
            `batch_size` is that of the head's training.

    Returns:
        report: `RetrainingReport`.

    Raises:
        ValueError: Data, labels, layer, loss or options do not fit, weights are NaN,
            several workers share the model: with what came and what to do, checked on
            one batch before the rest is read.
        TypeError: `model` is not a Keras 3 model, `data` no data, or an option unknown.
        RuntimeError: Another thread is retraining the head.
        OSError: `cache_dir` cannot be written to, or its disk is full.

    Example:

    >>> report = retrain_head(model, "features", train_ds, validation_data=val_ds)
    >>> print(report)

    References:
        Konno and Iwazume, "Pseudo-Feature Generation for Imbalanced Data Analysis in
        Deep Learning", arXiv 1807.06538, 2018.
    """
    watch = _Stopwatch()
    with watch("check"):
        job = check_job(
            model,
            layer,
            data,
            validation_data=validation_data,
            recipe=recipe,
            extraction=extraction,
            monitor=monitor,
            class_names=class_names,
            seed=seed,
            **options,
        )
    with restored_unless_kept(job.task.head) as keep:
        report = _retrain(job, watch, seed=seed, verbose=verbose)
        keep()  # last of all, as whatever fails before it puts the old head back
    return report


def _retrain(job, watch, *, seed, verbose):
    """Runs Steps 2 to 6 of a checked `Job`; returns the `RetrainingReport`."""
    task, recipe, guard, tuning = job.task, job.recipe, job.guard, None

    with watch("extract"):
        extracted, validation = job.extract(seed=seed, verbose=verbose)
    few = _warn_of_few(validation, task)
    with watch("resample" if recipe.sampler else "fit gaussians"):
        material = job.material(extracted)
        covariance = None if recipe.sampler else material.gaussian.report
    if job.search:
        say("Choosing the recipe", verbose)
        with watch("tune"):
            tuning, _ = search_recipe(
                *(task, material, validation),
                recipe=recipe,
                monitor=guard,
                seed=seed,
                verbose=verbose,
            )
        recipe = tuning.recipe
    recipe = recipe.resolve(task, material)
    again = dataclasses.replace(recipe, optimizer=unused(recipe.optimizer))

    held_out = validation is not None
    guard = guard if held_out else Guard(None)
    with watch("train"):
        result = fit_head(
            task,
            material,
            recipe,
            scoring=validation if held_out else extracted.together,
            monitor=guard,
            errors=held_out,
            seed=seed,
            verbose=verbose,
        )
    if not result.kept:
        say(f"Its old weights are back: {result.reason}", verbose)
        warnings.warn(
            f"The retrained head was rolled back, the model is as it was: "
            f"{result.reason}.",
            stacklevel=3,
        )
    outcome = dataclasses.asdict(result)
    outcome["notes"] = [*few, *outcome["notes"]]
    return RetrainingReport(
        layer_name=job.split.layer_name,
        feature_shape=material.features.features.shape[1:],
        real=material.examples.tolist(),
        used=material.real.tolist(),
        pseudo=material.pseudo.tolist(),
        minority=material.minority,
        scored_on="validation data" if held_out else "training data",
        recipe=dataclasses.replace(again, epochs=outcome.pop("epochs") or again.epochs),
        extraction=job.extraction,
        view_source=extracted.source.name,
        monitor=guard.name,
        class_names=task.class_names,
        seed=tuple(int(number) for number in seed),
        **outcome,
        seconds=watch.seconds,
        covariance=covariance,
        tuning=tuning,
    )


def _warn_of_few(validation, task):
    """Warns of classes with hardly a validation example; returns what it said."""
    if validation is None:
        return []
    sentence = too_few(validation.class_counts(task.num_classes), task.class_names)
    if not sentence:
        return []
    warnings.warn(sentence, stacklevel=4)
    return [sentence]


class _Stopwatch:
    """Wall-clock seconds of named stages."""

    def __init__(self):
        self.seconds = {}

    @contextlib.contextmanager
    def __call__(self, stage):
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start
