"""Test scores of a classifier, in each way that it can decide in deployment."""

import keras
import numpy as np

import tf_pseudofeat as tfpf
from tf_pseudofeat.evaluation.comparison import score_predictions
from tf_pseudofeat.sampling.counts import minority_classes

__all__ = ["SCORES", "THRESHOLDS", "logits_of", "way_scores"]

SCORES = ("recall", "precision", "f1", "macro_f1", "balanced_accuracy", "accuracy")
SCORES += ("average_precision", "roc_auc", "log_loss", "calibration_error")
THRESHOLDS = ("threshold for f1", "threshold for balanced_accuracy")


def way_scores(way, model, prior, split, validation):
    """Test scores of a classifier that decides in one way.

    Args:
        way: "as it is"; "training prior" or "uniform prior" for outputs that assume
            these class shares; one of `THRESHOLDS`, which validation data choose;
            "temperature" for the one that they choose.
        model: the classifier, from `network_of`.
        prior: the class shares that its outputs assume, or their report.
        split: `Split`.
        validation: (inputs, labels).

    Returns:
        scores: {score: number to 4 digits} of `SCORES`. "recall", "precision", "f1" and
            "average_precision" are means over the minority classes. A threshold moves
            decisions and leaves probabilities as they are.
    """
    minority = minority_classes(split.counts)
    if way.endswith("prior"):
        target = "uniform" if way.startswith("uniform") else split.counts
        model = tfpf.adjust_logits(model, prior, target_prior=target)
    logits = logits_of(model, split.test_inputs)
    predictions = tfpf.Predictions(split.test_labels, logits, "linear")
    if way == "temperature":
        found = tfpf.choose_thresholds(model, validation, temperature=True)
        no_bias = np.zeros(split.counts.size)
        predictions = predictions.shifted(no_bias, found.temperature)
    scores = score_predictions(predictions, minority)
    if way in THRESHOLDS:
        metric = way.split()[-1]
        thresholds = tfpf.choose_thresholds(
            model, validation, metric, minority=minority
        )
        decided = (predictions.class_logits + thresholds.bias).argmax(axis=1)
        scores |= tfpf.classification_scores(
            predictions.ids, decided, predictions.num_classes, minority
        )
    # The precision of a class that is never named is 0 here.
    for name in ("recall", "precision"):
        scores[name] = np.mean([scores[name][place] or 0.0 for place in minority])
    return {name: round(float(scores[name]), 4) for name in SCORES}


def logits_of(model, inputs):
    """Float64 `[N, C]`: what a network of `network_of` has before its softmax.

    Probabilities of a network that is all too sure round to 0 and 1, which ranks many
    examples alike.

    Args:
        model: the network, or one that `adjust_logits` made of it.
        inputs: `[N, D]`.
    """
    trunk = keras.Model(model.inputs[0], model.get_layer("features").output)
    *_, dense, last = model.layers
    offsets = getattr(last, "offsets", 0.0)
    kernel, bias = (dense if hasattr(last, "offsets") else last).get_weights()
    features = keras.ops.convert_to_numpy(trunk(inputs)).astype(np.float64)
    return features @ kernel + bias - offsets
