"""The whole retraining as a Keras callback."""

import contextlib
import inspect
import os
import tempfile
import warnings

import keras

from tf_pseudofeat.arguments import whole_number
from tf_pseudofeat.comparison import SCORE_NAMES
from tf_pseudofeat.graph import validation_data_of_fit
from tf_pseudofeat.job import broken_weights, check_job
from tf_pseudofeat.options import resolve_options
from tf_pseudofeat.preprocessing import Preprocessed
from tf_pseudofeat.retrain import retrain_head
from tf_pseudofeat.weights import fingerprint

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
    model after `fit`. A training that is interrupted is left as it is, and one that
    ended in NaN is warned of: `report` stays None, as `fit` has a history to return.

    The scores of the model as a retraining leaves it go into the History that `fit`
    returns as "retrained_accuracy" and so on. With `every` they are in the logs of each
    epoch, NaN for one without a retraining, so that `TensorBoard` and `CSVLogger` after
    this callback in the list have them. Other trackers take `report.metrics()`.

    Args:
        layer: the layer whose output is the feature, or a `Split`; see `retrain_head`.
        data: the data whose features to use, usually the training data.
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
        ValueError: When made: a setting that is out of its range.
            When `fit` begins: see `retrain_head`. After its first epoch: its
            validation data do not fit, or recipe="auto" has none.

    Example:

    >>> retrainer = PseudoFeatureHeadRetrainer("features", train_ds)
    >>> model.fit(train_ds, epochs=100, callbacks=[retrainer])
    >>> print(retrainer.report)
    """

    def __init__(self, layer, data, *, every=None, **settings):
        super().__init__()
        given = inspect.signature(check_job).bind(None, layer, data, **settings)
        given.apply_defaults()
        names = ("recipe", "extraction", "options")
        _, extraction, _ = resolve_options(*map(given.arguments.get, names))
        self._cache_dir = extraction.cache_dir
        self.settings = settings
        self.layer = layer
        self.data = data
        self.every = None if every is None else whole_number("every", every)
        self.report = None

    def on_train_begin(self, logs=None):
        """Checks everything, and warns of what would undo the retraining later."""
        self.report = None
        self._left = None
        self._of_fit = {"verbose": self.params.get("verbose", "auto")}
        self._check()
        if _keeps_averages(self.model.optimizer):
            warnings.warn(
                "The optimizer keeps moving averages of the weights (use_ema=True). "
                "They do not know the retrained head, and the next `fit` would "
                "overwrite it with them: compile with a new optimizer before that.",
                stacklevel=2,
            )

    def on_epoch_end(self, epoch, logs=None):
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

    def on_train_end(self, logs=None):
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
        for name, value in scores.items() if history is not None else ():
            history.history.setdefault(name, []).append(value)

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
        data = validation_data_of_fit(self.model)
        if data is not None:
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
        again = self._again_settings() if self.report is not None else {}
        with _new_cache(self._cache_dir) as cache:
            self.report = retrain_head(
                self.model,
                self.layer,
                self.data,
                **{**self._of_fit, **self.settings, **again, **cache},
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


def _keeps_averages(optimizer):
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of loss scaling
    return getattr(optimizer, "use_ema", False)


@contextlib.contextmanager
def _new_cache(cache_dir):
    """`{"cache_dir": folder}` for one retraining, or nothing where there is none."""
    if cache_dir is None:
        yield {}
        return
    os.makedirs(cache_dir, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix="features-") as folder:
        yield {"cache_dir": folder}
