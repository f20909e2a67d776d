"""`fit_head` with everything as keywords, for tests that vary one of them."""

import numpy as np

import tf_pseudofeat as tfpf

__all__ = ["fit", "score"]


def fit(
    head,
    training,
    scoring=None,
    *,
    num_classes,
    loss="sparse_categorical_crossentropy",
    gaussian=None,
    counts=None,
    threshold=None,
    strategy=None,
    monitor=None,
    seed=(1, 2),
    verbose=0,
    real=None,
    **recipe,
):
    """Trains `head` on `LabeledFeatures` and draws of `gaussian`; see `fit_head`.

    Nothing of the old head is kept, and nothing taken off, unless a test asks for it.
    """
    task = tfpf.Task(head, num_classes, loss, threshold, strategy)
    if real is None:
        real = training.class_counts(num_classes)
    return tfpf.fit_head(
        task,
        tfpf.Material(training, np.asarray(real), gaussian, counts),
        tfpf.HeadRecipe(**{"blend": 0.0, "tau": 0.0, **recipe}),
        scoring=scoring,
        monitor=monitor,
        seed=seed,
        verbose=verbose,
    )


def score(head, data, num_classes, minority):
    """`classification_scores` of a head on `LabeledFeatures`."""
    return tfpf.Task(head, num_classes, "mse").score(data, minority)
