"""A training that goes on after a kill, from files that are whole or not there.

A kill is SIGKILL, Ctrl-C, or an error of the process or of the disk. What a power cut
leaves of the last files is up to the file system.
"""

import pathlib

import keras

from tf_pseudofeat.core.distribution import scope_of
from tf_pseudofeat.core.files import whole_file

__all__ = ["EpochBackup", "restore", "skip_epochs"]


class EpochBackup(keras.callbacks.Callback):
    """Keeps the model of the last whole epoch as `epoch-<number of epochs>.keras`.

    `keras.callbacks.BackupAndRestore` (Keras 3.15) writes weights and epoch into two
    files, in place: killed between them, it trains an epoch twice; killed within one,
    every later start fails; and it deletes them before the callbacks that come after it
    are done. Here the name of one whole file is the epoch, and it stays.

    Args:
        folder: for the file.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = pathlib.Path(folder)

    def on_epoch_end(self, epoch, logs=None):
        """Writes the new file, then deletes the old."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f"epoch-{epoch + 1}.keras"
        with whole_file(new) as aside:
            self.model.save(aside)
        for old in _backups(self.folder).values():
            if old != new:
                old.unlink()


def restore(model, folder):
    """Gives a model the weights and the optimizer of the last whole epoch.

    Args:
        model: compiled as the one was that `EpochBackup` kept.
        folder: of the backup.

    Returns:
        epochs: how many are done, `initial_epoch` for `fit`; 0 where nothing was kept.

    Raises:
        ValueError: The backup is of a model with other layers.
    """
    backups = _backups(pathlib.Path(folder))
    epochs = max(backups, default=0)
    if epochs:
        try:
            with scope_of(model):
                model.optimizer.build(model.trainable_variables)
                model.load_weights(backups[epochs])
        except ValueError as error:
            raise ValueError(
                f"{backups[epochs]} is not of this model. Delete it to train from the "
                f"start. Keras says: {error}"
            ) from error
    return epochs


def skip_epochs(stream, epochs):
    """Has a shuffled `tf.data` stream go on as if `fit` had read it before.

    A stream takes the next order from its seed whenever it is opened, and `fit` opens
    it for each epoch twice on TensorFlow (Keras 3.12 to 3.15) and once elsewhere (Keras
    3.15). Where another Keras does not, other orders follow; none is wrong.
    """
    opened = 2 if keras.backend.backend() == "tensorflow" else 1
    for _ in range(opened * epochs):
        iter(stream)


def _backups(folder):
    """{epochs: path}."""
    return {
        int(path.stem.removeprefix("epoch-")): path
        for path in folder.glob("epoch-*.keras")
    }
