"""What an exported classifier answers: named functions of named inputs."""

import functools

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.labels import check_class_names
from tf_pseudofeat.data.preprocessing import preprocess_batch, preprocesses
from tf_pseudofeat.evaluation.thresholds import Thresholds
from tf_pseudofeat.gaussians.gaussian import check_gaussian
from tf_pseudofeat.serving.lowering import Lowering
from tf_pseudofeat.serving.raw_inputs import check_in_graph, raw_signature
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.graph import check_is_keras_3, check_stateless, functional
from tf_pseudofeat.splitting.readings import reading_of
from tf_pseudofeat.splitting.split import split_at

__all__ = ["endpoints"]

_OUTPUT_NAMES = {
    "softmax": "probabilities",
    "sigmoid": "probabilities",
    "linear": "logits",
}


def endpoints(
    model,
    *,
    input_name=None,
    output_name=None,
    class_names=None,
    thresholds=None,
    encoded_images=False,
    layer_name=None,
    gaussian=None,
    preprocess=True,
):
    """The endpoints of `export_classifier`, whose arguments these are.

    Returns:
        functions: {endpoint: `tf.function` of one structure of inputs, with an input
            signature, that returns a dict of outputs}; "serving_default" is the first.

    Raises:
        ValueError: What is asked for does not fit the model.
        TypeError: `model` is not a Keras 3 model.
        NotImplementedError: Keras runs on a backend other than TensorFlow and jax.
    """
    check_is_keras_3(model)
    check_stateless(model)
    lowered = Lowering()
    network = _network(model)
    if gaussian is not None:
        _check_gaussian(gaussian, layer_name, model)
    raw = preprocess and preprocesses(model)
    inputs = _signature(model, network, None if raw else input_name)
    signature, prepare = inputs, lambda x: x
    if raw:
        signature = raw_signature(model, network, input_name)
        check_in_graph(model, signature)
        prepare = functools.partial(preprocess_batch, model)
    reading = reading_of(output_activation(network), getattr(model, "loss", None))
    named = _named_outputs(model, network, reading, output_name)
    classified = _classified(
        model, network, reading, class_names, thresholds, output_name
    )
    decoded = _prepared_files(inputs, signature, prepare) if encoded_images else None

    predict = lowered(functools.partial(model, training=False), [model], inputs)

    def answer(x):
        outputs = predict(x)
        return named(outputs) | classified(outputs)

    def endpoint(function, signature=signature):
        return tf.function(function, input_signature=[signature], autograph=False)

    functions = {"serving_default": endpoint(lambda x: answer(prepare(x)))}
    if encoded_images:
        files = tf.TensorSpec((None,), tf.string, name="image_bytes")
        functions["encoded"] = endpoint(lambda x: answer(decoded(x)), files)
    if layer_name is not None:
        trunk, _ = split_at(model, layer_name)
        features = lowered(functools.partial(trunk, training=False), [trunk], inputs)
        functions["features"] = endpoint(lambda x: {"features": features(prepare(x))})
    if gaussian is not None:
        density = lowered(
            lambda x: gaussian(trunk(x, training=False)), [trunk, gaussian], inputs
        )
        functions["log_density"] = endpoint(
            lambda x: {"log_density": density(prepare(x))}
        )
    return functions


def _network(model):
    network = functional(model)
    if network is None:
        raise ValueError(
            f"{model.name!r} ({type(model).__name__}) has no graph of layers, which "
            f"tells its inputs and outputs. Build it if it is Sequential; a model with "
            f"a `call` of its own has keras.Model.export."
        )
    return network


def _check_gaussian(gaussian, layer_name, model):
    check_gaussian(gaussian)
    if layer_name is None:
        raise ValueError(
            "`gaussian` gives densities of features; pass `layer_name`, the layer that "
            "makes them."
        )
    received = tuple(split_at(model, layer_name).trunk.output.shape[1:])
    if gaussian.feature_shape != received:  # raises where nothing is fitted
        raise ValueError(
            f"`gaussian` was fitted to features of shape "
            f"{list(gaussian.feature_shape)}; layer {layer_name!r} gives "
            f"{list(received)}. Name the layer that it was fitted at."
        )


def _signature(model, network, input_name):
    """The model's inputs, in its own structure, with names and an open batch size."""

    def spec(tensor, name):
        return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)

    if input_name is not None and len(network.inputs) > 1:
        raise ValueError(
            f"`input_name` is for a single input; {model.name!r} has "
            f"{[tensor.name for tensor in network.inputs]}, which keep their names."
        )
    if isinstance(network.input, dict):
        return {name: spec(tensor, name) for name, tensor in network.input.items()}
    if len(network.inputs) > 1:
        return keras.tree.map_structure(lambda t: spec(t, t.name), network.input)
    (tensor,) = network.inputs
    made_up = tensor.name.startswith(("keras_tensor", "input_layer"))
    default = "image" if len(tensor.shape) == 4 else "features"
    name = input_name or (default if made_up else tensor.name)
    return keras.tree.map_structure(lambda t: spec(t, name), network.input)


def _named_outputs(model, network, reading, output_name):
    """A function from the model's outputs to a dict of them by name."""
    if output_name is not None and len(network.outputs) > 1:
        raise ValueError(
            f"`output_name` is for a single output; {model.name!r} has "
            f"{list(network.output_names)}, which keep their names."
        )
    if isinstance(network.output, dict):
        return dict
    if len(network.outputs) > 1:
        names = list(network.output_names)
        return lambda y: dict(zip(names, keras.tree.flatten(y), strict=True))
    name = _OUTPUT_NAMES.get(output_activation(network), "outputs")
    name = output_name or ("outputs" if reading.meaning == "numbers" else name)
    return lambda y: {name: keras.tree.flatten(y)[0]}


# Names of classes.


def _classified(model, network, reading, class_names, thresholds, output_name):
    """A function from the outputs to names and scores, what is decided for first."""
    if thresholds is not None and class_names is None:
        raise ValueError(
            "`thresholds` decide which of the `classes` is served first; pass "
            "`class_names`."
        )
    if class_names is None:
        return lambda y: {}
    activation = output_activation(network)
    _check_classifier(model, network, activation, output_name)
    if reading.meaning == "numbers":
        raise ValueError(
            f"`class_names` are served with probabilities, and {model.name!r} gives "
            f"none: {reading.reason}. Export it without."
        )
    width = network.outputs[0].shape[-1]
    classes = 2 if _is_binary(width, activation) else width
    class_names = check_class_names(class_names, classes)
    thresholds = _checked_thresholds(thresholds, class_names, classes)

    def classified(y):
        (y,) = keras.tree.flatten(y)
        if thresholds is None:
            scores, order = tf.math.top_k(_scores(y, activation), k=classes)
        else:
            scores, order = _decided(_logits(y, activation), thresholds)
        # A constant of each graph: made outside, it would be of none.
        return {
            "classes": tf.gather(tf.constant(list(class_names)), order),
            "scores": scores,
        }

    return classified


def _scores(y, activation):
    """Probabilities `[B, C]`, in float32, of logits or probabilities."""
    y = tf.cast(y, tf.float32)
    binary = _is_binary(y.shape[-1], activation)
    if activation == "linear":
        y = tf.sigmoid(y) if binary else tf.nn.softmax(y)
    return tf.concat([1 - y, y], axis=-1) if binary else y


def _checked_thresholds(thresholds, class_names, classes):
    if thresholds is None:
        return None
    if not isinstance(thresholds, Thresholds):
        raise TypeError(
            f"`thresholds` is what choose_thresholds gives; received "
            f"{type(thresholds).__name__}."
        )
    named = thresholds.class_names
    if named is not None and tuple(named) != tuple(class_names):
        raise ValueError(
            f"`thresholds` are of the classes {list(named)}, in this order; received "
            f"`class_names` {list(class_names)}. Pass the names that they have."
        )
    if len(thresholds.bias) != classes:
        raise ValueError(
            f"`thresholds` are of {len(thresholds.bias)} classes, and the model tells "
            f"{classes} apart. Choose them for this model."
        )
    return thresholds


def _logits(y, activation):
    """Logits `[B, C]`, in float32, of logits or probabilities."""
    if activation == "linear":
        y = tf.cast(y, tf.float32)
        return tf.concat([tf.zeros_like(y), y], axis=-1) if y.shape[-1] == 1 else y
    return tf.math.log(tf.maximum(_scores(y, activation), np.finfo(np.float32).tiny))


def _decided(logits, thresholds):
    """Calibrated probabilities `[B, C]`, in the order in which they are decided for."""
    calibrated = tf.nn.softmax(logits / thresholds.temperature)
    bias = tf.constant(thresholds.bias, tf.float32)
    _, order = tf.math.top_k(logits + bias, k=len(thresholds.bias))
    return tf.gather(calibrated, order, batch_dims=1), order


def _is_binary(width, activation):
    """Whether one number stands for two classes: the probability of the second."""
    return width == 1 and activation != "softmax"


def _check_classifier(model, network, activation, output_name):
    shapes = [tuple(tensor.shape) for tensor in network.outputs]
    if len(shapes) > 1 or len(shapes[0]) != 2 or activation not in _OUTPUT_NAMES:
        raise ValueError(
            f"`class_names` are for a model with one output [B, C] that ends in a "
            f"softmax, a sigmoid or a linear layer; {model.name!r} has outputs of "
            f"shapes {shapes} and ends in {activation}. Export it without."
        )
    keys = set(network.output) if isinstance(network.output, dict) else {output_name}
    if keys & {"classes", "scores"}:
        raise ValueError(
            f"`class_names` serve outputs 'classes' and 'scores', and the output of "
            f"{model.name!r} is to be {sorted(keys)}. Call it something else."
        )


# Encoded images.


def _prepared_files(inputs, signature, prepare):
    """A function from JPEG or PNG files `[B]` to what the layers of a model take.

    Args:
        inputs: what the layers take, as `tf.TensorSpec`s.
        signature: what `predict` takes; the same, or images of any size.
        prepare: a function from the one to the other.
    """
    decoded = _decoded(inputs)
    if signature is inputs:
        return decoded
    (image,) = keras.tree.flatten(inputs)
    sides_are_open = None in signature.shape[1:]

    def prepared(file):
        pixels = tf.io.decode_image(
            file, channels=image.shape[-1], expand_animations=False
        )
        pixels.set_shape((None, None, image.shape[-1]))
        (whole,) = keras.tree.flatten(prepare(tf.cast(pixels, tf.float32)[tf.newaxis]))
        whole.set_shape((1, *image.shape[1:]))
        return whole[0]

    def prepared_files(files):
        spec = tf.TensorSpec(image.shape[1:], image.dtype)
        images = tf.map_fn(prepared, files, fn_output_signature=spec)
        return keras.tree.pack_sequence_as(inputs, [images])

    return prepared_files if sides_are_open else lambda files: prepare(decoded(files))


def _decoded(signature):
    """A function from JPEG or PNG files `[B]` to what the model takes."""
    (image, *more) = keras.tree.flatten(signature)
    shape = image.shape[1:]
    if more or len(shape) != 3 or None in shape or shape[-1] not in (1, 3):
        raise ValueError(
            f"`encoded_images` is for a model of one image [B, height, width, 1 or 3] "
            f"of known size; this one takes "
            f"{[tuple(spec.shape) for spec in (image, *more)]}. Export it without, or "
            f"put a Resizing layer behind an input of known size."
        )
    height, width, channels = shape
    dtype = image.dtype

    def decode(file):
        pixels = tf.io.decode_image(file, channels=channels, expand_animations=False)
        pixels.set_shape((None, None, channels))
        pixels = tf.image.resize(pixels, (height, width), antialias=True)
        if dtype.is_integer:
            pixels = tf.round(pixels)
        return tf.cast(pixels, dtype)

    def decoded(files):
        images = tf.map_fn(
            decode, files, fn_output_signature=tf.TensorSpec(shape, dtype)
        )
        return keras.tree.pack_sequence_as(signature, [images])

    return decoded
