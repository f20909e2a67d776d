"""The residual networks for small images of He et al. (2015), section 4.2.

References:
    He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
    arXiv 1512.03385.
"""

import keras

__all__ = ["compiled_resnet", "resnet"]


def resnet(depth, image_shape, num_classes):
    """A CIFAR-style residual network: 6n + 2 layers, 16, 32 and 64 filters.

    The layer `features` (global average pooling, 64 values) feeds the classifier.
    Shortcuts have no weights (option A of the paper). Pixels come in as they are
    stored and are scaled inside, so that what is served takes images.

    Args:
        depth: 20, 32, 44, 56, 110 or any other 6n + 2.
        image_shape: `(height, width, channels)`.
        num_classes: C.

    Returns:
        model: Keras model, uint8 images `[B, height, width, channels]` ->
        probabilities `[B, C]`.

    Raises:
        ValueError: `depth` is not 6n + 2.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(
            f"A residual network of this kind has 6n + 2 layers (8, 14, 20, 32, 44, "
            f"56, 110); received depth {depth}."
        )
    image = keras.Input(image_shape, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scale_pixels")(image)
    x = _convolution(x, 16, 1, "stem")
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            x = _residual_block(
                x, filters, stride, f"stage{stage + 1}_block{block + 1}"
            )
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    x = keras.layers.Dense(
        num_classes, activation="softmax", dtype="float32", name="classifier"
    )(x)
    return keras.Model(image, x, name=f"resnet{depth}")


def compiled_resnet(depth, images, learning_rate, steps):
    """The network for a set of images, ready for `fit`.

    Args:
        depth: layers, 6n + 2.
        images: `ImbalancedImages`, for shapes and classes.
        learning_rate: of Adam at the start; it decays to zero along a cosine.
        steps: training steps.

    Returns:
        model: compiled Keras model. Its loss is scaled where it computes in float16.
    """
    model = resnet(depth, images.train_images.shape[1:], images.num_classes)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    # otherwise TensorFlow traces the first step twice
    model.optimizer.build(model.trainable_variables)
    return model


def _convolution(x, filters, stride, name, activation="relu"):
    x = keras.layers.Conv2D(
        filters,
        3,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    if activation is None:
        return x
    return keras.layers.Activation(activation, name=f"{name}_{activation}")(x)


def _residual_block(x, filters, stride, name):
    shortcut = x
    if stride > 1:
        shortcut = keras.layers.AveragePooling2D(1, strides=stride)(shortcut)
        missing = filters - shortcut.shape[-1]
        shortcut = keras.ops.pad(shortcut, [(0, 0), (0, 0), (0, 0), (0, missing)])
    x = _convolution(x, filters, stride, f"{name}_1")
    x = _convolution(x, filters, 1, f"{name}_2", activation=None)
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)
