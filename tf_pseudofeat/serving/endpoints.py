"""The endpoints of an exported classifier: functions of named inputs."""

import functools

import keras
import tensorflow as tf

from tf_pseudofeat.data.preprocessing import preprocess_batch, preprocesses
from tf_pseudofeat.gaussians.class_conditional_gaussian import check_gaussian
from tf_pseudofeat.serving.class_scores import OUTPUT_NAMES, class_scores
from tf_pseudofeat.serving.image_files import image_file_decoder
from tf_pseudofeat.serving.lowering import Lowering
from tf_pseudofeat.serving.raw_inputs import check_in_graph, raw_signature
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.computed_shapes import computed_shapes
from tf_pseudofeat.splitting.graph import check_is_keras_3, check_stateless, functional
from tf_pseudofeat.splitting.readings import reading_of
from tf_pseudofeat.splitting.split_at import split_at

__all__ = ["endpoints"]


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
    """Creates the endpoints of `export_classifier`, with the same arguments.

    Returns:
        functions: {endpoint: `tf.function` with an input signature that returns a dict
            of outputs}, starting with "serving_default".

    Raises:
        ValueError: If an argument does not fit the model.
        TypeError: If `model` is not a Keras 3 model.
        NotImplementedError: If the Keras backend is neither TensorFlow nor jax.
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
    classified = class_scores(
        model, network, reading, class_names, thresholds, output_name
    )
    decoded = image_file_decoder(inputs, signature, prepare) if encoded_images else None

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
            f"defines its inputs and outputs. Build it if it is Sequential; export a "
            f"subclassed model with keras.Model.export."
        )
    return network


def _check_gaussian(gaussian, layer_name, model):
    check_gaussian(gaussian)
    if layer_name is None:
        raise ValueError(
            "`gaussian` computes densities of features; pass `layer_name`, the layer "
            "that computes the features."
        )
    (shape,) = computed_shapes(split_at(model, layer_name).trunk)
    received = shape[1:]
    if gaussian.feature_shape != received:  # raises if not fitted
        raise ValueError(
            f"`gaussian` was fitted to features of shape "
            f"{list(gaussian.feature_shape)}; layer {layer_name!r} has "
            f"{list(received)}. Pass the layer that it was fitted at."
        )


def _signature(model, network, input_name):
    """The signature of the model's inputs, with names and variable batch size."""

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
    """Returns a function from the model's outputs to a dict by name."""
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
    name = OUTPUT_NAMES.get(output_activation(network), "outputs")
    name = output_name or ("outputs" if reading.meaning == "numbers" else name)
    return lambda y: {name: keras.tree.flatten(y)[0]}
