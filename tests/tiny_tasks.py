"""Tiny KerasHub tasks, made without a download, and texts for one of them."""

import keras
import numpy as np
import pytest

__all__ = ["WORDS", "image_classifier", "text_classifier", "texts_of"]

WORDS = ["a", "boring", "dull", "film", "fun", "great", "plot", "the", "was"]


def texts_of(labels):
    rng = np.random.default_rng(4)
    words = [["the", "dull", "boring", "film"], ["a", "fun", "great", "plot"]]
    rows = [rng.choice(words[k], 3 + rng.integers(3)) for k in labels]
    return np.array([" ".join(row) for row in rows])


def image_classifier(side=12):
    hub = pytest.importorskip("keras_hub", reason="the extra `test` has keras-hub")
    keras.utils.set_random_seed(1)
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(side, side, 3),
    )
    converter = hub.layers.ImageConverter(
        image_size=(side, side), scale=1 / 127.5, offset=-1.0
    )
    return hub.models.ImageClassifier(
        backbone=backbone,
        preprocessor=hub.models.ImageClassifierPreprocessor(converter),
        num_classes=3,
        activation="softmax",
        name="images",
    )


def text_classifier():
    hub = pytest.importorskip("keras_hub", reason="the extra `test` has keras-hub")
    keras.utils.set_random_seed(2)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = hub.tokenizers.BertTokenizer(special + WORDS, lowercase=True)
    return hub.models.BertTextClassifier(
        backbone=hub.models.BertBackbone(
            vocabulary_size=14,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            max_sequence_length=8,
        ),
        preprocessor=hub.models.BertTextClassifierPreprocessor(
            tokenizer, sequence_length=8
        ),
        num_classes=2,
        activation="softmax",
        name="texts",
    )
