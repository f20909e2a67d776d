"""Steps 2 to 6 of Konno and Iwazume (2018) as one function."""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from tf_pseudofeat.core.progress import print_status
from tf_pseudofeat.evaluation.findings import describe_few
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.head.fit import fit_head
from tf_pseudofeat.head.optimizers import fresh_copy
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.weights import rollback_unless_committed
from tf_pseudofeat.retraining.report import RetrainingReport
from tf_pseudofeat.retraining.search import search_recipe
from tf_pseudofeat.retraining.task import resolve_task
from tf_pseudofeat.splitting.trunk_and_head import Split

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
    """Retrains the head of a trained classifier on real and pseudo-features.

    Extracts the features of slightly augmented examples of each class at a layer, fits
    a Gaussian per class, and trains the layers after it on the real features and on
    pseudo-features that balance the classes. The result is averaged with the old
    head, and part of the class prior is removed, see `HeadRecipe`.

    The layers before it do not change, nor do the model's optimizer, its compiled loss
    and metrics, or its `trainable` flags. The weights of the head are rolled back on
    any error or interrupt, on a loss that is not finite and, with `validation_data`,
    unless `monitor` improves significantly.

    The head is trained in place: other threads that use the model in the meantime see
    an intermediate head. Let them use an export or a copy, `clone_model` with the same
    weights.

    Args:
        model: trained Keras model with an output `[B, C]`, or `[B, 1]` for two classes.
        layer: name of the layer whose output are the features, `"outer/inner"` inside a
            nested model. None for the usual one, `separating_layers(model).usual`. Or a
            `Split`: `Split(trunk, head)` for a model without a graph of layers, where
            the head shares its layers with the model;
            `split_at(model, layer, output=name)` for one of several outputs, whose
            labels are then the classes. `y` may hold the labels of all outputs, as for
            `fit`, or of this one.
        data: training data: a `tf.data.Dataset`, `keras.utils.PyDataset` (read by as
            many threads as it has workers), torch DataLoader or other iterable of
            `(x, y)` or `(x, y, sample_weight)` batches, or a tuple of arrays, data
            frames or sparse matrices. Examples of weight 0 are ignored.
        validation_data: the same, to score the head before and after. Without it the
            training features are scored, which is optimistic, and a worse head is not
            rolled back.
        recipe: `HeadRecipe`: how the head is retrained. Or "auto" to choose `blend` and
            `tau` on the validation data, including the original model and logit
            adjustment alone; the report's `tuning` has all candidates.
        extraction: `Extraction`: which examples and which views are used. With
            `cache_dir`, features are kept in its folders "training", or "view-0" and so
            on, and "validation", which `load_features` reads.
        monitor: the score that must improve on `validation_data`: a name, a function or
            a Keras metric; or a `Guard` with a confidence. None to keep any head.
        class_names: list of C strings in the order of the class ids, or a dict
            {id: name}, for the report; labels may then be these names.
        seed: two integers. On one machine and installation the same seed gives the same
            weights and report, bit for bit, in any process; a `sampler` uses its own
            `random_state`, and `tf.random.set_seed` has an effect, too. Results differ
            by rounding for other numbers of threads, GPUs, XLA or processors.
        verbose: 0 for no output; otherwise progress bars.
        **options: fields of `HeadRecipe` and `Extraction` as keywords, which override
            those of `recipe` and `extraction`: `epochs=5`, `augment=shifts`.
            `batch_size` is that of the head's training.

    Returns:
        report: `RetrainingReport`.

    Raises:
        ValueError: If data, labels, layer, loss or options do not fit, weights are NaN,
            or several workers share the model. Checked on one batch, before the rest is
            read.
        TypeError: If `model` is not a Keras 3 model, `data` is not supported, or an
            option is unknown.
        RuntimeError: If another thread is retraining the head.
        OSError: If `cache_dir` cannot be written to, or the disk is full.

    Examples:
        >>> report = retrain_head(model, "features", train_ds, validation_data=val_ds)
        >>> print(report)

    References:
        Konno and Iwazume, "Pseudo-Feature Generation for Imbalanced Data Analysis in
        Deep Learning", arXiv 1807.06538, 2018.
    """
    timer = _StageTimer()
    with timer("check"):
        resolved = resolve_task(
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
    with rollback_unless_committed(resolved.task.head) as commit:
        report = _retrain(resolved, timer, seed=seed, verbose=verbose)
        commit()  # last, since any earlier failure restores the old head
    return report


def _retrain(resolved, timer, *, seed, verbose):
    """Runs Steps 2 to 6; returns the `RetrainingReport`."""
    task, recipe, guard, tuning = resolved.task, resolved.recipe, resolved.guard, None

    with timer("extract"):
        extracted, validation = resolved.extract(seed=seed, verbose=verbose)
    remarks = [*resolved.remarks, *_warn_of_guard(guard, validation, task)]
    with timer("resample" if recipe.sampler else "fit gaussians"):
        material = resolved.material(extracted, verbose)
        covariance = None if recipe.sampler else material.gaussian.report
    if resolved.search:
        print_status("Choosing the recipe", verbose)
        with timer("tune"):
            tuning, _ = search_recipe(
                *(task, material, validation),
                recipe=recipe,
                monitor=guard,
                seed=seed,
                verbose=verbose,
            )
        recipe = tuning.recipe
    recipe = recipe.resolve(task, material)
    again = dataclasses.replace(recipe, optimizer=fresh_copy(recipe.optimizer))

    held_out = validation is not None
    if held_out:
        scoring = validation
    else:
        scoring, guard = (
            material.weighted_as_population(extracted.together),
            Guard(None),
        )
    with timer("train"):
        result = fit_head(
            task,
            material,
            recipe,
            scoring=scoring,
            monitor=guard,
            errors=held_out,
            seed=seed,
            verbose=verbose,
        )
    if not result.kept:
        print_status(f"Rolled back: {result.reason}", verbose)
        warnings.warn(
            f"The retrained head was rolled back, so the model did not change: "
            f"{result.reason}.",
            stacklevel=3,
        )
    outcome = dataclasses.asdict(result)
    outcome["notes"] = [*remarks, *outcome["notes"]]
    return RetrainingReport(
        layer_name=resolved.split.layer_name,
        feature_shape=material.features.features.shape[1:],
        real=material.examples.tolist(),
        used=material.real.tolist(),
        pseudo=material.pseudo.tolist(),
        minority=material.minority,
        scored_on="validation data" if held_out else "training data",
        recipe=dataclasses.replace(again, epochs=outcome.pop("epochs") or again.epochs),
        extraction=resolved.extraction,
        view_source=extracted.source.name,
        monitor=guard.name,
        class_names=task.class_names,
        seed=tuple(int(number) for number in seed),
        **outcome,
        seconds=timer.seconds,
        covariance=covariance,
        tuning=tuning,
    )


def _warn_of_guard(guard, validation, task):
    """Warns of no or few validation examples for the guard; returns the messages."""
    if validation is not None:
        counts = validation.class_counts(task.num_classes)
        sentence = describe_few(counts, task.class_names)
    elif guard.is_default or guard.monitor is None:
        sentence = ""
    else:
        sentence = (
            f"`monitor` is {guard.name!r}, but there are no validation data to judge "
            f"by: any head is kept."
        )
    if not sentence:
        return []
    warnings.warn(sentence, stacklevel=4)
    return [sentence]


class _StageTimer:
    """Wall-clock seconds of named stages."""

    def __init__(self):
        self.seconds = {}

    @contextlib.contextmanager
    def __call__(self, stage):
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start
