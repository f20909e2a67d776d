"""Resolves and checks the arguments of a retraining before any work is done."""

import dataclasses
import functools
import warnings

import numpy as np

from tf_pseudofeat.core.distribution import model_strategy
from tf_pseudofeat.core.finite import check_weights, count_nan_rows
from tf_pseudofeat.core.labels import check_class_names, class_ids
from tf_pseudofeat.core.progress import print_status
from tf_pseudofeat.core.stateless_seed import stateless_seed
from tf_pseudofeat.data.batches import first_batch, known_labels
from tf_pseudofeat.data.checks import check_data
from tf_pseudofeat.data.frames import check_same_columns
from tf_pseudofeat.data.map_batches import with_class_ids
from tf_pseudofeat.data.overlap import sample_weight_of, share_examples
from tf_pseudofeat.data.preprocessing import as_arrays, preprocess_batch, preprocessed
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.extraction.chosen import take_rows
from tf_pseudofeat.extraction.feature_sinks import all_sets_or_none
from tf_pseudofeat.extraction.features import (
    about_validation_data,
    read_features,
    validation_features,
)
from tf_pseudofeat.extraction.lengths import check_lengths
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.extraction.views import choose_views
from tf_pseudofeat.head.losses import check_loss
from tf_pseudofeat.head.material import prepare_material
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.task import Task
from tf_pseudofeat.head.weights import check_trainable
from tf_pseudofeat.retraining.early_checks import check_before_extraction, known_counts
from tf_pseudofeat.retraining.options import resolve_options
from tf_pseudofeat.retraining.task_checks import (
    check_augmented,
    check_cache_dir,
    check_first_of_validation,
    check_model,
    check_new_optimizer,
    check_one_label_each,
    check_search,
    resolve_validation,
    try_optimizer,
)
from tf_pseudofeat.retraining.task_loss import resolve_loss
from tf_pseudofeat.retraining.task_split import (
    check_other_outputs,
    one_output,
    output_of,
    resolve_split,
)
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.model_inputs import data_as_declared
from tf_pseudofeat.splitting.separating import usual_layer
from tf_pseudofeat.splitting.trunk_and_head import Split

__all__ = ["RetrainingTask", "resolve_task"]

_SAMPLE_ROWS = 32  # of the first batch
_SAME_EXAMPLES = (
    "The validation data are examples of the training data, which flatter a head: pass "
    "examples that neither the model nor the head has seen."
)


@dataclasses.dataclass(frozen=True, eq=False)
class RetrainingTask:
    """What a retraining works with, resolved and checked.

    Attributes:
        split: the `Split` of the model.
        task: `Task` of its head.
        recipe: `HeadRecipe`; if `search` is True, the fields that are not searched.
        search: whether to search the rest of the recipe.
        extraction: `Extraction`.
        data: training data, with the labels of the chosen output, preprocessed.
        validation_data: the same for validation, or None.
        guard: `Guard`.
        given: the training and the validation data as they were passed.
    """

    split: Split
    task: Task
    recipe: HeadRecipe
    search: bool
    extraction: Extraction
    data: object
    validation_data: object
    guard: Guard
    given: tuple

    @functools.cached_property
    def remarks(self):
        """Sentences on the data; reads all arrays, so not a part of the checks."""
        return list(_remarks(*self.given))

    def extract(self, *, seed, verbose):
        """Runs Step 2; returns `Extracted` and the validation features, or None."""
        for remark in self.remarks:
            warnings.warn(remark, stacklevel=4)
        trunk, extraction, validation = self.split.trunk, self.extraction, None
        at = f"at {self.split.layer_name!r}"
        with all_sets_or_none(extraction.cache_dir):
            print_status(f"Extracting features {at}", verbose)
            extracted = read_features(
                trunk, self.data, extraction, seed=seed, verbose=verbose
            )
            if self.validation_data is not None:
                print_status(
                    f"Extracting features of the validation data {at}", verbose
                )
                validation = validation_features(
                    trunk, self.validation_data, extraction, verbose=verbose
                )
        return extracted, validation

    def material(self, extracted, verbose):
        """Runs Steps 3 and 4; returns the `Material` of extracted features."""
        features = extracted.together.features
        what = f"{len(features):,} features of shape {list(features.shape[1:])}"
        how = "Fitting Gaussians to" if self.recipe.sampler is None else "Resampling"
        print_status(f"{how} {what}", verbose)
        return prepare_material(
            extracted.together,
            self.recipe,
            self.task.num_classes,
            totals=extracted.totals,
            viewed=extracted.source.is_view,
        )


def resolve_task(
    model,
    layer,
    data,
    *,
    validation_data=None,
    recipe=None,
    extraction=None,
    monitor="balanced_accuracy",
    class_names=None,
    seed=(1, 2),
    verbose=None,
    trained=True,
    **options,
):
    """Resolves the arguments of `retrain_head`, and checks them on one batch.

    Args:
        trained: False before the first step of a `fit`, see `Split.check`.

    Returns:
        task: `RetrainingTask`.
    """
    del verbose  # nothing is printed
    recipe, extraction, search = resolve_options(recipe, extraction, options)
    check_search(search, validation_data)
    check_cache_dir(extraction.cache_dir, recipe.sampler)
    check_model(model)
    if class_names is not None:
        class_names = check_class_names(class_names)
    given = data, validation_data
    layer = usual_layer(model) if layer is None else layer
    output = output_of(model, layer)
    check_same_columns(data, validation_data)
    data = with_class_ids(output.data(as_arrays(model, data)), class_names)
    check_data(data, extraction.steps)
    data = data_as_declared(model, data)
    if validation_data is not None:
        with about_validation_data():
            validation_data = resolve_validation(
                model, output, validation_data, class_names
            )
    stateless_seed(seed)
    check_new_optimizer(model, recipe.optimizer)
    guard = Guard.of(monitor)
    raw, labels, weight = first_batch(data, extraction)
    inputs, data = preprocess_batch(model, raw), preprocessed(model, data)
    split = resolve_split(model, layer, output, inputs)
    check_one_label_each(inputs, labels)
    for each in (data, validation_data):
        check_lengths(split.trunk, each, split.layer_name)
    some = take_rows(raw, np.arange(min(_SAMPLE_ROWS, len(labels))))
    _, features, outputs = split.compare(model, some, trained=trained)
    outputs = one_output(model, outputs)
    check_other_outputs(model, output, split)
    source = choose_views(extraction, inputs)
    check_augmented(source.augment, inputs)
    check_trainable(split.head, recipe.freeze_batch_norm)
    num_classes = max(2, outputs.shape[-1])
    all_labels = known_labels(data, labels)
    class_ids(all_labels, num_classes)
    if weight is not None:
        check_weights(weight, len(labels))
        recipe.check_weighted()
    if validation_data is not None:
        with about_validation_data():
            check_first_of_validation(validation_data, split, extraction, num_classes)
    sample = _Sample(outputs, labels, weight)
    task = _resolve_head(
        model, output, split, recipe.loss, sample, all_labels, class_names
    )
    recipe.check(task)
    check_before_extraction(
        recipe,
        num_classes,
        features.shape[1:],
        known_counts(data, extraction, num_classes),
        most=extraction.per_class,
        views=extraction.num_views if source.is_view else 1,
    )
    try_optimizer(task, recipe.optimizer)
    guard.try_on(task.read(sample.labels, sample.outputs, sample.sample_weight))
    return RetrainingTask(
        split=split,
        task=task,
        recipe=recipe,
        search=search,
        extraction=extraction,
        data=data,
        validation_data=validation_data,
        guard=guard,
        given=given,
    )


def _remarks(data, validation_data):
    """Sentences on data that are no error, but rarely meant."""
    if share_examples(data, validation_data):
        yield _SAME_EXAMPLES
    for name, each in (("data", data), ("validation_data", validation_data)):
        if not isinstance(each, tuple | list):
            continue
        rows = count_nan_rows(each[0], sample_weight_of(each))
        if rows:
            yield (
                f"NaN is in {rows:,} of the inputs of `{name}`. Unless the model "
                f"handles it, clean the inputs: layers such as ReLU make numbers of it."
            )


class _Sample:
    """The first rows of a batch: outputs `[M, C]`, and their labels and weights."""

    def __init__(self, outputs, labels, sample_weight):
        rows = slice(0, len(outputs))
        self.outputs, self.labels = outputs, labels[rows]
        self.sample_weight = None if sample_weight is None else sample_weight[rows]


def _resolve_head(model, output, split, loss, sample, all_labels, class_names):
    """The `Task` of the head, with a loss that takes the sample's labels."""
    activation, width = output_activation(split.head), sample.outputs.shape[-1]
    loss = resolve_loss(model, output, loss, activation, width, all_labels)
    check_loss(loss, sample.outputs, sample.labels, sample.sample_weight)
    return Task(
        head=split.head,
        num_classes=max(2, width),
        loss=loss,
        strategy=model_strategy(model),
        optimizer=getattr(model, "optimizer", None),
        class_names=class_names,
    )
