"""Step 6 for production: exports the model as a SavedModel with named endpoints."""

import os
import pathlib
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping

import keras
import tensorflow as tf

from tf_pseudofeat.core.files import check_writable, local_path
from tf_pseudofeat.core.labels import check_class_names
from tf_pseudofeat.evaluation.thresholds import Thresholds
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
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
    """Exports the model as a SavedModel for TensorFlow Serving and TensorFlow.

    Each version is written atomically, and none is overwritten, even if several
    processes export at once. A process that is killed leaves a hidden folder
    `.unfinished-*`, which servers ignore and you may delete. Loading needs only
    TensorFlow; each weight is stored once, and neither the optimizer nor the statistics
    of the training data are included. The endpoints (SavedModel signatures), for any
    batch size B:

        serving_default  the model's inputs -> its outputs, by name;
                         with `class_names` also
                         classes [B, C] string, the names, most likely first, and
                         scores [B, C] float32, the probability of each of them;
                         with `thresholds` in the order of their decision, and
                         probabilities with their temperature
        encoded          image_bytes [B] string, JPEG or PNG files -> the same
        features         the model's inputs -> features [B, ...]
        log_density      the model's inputs -> log_density [B, C] float32, of the
                         features under each class; if all are low, the input is unlike
                         every class

    Args:
        model: built Keras model with a graph of layers.
        path: folder of versions, `served` for `served/1`, `served/2` and so on, to
            write the next one; or one of them, `served/7`, which must not exist.
        input_name: name of a single input; by default the model's name for it, or
            "image" or "features" (by rank) if Keras generated the name.
        output_name: name of a single output; by default "probabilities" after a softmax
            or sigmoid, "logits" after a linear layer, else "outputs".
        class_names: list of C strings, in the order of the class ids, or a dict {id:
            name}, to serve `classes` and `scores`; also saved as
            `assets/class_names.txt`. Two for a single sigmoid or logit, the second for
            1. Several logits are treated as those of a softmax.
        thresholds: `Thresholds` of `choose_thresholds`, which determine the order of
            `classes`, as `thresholds.decide` of the model's own output, which does not
            change; `scores` are those of `thresholds.calibrate`. Needs `class_names`.
            Warns if no improvement is expected of them.
        encoded_images: serve `encoded`, for a model of one image `[B, height, width,
            1 or 3]` of known size. Files are decoded into the model's number of
            channels and resized to its size (bilinear, antialiased). The model gets
            pixels of 0 to 255 in its dtype: any scaling must be a layer of the model.
        layer_name: the split layer, to serve `features`.
        gaussian: a fitted `ClassConditionalGaussian`, to serve `log_density`. Without
            it no statistics of the training data are exported.
        warmup: a batch of inputs, which TensorFlow Serving sends to every endpoint
            before it takes requests, so that the first one is not slow. Needs the extra
            `serving`.
        preprocess: for a KerasHub task, whether every endpoint takes the inputs of
            `predict`, `image` [B, height, width, channels] float32 of 0 to 255, of any
            size if the preprocessor resizes, or `text` [B] string, and preprocesses it
            in the SavedModel; otherwise the inputs are outputs of
            `model.preprocessor(x)`. Tokenizers use operations of TensorFlow Text, which
            TensorFlow Serving includes; import `tensorflow_text` before
            `tf.saved_model.load`.

    Returns:
        path: string, the folder of the new version.

    Raises:
        FileExistsError: If `path` is a version that exists.
        ImportError: If `warmup` is given without `tensorflow-serving-api`.
        NotImplementedError: If the Keras backend is neither TensorFlow nor jax. The
            message has a workaround.
        OSError: If the folder cannot be written to, or the disk is full.
        TypeError: If `model` is not a Keras 3 model, `path` is not a path,
            `class_names` is not a list of strings, or `thresholds` is not a
            `Thresholds`.
        ValueError: If an argument does not fit the model, `gaussian` is given without
            `layer_name`, or `path` is on another file system, `gs://...`.

    Examples:
        >>> export_classifier(model, "served", class_names=["cat", "dog"])
        'served/1'
        >>> tf.saved_model.load("served/1").signatures["serving_default"]
    """
    path = local_path(path)
    folder, version = (path.parent, path) if _is_version(path) else (path, None)
    if version is not None and os.path.lexists(version):
        raise FileExistsError(_taken(version))
    check_writable(folder)
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
    if thresholds is not None and any(thresholds.bias) and not thresholds.improves:
        warnings.warn(_no_gain(thresholds), stacklevel=2)
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
        if isinstance(error, tf.errors.OpError):  # how TensorFlow reports an OSError
            raise OSError(
                f"{folder} could not be written to, and this export was removed: "
                f"{error.message}. Free some space, or export elsewhere."
            ) from error
        raise


def next_version(folder: str | os.PathLike) -> pathlib.Path:
    """The path of the next free version number in a folder of exports, from 1.

    Args:
        folder: the `<name>` of `<name>/<version number>`; may not exist yet.

    Returns:
        path: `pathlib.Path`.
    """
    folder = local_path(folder, "folder")
    found = folder.iterdir() if folder.is_dir() else ()
    taken = [int(path.name) for path in found if _is_version(path)]
    return folder / str(max(taken, default=0) + 1)


def _no_gain(thresholds):
    return (
        f"No improvement of {thresholds.metric!r} is expected of `thresholds`: it is "
        f"{thresholds.before:.4f} without them, and {thresholds.estimate:.4f} is "
        f"expected with them. Export without; or, for the temperature alone, pass "
        f"dataclasses.replace(thresholds, bias=(0.0,) * {len(thresholds.bias)})."
    )


def _is_version(path):
    return path.name.isascii() and path.name.isdecimal()


def _taken(version):
    folder = version.parent
    return (
        f"{version} exists, and versions are not overwritten, since they may be in "
        f"use. Pass {str(folder)!r} to write the next one, {next_version(folder)}."
    )


def _save(functions, tables, class_names, folder):
    """`keras.export.ExportArchive` would store each weight twice (keras#23553)."""
    module = tf.Module()
    traced = [function.get_concrete_function() for function in functions.values()]
    weights = {v.ref(): v for f in traced for v in f.variables}.values()
    # The order of the variables of a function depends on memory addresses.
    module.weights = sorted(weights, key=lambda v: (v.name, v.numpy().tobytes()))
    module.tables = tables
    if class_names is not None:
        file = folder / "assets" / "class_names.txt"
        file.parent.mkdir()
        file.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        module.class_names = tf.saved_model.Asset(str(file))
    tf.saved_model.save(module, str(folder), signatures=functions)


def _tables(model):
    """Resources other than variables, such as vocabularies of StringLookup."""
    if keras.backend.backend() != "tensorflow":
        return []  # other backends have none
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
    """Renames a folder to `version`, or to the next free number."""
    while True:
        path = version or next_version(folder)
        try:
            return aside.rename(path)  # fails if a folder with files exists
        except OSError:
            if not path.exists():
                raise
            if version is not None:
                raise FileExistsError(_taken(version)) from None
