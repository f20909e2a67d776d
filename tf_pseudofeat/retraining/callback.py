"""The whole retraining as a Keras callback."""

import contextlib
import copy
import dataclasses
import inspect
import os
import pathlib
import tempfile
import warnings
from typing import Any

import keras

from tf_pseudofeat.core.arguments import whole_number
from tf_pseudofeat.core.files import missing_folders, remove_empty
from tf_pseudofeat.data.data_adapters import (
    first_batches,
    has_known_length,
    is_one_pass,
)
from tf_pseudofeat.data.preprocessing import Preprocessed
from tf_pseudofeat.evaluation.comparison import SCORE_NAMES
from tf_pseudofeat.head.optimizers import unused
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.weights import fingerprint
from tf_pseudofeat.retraining.job import broken_weights, check_job
from tf_pseudofeat.retraining.options import resolve_options
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.splitting.graph import validation_data_of_fit
from tf_pseudofeat.splitting.split import Split

__all__ = ["PseudoFeatureHeadRetrainer"]


class PseudoFeatureHeadRetrainer(keras.callbacks.Callback):
    """Retrains the head of the model with pseudo-features when `fit` ends.

    Put it last in the list of callbacks: `EarlyStopping(restore_best_weights=True)`
    after it would undo the retraining when training ends. Only `BackupAndRestore`,
    which deletes its backup when its turn comes, belongs after it: then a `fit` that is
    killed while the head is retrained has nothing to train again. Layer, data, labels
    and settings are checked when `fit` begins, before the first step: a wrong layer
    name costs no training.

    Of what `fit` is given, its `validation_data` guard the retraining, and its
    `verbose` holds for it, unless they are set here. Its `class_weight` and
    `sample_weight` are for its own steps: the retraining sees what is in `data`. What
    `ModelCheckpoint` saves of an epoch is the head before the retraining; save the
    model after `fit`. A training that is interrupted is left as it is. One that ended
    in NaN is warned of, and so is a retraining that fails by what only the features
    tell: `report` is None then, as `fit` has a history to return.

    The scores of the model as a retraining leaves it go into the History that `fit`
    returns as "retrained_accuracy" and so on. With `every` they are in the logs of each
    epoch, NaN for one without a retraining, so that `TensorBoard` and `CSVLogger` after
    this callback in the list have them. Other trackers take `report.metrics()`.

    Args:
        layer: the layer whose output is the feature, None for the usual one, or a
            `Split`; see `retrain_head`.
        data: the data whose features to use, usually the training data, as
            `retrain_head` takes them. Of data that do not say how many batches they
            have, or have no end, as many are read as `fit` has in an epoch, where it
            knows; with `steps` so many, with `steps=None` all.
        every: also retrain after every `every`-th epoch; training goes on from there.
        **settings: keyword arguments of `retrain_head`: `validation_data` (None for no
            guard, even where `fit` has some), `recipe`, `extraction`, their fields,
            `class_names`, `seed`, ... Of a `cache_dir` each retraining has
            a new folder for its features, and deletes it when it is done: the trunk
            goes on, and they would not be its features any more.

    Attributes:
        report: the `RetrainingReport` of the last retraining; None before it, and
            where the training had broken down.

    Raises:
        TypeError: When made: a setting that `retrain_head` does not know.
        ValueError: When made: no data, or a setting that is out of its range.
            When `fit` begins: see `retrain_head`. After its first epoch: its
            validation data do not fit, or recipe="auto" has none.

    Example:

    >>> retrainer = PseudoFeatureHeadRetrainer("features", train_ds)
    >>> model.fit(train_ds, epochs=100, callbacks=[retrainer])
    >>> print(retrainer.report)
    """

    def __init__(
        self,
        layer: str | Split | None,
        data: object,
        *,
        every: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if data is None:
            raise ValueError(
                "`data` is None, and Keras does not tell a callback the data of `fit`. "
                "Pass them. In scikit-learn, where each `fit` has others, use "
                "PseudoFeatureClassifier, which retrains on those of its own `fit`."
            )
        given = inspect.signature(check_job).bind(None, layer, data, **settings)
        given.apply_defaults()
        names = ("recipe", "extraction", "options")
        _, extraction, _ = resolve_options(*map(given.arguments.get, names))
        self._cache_dir, self._steps = extraction.cache_dir, extraction.steps
        self.settings = settings
        self.layer = layer
        self.data = data
        self.every = None if every is None else whole_number("every", every)
        self.report = None

    def __deepcopy__(self, memo):
        """One for another `fit`, as tuners make: data and settings are the same.

        What belongs to a `fit`, the report included, is not copied.
        """
        copied = memo[id(self)] = type(self).__new__(type(self))
        shared = {"layer": self.layer, "data": self.data}
        shared["settings"] = dict(self.settings)
        fresh = dict.fromkeys(("report", "params", "_model"))
        left_out = {*shared, *fresh, "_left", "_of_fit", "_for_fit", "_has_retrained"}
        own = {k: v for k, v in self.__dict__.items() if k not in left_out}
        copied.__dict__.update(copy.deepcopy(own, memo), **shared, **fresh)
        return copied

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks everything, and warns of what would undo the retraining later."""
        self.report = None
        self._left, self._has_retrained = None, False
        self._for_fit = _with_unused_optimizer(self.settings)
        params = self.params or {}
        self._of_fit = {"verbose": params.get("verbose", "auto")}
        if self._steps is None and not has_known_length(self.data):
            self._of_fit["steps"] = params.get("steps")
        self._check()
        if _keeps_averages(self.model.optimizer):
            warnings.warn(
                "The optimizer keeps moving averages of the weights (use_ema=True). "
                "They do not know the retrained head, and the next `fit` would "
                "overwrite it with them: compile with a new optimizer before that.",
                stacklevel=2,
            )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Retrains after every `every`-th epoch."""
        self._take_validation_data()
        if self.every is None:
            return
        due = (epoch + 1) % self.every == 0
        if due:
            self._retrain()
            self._left = fingerprint(self.model.weights)
        if logs is not None:
            logs.update(_scores(self.report if due else None))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Retrains, unless that was just done and the weights are still those."""
        if self._left is not None and self._left == fingerprint(self.model.weights):
            return
        self._retrain()
        if self.report is None:
            return
        scores = _scores(self.report)
        if logs is not None:
            logs.update(scores)
        history = getattr(self.model, "history", None)
        if history is not None:
            _note(history.history, scores, len(history.epoch))

    def _check(self, by_now=False):
        settings = {**self._of_fit, **self.settings}
        searches = settings.get("recipe") == "auto"
        if searches and "validation_data" not in settings and not by_now:
            del settings["recipe"]  # they may still come from `fit`
        check_job(self.model, self.layer, self.data, trained=False, **settings)

    def _take_validation_data(self):
        """Those of `fit`, as soon as it has used them: no callback is told of them."""
        if "validation_data" in {**self._of_fit, **self.settings}:
            return
        data, steps = validation_data_of_fit(self.model)
        if is_one_pass(data):
            warnings.warn(
                "The `validation_data` of `fit` are a generator, which gives its "
                "batches only once: the retraining has no guard. Pass "
                "`validation_data` that can be read again to the callback.",
                stacklevel=2,
            )
            data = self._of_fit["validation_data"] = None
        if data is not None:
            data = data if steps is None else first_batches(data, steps)
            self._of_fit["validation_data"] = Preprocessed(data)
        if data is not None or self.settings.get("recipe") == "auto":
            self._check(by_now=True)

    def _retrain(self):
        broken = broken_weights(self.model)
        if broken:
            self.report = None
            warnings.warn(
                f"The head is not retrained: {len(broken)} weights of the model are "
                f"NaN or infinite, the first is {broken[0]!r}. Its training has broken "
                f"down; load a checkpoint from before, and use `retrain_head`.",
                stacklevel=2,
            )
            return
        again = self._again_settings() if self._has_retrained else {}
        settings = {**self._of_fit, **self._for_fit, **again}
        self.report = None
        try:
            with _new_cache(self._cache_dir) as cache:
                self.report = retrain_head(
                    self.model, self.layer, self.data, **{**settings, **cache}
                )
            self._has_retrained = True
        except Exception as error:  # hours of training have a history to return
            warnings.warn(
                f"The head is not retrained, and the model is as it was trained: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )

    def _again_settings(self):
        """After epochs from a retrained head on, its prior is not known: keep none."""
        recipe = self.settings.get("recipe")
        given = self.settings.get("blend", getattr(recipe, "blend", None))
        return {} if given is not None or recipe == "auto" else {"blend": 0.0}


def _scores(report):
    """What goes into logs: scores of the model as it was left, NaN without a report."""
    scores = {} if report is None else (report.after if report.kept else report.before)
    values = {name: scores.get(name) for name in SCORE_NAMES}
    return {
        f"retrained_{name}": float("nan") if value is None else value
        for name, value in values.items()
    }


def _with_unused_optimizer(settings):
    """Settings for another `fit`: an optimizer knows the head that it has trained."""
    settings, recipe = dict(settings), settings.get("recipe")
    if "optimizer" in settings:
        settings["optimizer"] = unused(settings["optimizer"])
    if isinstance(recipe, HeadRecipe):
        settings["recipe"] = dataclasses.replace(
            recipe, optimizer=unused(recipe.optimizer)
        )
    return settings


def _note(history, scores, epochs):
    """Scores of the last epoch, in lists as long as the others."""
    for name, value in scores.items():
        earlier = history.get(name, [])[: max(0, epochs - 1)]
        missing = max(0, epochs - 1 - len(earlier))
        history[name] = [float("nan")] * missing + earlier + [value]


def _keeps_averages(optimizer):
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of loss scaling
    return getattr(optimizer, "use_ema", False)


@contextlib.contextmanager
def _new_cache(cache_dir):
    """`{"cache_dir": folder}` for one retraining, or nothing where there is none."""
    if cache_dir is None:
        yield {}
        return
    missing = missing_folders(pathlib.Path(cache_dir))
    try:
        os.makedirs(cache_dir, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix="features-") as folder:
            yield {"cache_dir": folder}
    finally:
        remove_empty(missing)
