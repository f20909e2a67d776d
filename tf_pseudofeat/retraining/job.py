"""Everything that a retraining needs, resolved and checked before it costs anything."""

import dataclasses
import warnings

import keras
import numpy as np

from tf_pseudofeat.core.arguments import check_weights, is_infinite, stateless_seed
from tf_pseudofeat.core.labels import check_class_names, class_ids
from tf_pseudofeat.core.progress import say
from tf_pseudofeat.core.strategies import check_one_worker, model_strategy, scope_of
from tf_pseudofeat.data.data_adapters import (
    check_data,
    first_batch,
    labels_at_hand,
    with_class_ids,
)
from tf_pseudofeat.data.preprocessing import (
    Preprocessed,
    as_arrays,
    preprocess_batch,
    preprocessed,
)
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.extraction.chosen import num_rows, take_rows
from tf_pseudofeat.extraction.extraction import Extraction
from tf_pseudofeat.extraction.features import (
    about_validation_data,
    all_sets_or_none,
    augment_once,
    check_cache,
    read_features,
    validation_features,
)
from tf_pseudofeat.extraction.lengths import check_lengths
from tf_pseudofeat.extraction.views import choose_views
from tf_pseudofeat.head.balanced_losses import BalancedLoss
from tf_pseudofeat.head.losses import check_loss
from tf_pseudofeat.head.material import prepare_material
from tf_pseudofeat.head.optimizers import head_optimizer
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.task import Task
from tf_pseudofeat.head.weights import frozen_batch_norm
from tf_pseudofeat.retraining.foreseen import check_foreseen, known_counts
from tf_pseudofeat.retraining.options import resolve_options
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.graph import check_is_keras_3, check_stateless, functional
from tf_pseudofeat.splitting.outputs import Output, all_outputs, choose_output
from tf_pseudofeat.splitting.separating import usual_layer
from tf_pseudofeat.splitting.split import Split, split_at

__all__ = ["Job", "broken_weights", "check_job"]

_CHECKED_ROWS = 32  # of the first batch, for what the model makes of it


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What a retraining works with.

    Attributes:
        split: the model in two halves.
        task: `Task` of its head.
        recipe: `HeadRecipe`; where `search` is true, of what is not searched for.
        search: whether the rest of the recipe is to be chosen.
        extraction: `Extraction`.
        data: training data, with the labels of the chosen output, preprocessed.
        validation_data: the same for scoring, or None.
        guard: `Guard`.
    """

    split: Split
    task: Task
    recipe: HeadRecipe
    search: bool
    extraction: Extraction
    data: object
    validation_data: object
    guard: Guard

    def extract(self, *, seed, verbose):
        """Runs Step 2: `read_features`, and `validation_features` or None."""
        trunk, extraction, validation = self.split.trunk, self.extraction, None
        at = f"at {self.split.layer_name!r}"
        with all_sets_or_none(extraction.cache_dir):
            say(f"Extracting features {at}", verbose)
            extracted = read_features(
                trunk, self.data, extraction, seed=seed, verbose=verbose
            )
            if self.validation_data is not None:
                say(f"Extracting features of the validation data {at}", verbose)
                validation = validation_features(
                    trunk, self.validation_data, extraction, verbose=verbose
                )
        return extracted, validation

    def material(self, extracted):
        """`Material` of what `extract` gave."""
        return prepare_material(
            extracted.together,
            self.recipe,
            self.task.num_classes,
            totals=extracted.totals,
            viewed=extracted.source.is_view,
        )


def check_job(
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
    """The `Job` that arguments of `retrain_head` ask for, checked on one batch.

    `trained` is False before the first step of a `fit`, see `Split.check`.
    """
    del verbose  # nothing is said
    recipe, extraction, search = resolve_options(recipe, extraction, options)
    if search and validation_data is None:
        raise ValueError(
            "recipe='auto' chooses by validation data: what the trunk was trained on "
            "cannot tell recipes apart. Pass `validation_data`, or leave the recipe "
            "out: the default was chosen to need none."
        )
    if extraction.cache_dir is not None:
        _check_cache(extraction.cache_dir, recipe.sampler)
    check_is_keras_3(model)
    check_stateless(model)
    check_one_worker(model)
    _check_weights(model)
    if class_names is not None:
        class_names = check_class_names(class_names)
    if layer is None:
        layer = usual_layer(model)
    chosen = _output_of(model, layer)
    data = with_class_ids(chosen.data(as_arrays(model, data)), class_names)
    check_data(data, extraction.steps)
    if validation_data is not None:
        with about_validation_data():
            validation_data = _validation(model, chosen, validation_data, class_names)
    stateless_seed(seed)
    _check_optimizer(model, recipe.optimizer)
    guard = Guard.of(monitor)
    raw, labels, weight = first_batch(data, extraction)
    x, data = preprocess_batch(model, raw), preprocessed(model, data)
    split = _split(model, layer, chosen, x)
    if num_rows(x) != {len(labels)}:
        raise ValueError(
            f"The first batch has {' or '.join(map(str, sorted(num_rows(x))))} inputs "
            f"and {len(labels)} labels; each example needs a label of its own."
        )
    for each in (data, validation_data):
        check_lengths(split.trunk, each, split.layer_name)
    some = take_rows(raw, np.arange(min(_CHECKED_ROWS, len(labels))))
    _, features, outputs = split.compare(model, some, trained=trained)
    outputs = _one_output(model, outputs)
    _check_other_outputs(model, chosen, split)
    source = choose_views(extraction, x)
    _check_augmented(source.augment, x)
    with frozen_batch_norm(split.head, recipe.freeze_batch_norm):
        pass  # there is something to train
    num_classes = max(2, outputs.shape[-1])
    at_hand = labels_at_hand(data, labels)
    class_ids(at_hand, num_classes)
    if weight is not None:
        weight = np.asarray(keras.ops.convert_to_numpy(weight))
        check_weights(weight, len(labels))
        recipe.check_weighted()
    if validation_data is not None:
        with about_validation_data():
            _check_first_of_validation(validation_data, split, extraction, num_classes)
    activation = output_activation(split.head)
    loss = _loss(model, chosen, recipe.loss, activation, outputs.shape[-1], at_hand)
    rows = slice(0, len(outputs))
    check_loss(loss, outputs, labels[rows], None if weight is None else weight[rows])
    task = Task(
        head=split.head,
        num_classes=num_classes,
        loss=loss,
        strategy=model_strategy(model),
        optimizer=getattr(model, "optimizer", None),
        class_names=class_names,
    )
    recipe.check(task)
    check_foreseen(
        recipe,
        num_classes,
        features.shape[1:],
        known_counts(data, extraction, num_classes),
        most=extraction.per_class,
        views=extraction.num_views if source.is_view else 1,
    )
    _try_optimizer(task, recipe.optimizer)
    some_weight = None if weight is None else weight[rows]
    guard.try_on(task.read(labels[rows], outputs, some_weight))
    return Job(
        split=split,
        task=task,
        recipe=recipe,
        search=search,
        extraction=extraction,
        data=data,
        validation_data=validation_data,
        guard=guard,
    )


def broken_weights(model):
    """The paths of the weights that a training has broken: NaN, or without bound."""
    broken = []
    for variable in model.weights:
        values = keras.ops.convert_to_numpy(variable)
        if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
            continue
        # A weight that nobody trains may be a mask of minus infinity.
        fits = np.isfinite(values) if variable.trainable else ~np.isnan(values)
        if not fits.all():
            broken.append(variable.path)
    return broken


def _check_weights(model):
    broken = broken_weights(model)
    if broken:
        raise ValueError(
            f"{len(broken)} weights of {model.name!r} are NaN or infinite, the first "
            f"is {broken[0]!r}: its training has broken down, and a new head cannot "
            f"mend the trunk. Load a checkpoint from before."
        )


def _check_cache(cache_dir, sampler):
    if sampler is not None:
        raise ValueError(
            f"imbalanced-learn's {type(sampler).__name__} needs all features in "
            f"memory, and `cache_dir` is for those that do not fit. Leave one of them "
            f"out; the Gaussians take features from files."
        )
    check_cache(cache_dir)


def _check_augmented(augment, x):
    """One batch, so that a function that cannot work fails now."""
    if augment is None:
        return
    before, after = (
        [tuple(np.shape(leaf)) for leaf in keras.tree.flatten(batch)]
        for batch in (x, augment_once(augment, x))
    )
    if before != after:
        raise ValueError(
            f"`augment` gives inputs of shapes {after} for inputs of shapes {before}; "
            f"it must change what is in a batch and not its shape."
        )


def _validation(model, chosen, data, class_names):
    """Checked validation data, as the layers of the model see them."""
    seen = isinstance(data, Preprocessed)
    data = as_arrays(model, data.data if seen else data)
    data = with_class_ids(chosen.data(data), class_names)
    _check_validation(data)
    return data if seen else preprocessed(model, data)


def _check_validation(data):
    if is_infinite(data):
        raise ValueError(
            "`validation_data` is infinite (`repeat()`? `num_batches` of None?), and "
            "`steps` are those of `data`. Pass it with an end: a dataset as it was "
            "before, or validation_data.take(n)."
        )
    check_data(data)


def _check_first_of_validation(data, split, extraction, num_classes):
    """Raises where the trunk does not take its inputs, or a label is no class."""
    x, labels, _ = first_batch(data, extraction)
    class_ids(labels_at_hand(data, labels), num_classes)
    split.trunk(take_rows(x, np.arange(1)), training=False)


def _check_optimizer(model, optimizer):
    if optimizer is not None and optimizer is getattr(model, "optimizer", None):
        raise ValueError(
            f"`optimizer` is the one that {model.name!r} was compiled with, which a "
            f"retraining leaves alone. Pass a new one, its name, or None for a new one "
            f"of its kind."
        )


def _try_optimizer(task, optimizer):
    """Makes one, so that what cannot be made is known before the work."""
    try:
        with scope_of(task.head):
            head_optimizer(4, optimizer, task.optimizer, task.strategy)
    except Exception as error:
        made = (
            "of `optimizer`"
            if optimizer is not None
            else (f"like the model's own {type(task.optimizer).__name__}")
        )
        raise ValueError(
            f"The optimizer of the head cannot be made {made}: {error} Pass as "
            f"`optimizer` its name, or a function that makes one from the number of "
            f"steps."
        ) from error


def _output_of(model, layer):
    """The `Output` whose labels are the classes: the split's, or the only one."""
    if not isinstance(layer, str | Split):
        raise TypeError(
            f"`layer` is the name of the layer to split at, None for the usual one, or "
            f"a Split(trunk, head); received {layer!r}."
        )
    output = layer.output if isinstance(layer, Split) else None
    return output if isinstance(output, Output) else choose_output(model, output)


def _split(model, layer, chosen, x):
    split = layer
    if isinstance(layer, str):
        if isinstance(model, keras.Sequential) and not model.built:
            model(x, training=False)  # as the first training step would
        split = split_at(model, layer)
    split = dataclasses.replace(split, output=chosen if chosen.names else None)
    own = {id(variable) for variable in model.variables}
    foreign = [v.path for v in split.head.variables if id(v) not in own]
    if foreign:
        raise ValueError(
            f"The head of the split at {split.layer_name!r} has weights that "
            f"{model.name!r} has not, {foreign[0]!r} first ({len(foreign)} of them): "
            f"it is of another model. Split this one."
        )
    trunk_weights = {id(variable) for variable in split.trunk.trainable_variables}
    shared = [v.path for v in split.head.trainable_variables if id(v) in trunk_weights]
    if shared:
        raise ValueError(
            f"The head after {split.layer_name!r} cannot be trained alone: {shared} "
            f"are weights of the trunk, too, so the features would change under it. "
            f"Split after the last use of the shared layer."
        )
    return split


def _check_other_outputs(model, chosen, split):
    """Warns of outputs that read what is trained here for another one."""
    if not chosen.names or functional(model) is None:
        return
    trained = {id(variable) for variable in split.head.trainable_variables}
    changed = [
        other.names[0]
        for other in all_outputs(model)
        if other != chosen and not trained.isdisjoint(map(id, other.weights(model)))
    ]
    if changed:
        warnings.warn(
            f"The head of {chosen} shares layers with the outputs {changed}, which "
            f"will change with it. Split after the layers that they share to keep them "
            f"as they are.",
            stacklevel=4,
        )


def _one_output(model, outputs):
    if len(outputs) != 1 or np.ndim(outputs[0]) != 2:
        shapes = [list(np.shape(output)) for output in outputs]
        raise ValueError(
            f"A classifier with one output [B, C] is needed; {model.name!r} gives "
            f"outputs of shapes {shapes}. Of several in a dict, choose one with "
            f"Split(trunk, head, output='name')."
        )
    return outputs[0]


def _check_unbalanced(loss, given):
    if isinstance(loss, BalancedLoss):
        whose = "`loss` is" if given else "The model was compiled with"
        raise ValueError(
            f"{whose} a {type(loss).__name__}, which balances the classes by itself, "
            f"and so do the features that a head is retrained on: together they "
            f"correct twice. Pass the plain cross-entropy as `loss`, and tau=0."
        )


def _loss(model, chosen, loss, activation, width, labels):
    """The given loss, the compiled one, or the cross-entropy of the last activation."""
    given = loss is not None
    if loss is None:
        loss = getattr(model, "loss", None)
        if chosen.names:
            loss = chosen.of(loss, "model.loss", optional=True)
    losses = [one for one in keras.tree.flatten(loss) if one is not None]
    if losses:
        _check_unbalanced(losses[0], given)
        return losses[0]
    one_hot = labels.ndim == 2 and labels.shape[1] > 1
    if activation == "softmax":
        return ("" if one_hot else "sparse_") + "categorical_crossentropy"
    if activation == "sigmoid" and width == 1:
        return "binary_crossentropy"
    raise ValueError(
        f"{model.name!r} is not compiled and ends in activation {activation!r}, which "
        f"does not say how it was trained. Pass `loss`, for logits for example "
        f"keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
    )
