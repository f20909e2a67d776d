"""The retraining as a Keras callback."""

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

from tf_pseudofeat.core.files import missing_folders, remove_empty
from tf_pseudofeat.core.validation import whole_number
from tf_pseudofeat.data.batches import has_known_length
from tf_pseudofeat.data.checks import is_one_pass
from tf_pseudofeat.data.map_batches import first_batches
from tf_pseudofeat.data.preprocessing import Preprocessed
from tf_pseudofeat.evaluation.comparison import SCORE_NAMES
from tf_pseudofeat.head.optimizers import fresh_copy
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.weights import fingerprint
from tf_pseudofeat.retraining.options import resolve_options
from tf_pseudofeat.retraining.report import RetrainingReport
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.retraining.task import resolve_task
from tf_pseudofeat.retraining.task_checks import nonfinite_weights
from tf_pseudofeat.splitting.graph import validation_data_of_fit
from tf_pseudofeat.splitting.trunk_and_head import Split

__all__ = ["PseudoFeatureHeadRetrainer"]


class PseudoFeatureHeadRetrainer(keras.callbacks.Callback):
    """Retrains the head of the model with pseudo-features when `fit` ends.

    Put it last in the list of callbacks: `EarlyStopping(restore_best_weights=True)`
    after it would undo the retraining at the end of training. Only `BackupAndRestore`,
    which deletes its backup in `on_train_end`, belongs after it, so that a `fit` that
    is killed during the retraining can be resumed. Layer, data, labels and settings are
    checked at the beginning of `fit`, before the first step.

    The `validation_data` and `verbose` of `fit` are used for the retraining, too,
    unless they are set here. Its `class_weight` and `sample_weight` are not: the
    retraining uses those in `data`. `ModelCheckpoint` saves the head before the
    retraining; save the model after `fit`. After an interrupt there is no retraining.
    If training ended in NaN, or the retraining fails, there is a warning and `report`
    is None, so that `fit` still returns its history.

    The scores of the retrained model are added to the History that `fit` returns, as
    "retrained_accuracy" and so on. With `every` they are in the logs of each epoch, NaN
    for epochs without a retraining, for `TensorBoard` and `CSVLogger` after this
    callback in the list. For other trackers use `report.metrics()`.

    Args:
        layer: the layer whose output are the features, None for the usual one, or a
            `Split`; see `retrain_head`.
        data: the data to extract features of, usually the training data, see
            `retrain_head`. Of infinite data, or data of unknown length, as many batches
            are read as `fit` has steps per epoch, if known; `steps` sets another
            number, `steps=None` reads all.
        every: also retrain after every `every`-th epoch; training continues from there.
        **settings: keyword arguments of `retrain_head`: `validation_data` (None for no
            guard, even if `fit` has some), `recipe`, `extraction`, their fields,
            `class_names`, `seed`, ... In `cache_dir` each retraining creates a new
            folder for its features and deletes it afterwards, since further training
            changes the trunk.

    Raises:
        TypeError: On construction, if a setting is unknown.
        ValueError: On construction, if there are no data, or a setting is out of range.
            At the beginning of `fit`, see `retrain_head`. After its first epoch, if its
            validation data do not fit, or are missing for recipe="auto".

    Examples:
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
                "`data` is None, but Keras does not pass the data of `fit` to "
                "callbacks. Pass them. For scikit-learn use PseudoFeatureClassifier, "
                "which retrains on the data of its own `fit`."
            )
        given = inspect.signature(resolve_task).bind(None, layer, data, **settings)
        given.apply_defaults()
        names = ("recipe", "extraction", "options")
        _, extraction, _ = resolve_options(*map(given.arguments.get, names))
        self._cache_dir, self._steps = extraction.cache_dir, extraction.steps
        self.settings = settings
        self.layer = layer
        self.data = data
        self.every = None if every is None else whole_number("every", every)
        self._report = self._reported = None

    @property
    def report(self) -> RetrainingReport | None:
        """The `RetrainingReport` of the last retraining; None before, or if it failed.

        Warns if the weights have changed since, for instance by a callback after this
        one that restores them.
        """
        noted = self._reported
        if noted is not None and noted != fingerprint(self.model.weights):
            warnings.warn(
                "The model's weights have changed since this report. If that was "
                "neither further training nor your own doing, a callback after this "
                "one has put others back, as EarlyStopping(restore_best_weights=True) "
                "does: put the retrainer last.",
                stacklevel=2,
            )
        return self._report

    def __deepcopy__(self, memo):
        """Copies the callback for another `fit`, as tuners do; shares its data.

        The state of a `fit`, including the report, is not copied.
        """
        copied = memo[id(self)] = type(self).__new__(type(self))
        shared = {"layer": self.layer, "data": self.data}
        shared["settings"] = dict(self.settings)
        fresh = dict.fromkeys(("_report", "_reported", "params", "_model"))
        left_out = {*shared, *fresh, "_left", "_of_fit", "_for_fit", "_has_retrained"}
        own = {k: v for k, v in self.__dict__.items() if k not in left_out}
        copied.__dict__.update(copy.deepcopy(own, memo), **shared, **fresh)
        return copied

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks all arguments, and warns if the optimizer keeps moving averages."""
        self._report = self._reported = None
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
                "They do not include the retrained head, so the next `fit` would "
                "overwrite it: compile with a new optimizer before.",
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
            logs.update(_scores(self._report if due else None))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Retrains, unless the weights have not changed since the last retraining."""
        if self._left is not None and self._left == fingerprint(self.model.weights):
            self._reported = self._left
            return
        self._retrain()
        if self._report is None:
            return
        self._reported = fingerprint(self.model.weights)
        scores = _scores(self._report)
        if logs is not None:
            logs.update(scores)
        history = getattr(self.model, "history", None)
        if history is not None:
            _add_to_history(history.history, scores, len(history.epoch))

    def _check(self, by_now=False):
        settings = {**self._of_fit, **self.settings}
        searches = settings.get("recipe") == "auto"
        if searches and "validation_data" not in settings and not by_now:
            del settings["recipe"]  # `fit` may provide them later
        resolve_task(self.model, self.layer, self.data, trained=False, **settings)

    def _take_validation_data(self):
        """Takes the validation data of `fit` once it has used them."""
        if "validation_data" in {**self._of_fit, **self.settings}:
            return
        data, steps = validation_data_of_fit(self.model)
        if is_one_pass(data):
            warnings.warn(
                "The `validation_data` of `fit` are a generator, which can be read "
                "only once: the retraining has no guard. Pass `validation_data` that "
                "can be read again to the callback.",
                stacklevel=2,
            )
            data = self._of_fit["validation_data"] = None
        if data is not None:
            data = data if steps is None else first_batches(data, steps)
            self._of_fit["validation_data"] = Preprocessed(data)
        if data is not None or self.settings.get("recipe") == "auto":
            self._check(by_now=True)

    def _retrain(self):
        broken = nonfinite_weights(self.model)
        if broken:
            self._report = None
            warnings.warn(
                f"The head is not retrained: {len(broken)} weights of the model are "
                f"NaN or infinite, the first is {broken[0]!r}. Its training has "
                f"diverged; load an earlier checkpoint, and use `retrain_head`.",
                stacklevel=2,
            )
            return
        again = self._again_settings() if self._has_retrained else {}
        settings = {**self._of_fit, **self._for_fit, **again}
        self._report = None
        try:
            with _new_cache(self._cache_dir) as cache:
                self._report = retrain_head(
                    self.model, self.layer, self.data, **{**settings, **cache}
                )
            self._has_retrained = True
        except Exception as error:  # `fit` should still return its history
            warnings.warn(
                f"The head is not retrained, and the model did not change: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )

    def _again_settings(self):
        """Settings after training continued from a retrained head of unknown prior."""
        recipe = self.settings.get("recipe")
        given = self.settings.get("blend", getattr(recipe, "blend", None))
        return {} if given is not None or recipe == "auto" else {"blend": 0.0}


def _scores(report):
    """The scores of the final model for logs, NaN without a report."""
    scores = {} if report is None else (report.after if report.kept else report.before)
    values = {name: scores.get(name) for name in SCORE_NAMES}
    return {
        f"retrained_{name}": float("nan") if value is None else value
        for name, value in values.items()
    }


def _with_unused_optimizer(settings):
    """Settings for another `fit`, with an optimizer without state."""
    settings, recipe = dict(settings), settings.get("recipe")
    if "optimizer" in settings:
        settings["optimizer"] = fresh_copy(settings["optimizer"])
    if isinstance(recipe, HeadRecipe):
        settings["recipe"] = dataclasses.replace(
            recipe, optimizer=fresh_copy(recipe.optimizer)
        )
    return settings


def _add_to_history(history, scores, epochs):
    """Adds the scores of the last epoch to a history, padded with NaN."""
    for name, value in scores.items():
        earlier = history.get(name, [])[: max(0, epochs - 1)]
        missing = max(0, epochs - 1 - len(earlier))
        history[name] = [float("nan")] * missing + earlier + [value]


def _keeps_averages(optimizer):
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of loss scaling
    return getattr(optimizer, "use_ema", False)


@contextlib.contextmanager
def _new_cache(cache_dir):
    """Context manager of `{"cache_dir": folder}` for one retraining, {} without one."""
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
