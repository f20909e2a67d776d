"""How fast a training went, and what it waited for.

Images a second say little by themselves. Here they stand beside the arithmetic that
they need, what a matrix product reaches on the same device, and what the input gives
when no network waits for it.
"""

import dataclasses
import time

import keras
import numpy as np

__all__ = ["EpochTimes", "Pace", "input_rate", "matmul_rate", "training_flops"]


@dataclasses.dataclass(frozen=True)
class Pace:
    """What a training and a retraining took.

    Attributes:
        images: in an epoch.
        epoch_seconds: of one epoch, the median of those timed.
        epochs_timed: how many; not the first, which compiles, where there is another.
        flops_per_image: of a training step, forward and back.
        matmul_flops: a second, that a matrix product reaches on the device.
        dtype: of that product, the one that the network computes in.
        input_rate: images a second that the input gives by itself.
        retraining_seconds: of Steps 2 to 6.
    """

    images: int
    epoch_seconds: float
    epochs_timed: int
    flops_per_image: float
    matmul_flops: float
    dtype: str
    input_rate: float
    retraining_seconds: float

    @property
    def images_per_second(self):
        """Of the training."""
        return self.images / self.epoch_seconds

    @property
    def share_of_matmul(self):
        """Of what the device can do in matrix products, from 0 to 1."""
        return self.images_per_second * self.flops_per_image / self.matmul_flops

    def to_dict(self):
        """Plain numbers and words."""
        derived = {
            "images_per_second": self.images_per_second,
            "share_of_matmul": self.share_of_matmul,
        }
        return {**dataclasses.asdict(self), **derived}

    def __str__(self):
        if self.input_rate < 1.2 * self.images_per_second:
            waits = "training waits for it"
        else:
            waits = f"{self.input_rate / self.images_per_second:.1f} x the training"
        ratio = self.retraining_seconds / self.epoch_seconds
        return (
            f"Training: {self.images_per_second:,.0f} images/s, "
            f"{self.epoch_seconds:.3g} s an epoch (median of {self.epochs_timed}).\n"
            f"Arithmetic: {self.flops_per_image / 1e9:.3g} GFLOP an image, "
            f"{self.images_per_second * self.flops_per_image / 1e12:.3g} TFLOP/s, "
            f"{self.share_of_matmul:.1%} of the {self.matmul_flops / 1e12:.3g} that a "
            f"product of {self.dtype} matrices reaches.\n"
            f"Input by itself: {self.input_rate:,.0f} images/s, {waits}.\n"
            f"Retraining: {self.retraining_seconds:.3g} s, {ratio:.3g} x an epoch."
        )


class EpochTimes(keras.callbacks.Callback):
    """Measures epochs; put it first, so that no other callback is measured with it.

    Attributes:
        seconds: of each epoch of the last `fit`.
    """

    def __init__(self):
        super().__init__()
        self.seconds = []
        self._began = None

    def on_train_begin(self, logs=None):
        """Forgets an earlier `fit`."""
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Waits until the device is done, and stops the clock."""
        for value in (logs or {}).values():
            float(value)
        self.seconds.append(time.perf_counter() - self._began)

    def typical(self):
        """`(seconds, epochs timed)`: the median, without the first, which compiles."""
        timed = self.seconds[1:] or self.seconds
        return float(np.median(timed)), len(timed)


def training_flops(model):
    """Floating-point operations of a training step, for one example.

    Counted are products and sums of convolutions and dense layers: once forward, and
    twice back, for the gradients of inputs and of weights. All else is small beside it.

    Args:
        model: Keras model of layers with one output each.

    Returns:
        flops: 6 for each product.
    """
    flops = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            flops += training_flops(layer)
        elif hasattr(layer, "kernel"):
            places = layer.output.shape[1:-1]  # each takes the whole kernel once
            flops += 6 * int(np.prod(places)) * int(np.prod(layer.kernel.shape))
    return flops


def matmul_rate(dtype="float32", seconds=0.5, largest=8192, in_a_row=1):
    """Floating-point operations a second of a product of square matrices.

    What the device can reach, in the easiest case there is; measured and not looked up.

    Args:
        dtype: of the matrices.
        seconds: to measure for, about.
        largest: side to go to, in steps of a factor of two, until a product takes 10
            ms.
        in_a_row: products between two waits for the device. More than one hides what
            a wait costs, on a device where a product takes a millisecond.

    Returns:
        flops: a second, at the fastest of several.
    """
    size = 256
    while True:
        square = keras.ops.cast(keras.random.uniform((size, size)), dtype)
        _seconds_of_product(square)  # begins a library, perhaps compiles
        took = _seconds_of_product(square, in_a_row)
        if took > 0.01 or size >= largest:
            break
        size *= 2
    rounds = min(max(3, int(seconds / took / in_a_row)), 1000)
    times = [_seconds_of_product(square, in_a_row) for _ in range(rounds)]
    return 2 * size**3 / min(took, *times)


def _seconds_of_product(square, in_a_row=1):
    began = time.perf_counter()
    for _ in range(in_a_row):
        product = keras.ops.matmul(square, square)
    keras.ops.convert_to_numpy(product[0, 0])
    return (time.perf_counter() - began) / in_a_row


def input_rate(stream, seconds=2.0):
    """Examples a second of a `tf.data` stream that nobody else waits for.

    Args:
        stream: finite dataset of `(x, y)` batches.
        seconds: to read for, about; at least one batch, at most one epoch.

    Returns:
        rate: examples a second.
    """
    began, read = time.perf_counter(), 0
    for _, labels in stream:
        read += len(labels)
        if time.perf_counter() - began > seconds:
            break
    return read / (time.perf_counter() - began)
