"""Who may use the GPU."""

import keras
import tensorflow as tf

__all__ = ["leave_gpus_to_keras"]


def leave_gpus_to_keras():
    """Hides GPUs from TensorFlow where Keras computes on jax or torch.

    TensorFlow reads and samples there, and must not take the GPU's memory. Call it
    before TensorFlow computes anything.
    """
    if keras.backend.backend() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")
