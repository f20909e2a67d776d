"""Step 6 for production: the retrained model as a SavedModel with named endpoints."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping

import keras
import tensorflow as tf

from tf_pseudofeat.core.files import local_path
from tf_pseudofeat.core.labels import check_class_names
from tf_pseudofeat.evaluation.thresholds import Thresholds
from tf_pseudofeat.gaussians.gaussian import ClassConditionalGaussian
from tf_pseudofeat.serving.endpoints import endpoints
from tf_pseudofeat.serving.warmup import warmup_records

__all__ = ["export_classifier", "next_version"]


def export_classifier(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    input_name: str | None = None,
    output_name: str | None = None,
    class_names: Iterable[str] | Mapping[int, str] | None = None,
    thresholds: Thresholds | None = None,
    encoded_images: bool = False,
    layer_name: str | None = None,
    gaussian: ClassConditionalGaussian | None = None,
    warmup: object = None,
    preprocess: bool = True,
) -> str:
    """Writes the model as a SavedModel that TensorFlow Serving and TF load as it is.

    A version appears in its folder whole or not at all, and none is overwritten, also
    where several processes export at once. One that is killed leaves a hidden folder
    `.unfinished-*`, which servers pass over and you may delete. Loading needs only
    TensorFlow; each weight is stored once, and the optimizer and the statistics of the
    training data stay at home. The endpoints (SavedModel signatures), for any batch
    size B:

        serving_default  the model's inputs -> its outputs, by name;
                         with `class_names` also
                         classes [B, C] string, the names, the likeliest first, and
                         scores [B, C] float32, the probability of each of them;
                         with `thresholds` first the one that they decide for, and
                         probabilities with their temperature
        encoded          image_bytes [B] string, JPEG or PNG files -> the same
        features         the model's inputs -> features [B, ...]
        log_density      the model's inputs -> log_density [B, C] float32, of the
                         features under each class; where all are low, the input is
                         unlike every class

    Args:
        model: built Keras model with a graph of layers.
        path: folder of versions, `served` for `served/1`, `served/2` and so on, of
            which the next is taken; or one of them, `served/7`, which must be free.
        input_name: of a single input; by default the model's own name for it, or
            "image" or "features" (by rank) where Keras made the name up.
        output_name: of a single output; by default "probabilities" after a softmax or
            sigmoid, "logits" after a linear layer, else "outputs".
        class_names: list of C strings, in the order of the labels, to serve `classes`
            and `scores`; kept as `assets/class_names.txt`, too. Two of them for a
            single sigmoid or logit, the second for 1. Several logits are taken for
            those of a softmax. A dict {id: name} will do.
        thresholds: `Thresholds` of `choose_thresholds`, which the order of `classes`
            follows. The model's own output stays as it is. Needs `class_names`.
        encoded_images: serve `encoded`, for a model of one image `[B, height, width,
            1 or 3]` of known size. Files are decoded into the model's number of
            channels and resized to its size (bilinear, antialiased). The model gets
            pixels of 0 to 255, in its dtype: any scaling must be a layer of it.
        layer_name: the split layer, to serve `features`.
        gaussian: a fitted `ClassConditionalGaussian`, to serve `log_density`. Without
            it no statistics of the training data leave the house.
        warmup: a batch of inputs, which TensorFlow Serving sends to every endpoint
            before it takes requests, so that the first is not slow. Needs the extra
            `serving`.
        preprocess: of a KerasHub task, whether every endpoint takes what `predict`
            takes, `image` [B, height, width, channels] float32 of 0 to 255, of any size
            where the preprocessor resizes, or `text` [B] string, and preprocesses it in
            the SavedModel; otherwise the inputs are what `model.preprocessor(x)` gives.
            Tokenizers are operations of TensorFlow Text, which TensorFlow Serving has;
            before `tf.saved_model.load` import `tensorflow_text`.

    Returns:
        path: string, the folder of the version that was written.

    Raises:
        FileExistsError: `path` names a version, and it is there already.
        ImportError: `warmup` without `tensorflow-serving-api`.
        NotImplementedError: Keras runs on torch, say, and not on TensorFlow or jax. The
            error names the way; nothing was written.
        OSError: The folder cannot be written, or the disk is full.
        TypeError: `model` is not a Keras 3 model, `path` no path, `class_names` is no
            list of strings, or `thresholds` something else.
        ValueError: What is asked for does not fit the model, `gaussian` comes without
            `layer_name`, or `path` is on another system, `gs://...`.

    Example:

    >>> export_classifier(model, "served", class_names=["cat", "dog"])
    'served/1'
    >>> tf.saved_model.load("served/1").signatures["serving_default"]
    """
    path = local_path(path)
    folder, version = (path.parent, path) if _is_version(path) else (path, None)
    if version is not None and version.exists():
        raise FileExistsError(_taken(version))
    if class_names is not None:
        class_names = check_class_names(class_names)
    functions = endpoints(
        model,
        input_name=input_name,
        output_name=output_name,
        class_names=class_names,
        thresholds=thresholds,
        encoded_images=encoded_images,
        layer_name=layer_name,
        gaussian=gaussian,
        preprocess=preprocess,
    )
    name = folder.resolve().name
    requests = [] if warmup is None else warmup_records(functions, warmup, name)
    folder.mkdir(parents=True, exist_ok=True)
    aside = pathlib.Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
    try:
        _save(functions, _tables(model), class_names, aside)
        _write_warmup(requests, aside)
        os.chmod(aside, 0o755)
        return str(_rename(aside, folder, version))
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, tf.errors.OpError):  # what TensorFlow makes of an OSError
            raise OSError(
                f"{folder} could not be written to, and nothing of this export is "
                f"left there: {error.message}. Free some space, or export elsewhere."
            ) from error
        raise


def next_version(folder: str | os.PathLike) -> pathlib.Path:
    """The path of the next free version number in a folder of exports, from 1.

    Args:
        folder: the `<name>` of `<name>/<version number>`; need not exist.

    Returns:
        path: `pathlib.Path`.
    """
    folder = local_path(folder, "folder")
    found = folder.iterdir() if folder.is_dir() else ()
    taken = [int(path.name) for path in found if _is_version(path)]
    return folder / str(max(taken, default=0) + 1)


def _is_version(path):
    return path.name.isascii() and path.name.isdecimal()


def _taken(version):
    folder = version.parent
    return (
        f"{version} exists, and a version that may be in use is not overwritten. Pass "
        f"{str(folder)!r} for the next, which is now {next_version(folder)}."
    )


def _save(functions, tables, class_names, folder):
    """`keras.export.ExportArchive` would store each weight twice (keras#23553)."""
    module = tf.Module()
    traced = [function.get_concrete_function() for function in functions.values()]
    weights = {v.ref(): v for f in traced for v in f.variables}.values()
    # A function holds its variables by where they are in memory: in any order.
    module.weights = sorted(weights, key=lambda v: (v.name, v.numpy().tobytes()))
    module.tables = tables
    if class_names is not None:
        file = folder / "assets" / "class_names.txt"
        file.parent.mkdir()
        file.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        module.class_names = tf.saved_model.Asset(str(file))
    tf.saved_model.save(module, str(folder), signatures=functions)


def _tables(model):
    """What a function reads that is no variable: vocabularies of StringLookup etc."""
    if keras.backend.backend() != "tensorflow":
        return []  # no other backend has any
    return [
        part
        for part in tf.train.TrackableView(model).descendants()
        if isinstance(part, tf.saved_model.experimental.TrackableResource)
    ]


def _write_warmup(requests, folder):
    if requests:
        file = folder / "assets.extra" / "tf_serving_warmup_requests"
        file.parent.mkdir()
        with tf.io.TFRecordWriter(str(file)) as writer:
            for request in requests:
                writer.write(request)


def _rename(aside, folder, version):
    """Gives a folder its number: `version`, or the next that nobody else took."""
    while True:
        path = version or next_version(folder)
        try:
            return aside.rename(path)  # fails where there is a folder with files
        except OSError:
            if not path.exists():
                raise
            if version is not None:
                raise FileExistsError(_taken(version)) from None
