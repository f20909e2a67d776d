"""The raw inputs of a KerasHub task, as inputs of a SavedModel."""

import keras
import tensorflow as tf

from tf_pseudofeat.data.preprocessing import preprocess_batch

__all__ = ["check_in_graph", "raw_signature"]

_ADVICE = (
    "Pass preprocess=False to export only the layers: requests then carry outputs of "
    "`model.preprocessor(x)`."
)


def raw_signature(model, network, input_name=None):
    """Returns the signature of the raw input of a KerasHub task: images or texts.

    Args:
        model: KerasHub task with a preprocessor.
        network: functional model with its graph.
        input_name: by default "image" or "text".

    Returns:
        signature: `tf.TensorSpec`: `[B, height, width, channels]` float32, with
            variable sides if the preprocessor resizes; or `[B]` string.

    Raises:
        ValueError: If the preprocessor takes other inputs.
    """
    converter = getattr(model.preprocessor, "image_converter", None)
    if converter is not None and len(network.inputs) == 1:
        return tf.TensorSpec(
            _image_shape(converter, network.inputs[0].shape),
            tf.float32,
            name=input_name or "image",
        )
    if converter is None and getattr(model.preprocessor, "tokenizer", None) is not None:
        return tf.TensorSpec((None,), tf.string, name=input_name or "text")
    raise ValueError(
        f"The preprocessor of {model.name!r}, a {type(model.preprocessor).__name__}, "
        f"takes neither one image nor one text, so the format of requests is unknown. "
        f"{_ADVICE}"
    )


def check_in_graph(model, signature):
    """Raises ValueError if the preprocessor cannot run in a SavedModel."""
    function = tf.function(lambda x: preprocess_batch(model, x), autograph=False)
    try:
        return function.get_concrete_function(signature).structured_outputs
    except Exception as error:  # preprocessors may raise anything
        raise ValueError(
            f"The preprocessor of {model.name!r}, a "
            f"{type(model.preprocessor).__name__}, does not run in a TensorFlow graph: "
            f"{type(error).__name__}: {error!s:.300}. {_ADVICE}"
        ) from error


def _image_shape(converter, shape):
    if converter.image_size is None:
        return (None, *shape[1:])
    first = keras.config.image_data_format() == "channels_first"
    if getattr(converter, "data_format", None) is not None:
        first = converter.data_format == "channels_first"
    return (None, shape[1], None, None) if first else (None, None, None, shape[3])
