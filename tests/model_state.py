"""What a retraining leaves alone, as values that can be compared afterwards."""

import keras

__all__ = ["bits", "compiled_state", "layers_of", "weights"]


def bits(variables):
    """The values of variables, to the bit."""
    return [keras.ops.convert_to_numpy(variable).tobytes() for variable in variables]


def weights(model):
    """The values of all weights, to the bit."""
    return bits(model.weights)


def layers_of(model):
    """Layers and their flags as a user sees them, at any depth."""
    return [
        (layer.name, layer.trainable, id(layer), len(layer.weights))
        for layer in model._flatten_layers()
    ]


def compiled_state(model):
    """All that `compile` and `fit` gave a model, the optimizer's state included."""
    return {
        "objects": [
            id(model.optimizer),
            id(model.loss),
            [id(metric) for metric in model.metrics],
        ],
        "config": model.get_compile_config(),
        "steps_per_execution": model.steps_per_execution,
        "run_eagerly": model.run_eagerly,
        "jit_compile": model.jit_compile,
        "stop_training": model.stop_training,
        "optimizer": bits(model.optimizer.variables),
        "metrics": bits(v for metric in model.metrics for v in metric.variables),
    }
