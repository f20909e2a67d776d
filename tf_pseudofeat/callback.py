"""The whole cure as a Keras callback."""

import contextlib
import hashlib
import inspect
import os
import tempfile
import warnings

import keras
import numpy as np

from tf_pseudofeat.arguments import whole_number
from tf_pseudofeat.job import broken_weights, check_job
from tf_pseudofeat.retrain import retrain_head

__all__ = ["PseudoFeatureHeadRetrainer"]


class PseudoFeatureHeadRetrainer(keras.callbacks.Callback):
    """Retrains the head of the model with pseudo-features when `fit` ends.

    Put it last in the list of callbacks. Layer, data, labels and settings are checked
    when `fit` begins, before the first step: a wrong layer name costs no training. Only
    `BackupAndRestore`, which deletes its backup when its turn comes, belongs after it:
    then a `fit` that is killed while the head is retrained has nothing to train again.

    What `fit` itself is given, `class_weight` or `sample_weight`, is for its own steps:
    the retraining sees what is in `data`. What `ModelCheckpoint` saves of an epoch is
    the head before the retraining; save the model after `fit`. A training that is
    interrupted is left as it is, and one that ended in NaN is warned of: `report` stays
    None, as `fit` has a history to return.

    Args:
        layer_name: the layer whose output is the feature, see `retrain_head`.
        data: the data whose features to use, usually the training data.
        every: also retrain after every `every`-th epoch; training goes on from there.
        **settings: keyword arguments of `retrain_head`: `validation_data`,
            `sampling_strategy`, `gaussian`, `sampler`, `seed`, ... Of a `cache_dir`
            each retraining has a new folder for its features, and deletes it when it is
            done: the trunk goes on, and they would not be its features any more.

    Attributes:
        report: the `RetrainingReport` of the last retraining; None before it, and
            where the training had broken down.

    Raises:
        TypeError: When made: a setting that `retrain_head` does not know.
        ValueError: When `fit` begins: see `retrain_head`.

    Example:

    >>> retrainer = PseudoFeatureHeadRetrainer("features", train_ds)
    >>> model.fit(train_ds, epochs=100, callbacks=[retrainer])
    >>> print(retrainer.report)
    """

    def __init__(self, layer_name, data, *, every=None, **settings):
        super().__init__()
        inspect.signature(retrain_head).bind(None, layer_name, data, **settings)
        self.layer_name = layer_name
        self.data = data
        self.every = None if every is None else whole_number("every", every)
        self.settings = settings
        self.report = None

    def on_train_begin(self, logs=None):
        """Checks everything, and warns of what would undo the retraining."""
        self.report = None
        self._left = None
        check_job(self.model, self.layer_name, self.data, **self.settings)
        if _keeps_averages(self.model.optimizer):
            warnings.warn(
                "The optimizer keeps moving averages of the weights (use_ema=True). "
                "They do not know the retrained head, and the next `fit` would "
                "overwrite it with them: compile with a new optimizer before that.",
                stacklevel=2,
            )
        for other in _callbacks_after(self):
            if getattr(other, "restore_best_weights", False):
                warnings.warn(
                    f"{type(other).__name__}(restore_best_weights=True) stands after "
                    f"PseudoFeatureHeadRetrainer and would undo the retraining when "
                    f"training ends. Put PseudoFeatureHeadRetrainer last.",
                    stacklevel=2,
                )

    def on_epoch_end(self, epoch, logs=None):
        """Retrains after every `every`-th epoch."""
        if self.every is not None and (epoch + 1) % self.every == 0:
            self._retrain()
            self._left = _fingerprint(self.model)

    def on_train_end(self, logs=None):
        """Retrains, unless that was just done and the weights are still those."""
        if self._left is None or self._left != _fingerprint(self.model):
            self._retrain()

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
        with _new_cache(self.settings.get("cache_dir")) as cache:
            self.report = retrain_head(
                self.model, self.layer_name, self.data, **{**self.settings, **cache}
            )


def _fingerprint(model):
    """Tells whether weights have changed, by an average or another callback."""
    digest = hashlib.blake2b()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).view(np.uint8))
    return digest.digest()


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


def _callbacks_after(callback):
    """The callbacks that Keras runs after this one.

    Keras does not tell a callback of its neighbours, but it is the container that calls
    `on_train_begin`, so the container is found among the callers.
    """
    frame = inspect.currentframe()
    while frame is not None:
        container = frame.f_locals.get("self")
        if isinstance(container, keras.callbacks.CallbackList):
            callbacks = list(container.callbacks)
            return callbacks[callbacks.index(callback) + 1 :]
        frame = frame.f_back
    return []
