"""Step 6 for production: the cured classifier as a SavedModel with named endpoints."""

import os
import pathlib
import shutil
import tempfile

import keras
import tensorflow as tf

from tf_pseudofeat.activation import output_activation
from tf_pseudofeat.graph import functional
from tf_pseudofeat.split import split_at

__all__ = ["export_classifier", "next_version"]


def export_classifier(
    model,
    path,
    *,
    input_name=None,
    output_name=None,
    layer_name=None,
    gaussian=None,
):
    """Writes the model as a SavedModel that TensorFlow Serving and TF load as it is.

    Endpoint `serving_default` takes inputs of any batch size and gives the outputs.
    With `layer_name` there is an endpoint `features`, and with `gaussian` as well an
    endpoint `log_density`: how likely the features are under each class. The folder
    needs only TensorFlow to load; it appears whole or not at all.

    Args:
        model: built Keras model with a graph of layers.
        path: folder to make, by TensorFlow Serving's custom `<name>/<version number>`.
        input_name: of a single input; by default the model's own name for it, or
            "image" or "features" (by rank) where Keras made the name up.
        output_name: of a single output; by default "probabilities" after a softmax or
            sigmoid, "logits" after a linear layer, else "outputs".
        layer_name: the split layer, to serve features as well.
        gaussian: a fitted `ClassConditionalGaussian`, to serve log densities `[B, C]`.
            Without it no statistics of the training data leave the house.

    Returns:
        path: string, as given.

    Raises:
        FileExistsError: `path` is there already; a version is never overwritten.
        ValueError: The model has no graph, or `gaussian` comes without `layer_name`.

    Example:

    >>> export_classifier(model, "served/1")
    >>> tf.saved_model.load("served/1").signatures["serving_default"]
    """
    path = pathlib.Path(path)
    if path.exists():
        raise FileExistsError(
            f"{path} exists, and a version that may be in use is not overwritten. "
            f"Export to a new folder, such as {next_version(path.parent)}."
        )
    if gaussian is not None and layer_name is None:
        raise ValueError(
            "`gaussian` gives densities of features; pass `layer_name`, the layer that "
            "makes them."
        )
    if gaussian is not None:
        gaussian.feature_shape  # noqa: B018  raises where nothing is fitted
    network = functional(model)
    if network is None:
        raise ValueError(
            f"{model.name!r} ({type(model).__name__}) has no graph of layers, which "
            f"tells its inputs and outputs. Build it if it is Sequential; a model with "
            f"a `call` of its own has keras.Model.export."
        )
    endpoints = _endpoints(
        model, _named_outputs(network, output_name), layer_name, gaussian
    )
    signature = _signature(network, input_name)
    archive = keras.export.ExportArchive()
    for owner in filter(None, (model, gaussian)):
        archive.track(owner)
    for name, function in endpoints.items():
        archive.add_endpoint(name, function, input_signature=[signature])
    _write_whole(archive, path)
    return str(path)


def next_version(folder):
    """The path of the next free version number in a folder of exports, from 1.

    Args:
        folder: the `<name>` of `<name>/<version number>`; need not exist.

    Returns:
        path: `pathlib.Path`.
    """
    folder = pathlib.Path(folder)
    found = folder.iterdir() if folder.is_dir() else ()
    taken = [int(version.name) for version in found if version.name.isdecimal()]
    return folder / str(max(taken, default=0) + 1)


def _endpoints(model, named, layer_name, gaussian):
    """{endpoint: function of the inputs that gives a dict of named outputs}."""
    endpoints = {"serving_default": lambda x: named(model(x, training=False))}
    if layer_name is not None:
        trunk, _ = split_at(model, layer_name)
        endpoints["features"] = lambda x: {"features": trunk(x, training=False)}
    if gaussian is not None:
        endpoints["log_density"] = lambda x: {
            "log_density": gaussian(trunk(x, training=False))
        }
    return endpoints


def _named_outputs(model, output_name):
    """A function from the model's outputs to a dict of them by name."""
    if isinstance(model.output, dict):
        return dict
    if len(model.outputs) > 1:
        names = list(model.output_names)
        return lambda y: dict(zip(names, keras.tree.flatten(y), strict=True))
    names = {"softmax": "probabilities", "sigmoid": "probabilities", "linear": "logits"}
    name = output_name or names.get(output_activation(model), "outputs")
    return lambda y: {name: keras.tree.flatten(y)[0]}


def _signature(model, input_name):
    """The model's inputs, in its own structure, with names and an open batch size."""

    def spec(tensor, name):
        return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)

    if isinstance(model.input, dict):
        return {name: spec(tensor, name) for name, tensor in model.input.items()}
    if len(model.inputs) > 1:
        return keras.tree.map_structure(lambda t: spec(t, t.name), model.input)
    (tensor,) = model.inputs
    made_up = tensor.name.startswith(("keras_tensor", "input_layer"))
    default = "image" if len(tensor.shape) == 4 else "features"
    name = input_name or (default if made_up else tensor.name)
    return keras.tree.map_structure(lambda t: spec(t, name), model.input)


def _write_whole(archive, path):
    """Writes beside `path` and renames: who watches the folder sees it whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        archive.write_out(aside, verbose=False)
        os.chmod(aside, 0o755)
        os.rename(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
