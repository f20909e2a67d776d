"""The search for settings, on features that were extracted once."""

import dataclasses
import time
import warnings

import keras
import numpy as np

from tf_pseudofeat.activation import output_activation
from tf_pseudofeat.adjust import final_dense, logits_behind
from tf_pseudofeat.blend import blend_weights, weights_of
from tf_pseudofeat.budget import (
    class_counts,
    minority_classes,
    multiply_minority,
    pseudo_counts,
)
from tf_pseudofeat.features import concatenate
from tf_pseudofeat.gaussian import ClassConditionalGaussian
from tf_pseudofeat.head import fit_head, head_outputs, restored_unless_kept
from tf_pseudofeat.labelled import LabelledFeatures
from tf_pseudofeat.labels import class_ids
from tf_pseudofeat.scores import class_recalls
from tf_pseudofeat.seeds import numbers_for
from tf_pseudofeat.stored import StoredArray

__all__ = ["Trial", "Tuning", "search_settings"]

# The first value of each is where the search begins.
_SPACE = {
    "on_views": (True, False),
    "multiply_minority": (None, 20, 50),
    "covariance_scale": (1.0, 2.0),
    "covariance_type": ("full", "tied", "diag"),
    "shrinkage": ("oas", 0.0),
    "fresh_head": (False, True),
}
# These two cost no training: every trained head is judged with all of them.
_BLENDS = (0.5, 0.0)
_TAUS = (0.0, 0.15, 0.3, 0.5, 0.65, 0.8, 1.0, 1.25)
# A trunk this sure of its training data has learned them by heart.
_MEMORISED = 0.98
_HELD_OUT = 0.2
_ROWS = 10  # of the table that is printed


@dataclasses.dataclass(frozen=True)
class Trial:
    """One combination of settings, and what it did on the data to judge by.

    Attributes:
        settings: {name: value}, see `Tuning.keywords`.
        balanced_accuracy: mean of the class recalls.
        standard_error: of it, from the number of examples of each class.
        minority_recall: mean recall of the minority classes.
        seconds: wall-clock time of the training.
    """

    settings: dict
    balanced_accuracy: float
    standard_error: float
    minority_recall: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What was tried and what was chosen; prints as a table.

    Attributes:
        chosen: settings {name: value}.
        judged_on: "validation data", "a held-out view", "held-out features" or
            "nothing".
        trials: list of `Trial`, in the order they were made.
        seconds: wall-clock time of the search.
        complete: whether the budget of time sufficed for the whole search.
    """

    chosen: dict
    judged_on: str
    trials: list[Trial]
    seconds: float
    complete: bool

    def keywords(self, num_classes):
        """The chosen settings as arguments of `retrain_head`, apart from the data's.

        `on_views` is not among them: where it is False, leave `augment` out.
        """
        multiplier = self.chosen["multiply_minority"]
        return {
            "gaussian": ClassConditionalGaussian(
                num_classes,
                covariance_type=self.chosen["covariance_type"],
                shrinkage=self.chosen["shrinkage"],
                covariance_scale=self.chosen["covariance_scale"],
            ),
            "sampling_strategy": multiply_minority(multiplier)
            if multiplier
            else "auto",
            "fresh_head": self.chosen["fresh_head"],
            "blend": self.chosen["blend"],
            "tau": self.chosen["tau"],
        }

    def __str__(self):
        rows = [
            f"Judged on {self.judged_on}; {len(self.trials)} combinations tried in "
            f"{self.seconds:.0f} s; * is chosen, the best {_ROWS} are shown."
        ]
        rows.append(f"{'balanced':>9} {'+-':>5} {'minority':>9}  settings")
        best = sorted(self.trials, key=lambda trial: -trial.balanced_accuracy)
        shown = best[:_ROWS]
        shown += [t for t in best[_ROWS:] if t.settings == self.chosen]
        for trial in shown:
            mark = "*" if trial.settings == self.chosen else " "
            rows.append(
                f"{100 * trial.balanced_accuracy:>8.1f}{mark} "
                f"{100 * trial.standard_error:>5.1f} "
                f"{100 * trial.minority_recall:>9.1f}  {_unlike_default(trial)}"
            )
        return "\n".join(rows)


def search_settings(
    head,
    plain,
    views=(),
    validation=None,
    *,
    loss,
    num_classes,
    optimizer=None,
    threshold=0.5,
    time_budget=60.0,
    batch_size=256,
    epochs=None,
    seed=(1, 2),
    strategy=None,
):
    """Chooses settings by balanced accuracy on data that the head was not trained on.

    One setting after the other is varied, from the defaults on, and kept where it is
    better. `blend` and `tau` are free: every trained head is judged with all of their
    values.

    Without validation data a view that was held out stands for new data, because a
    trunk that has memorised its images has not memorised that view. It is a weaker
    judge, so three things differ. A setting is changed only for a gain of more than one
    standard error. The heads that are judged have seen other views of the same images,
    and the one from before has not, so what is kept of it cannot be judged: `blend` is
    a half, and no fresh head is tried. And the trunk has seen the rare images and
    flatters them, so that of all `tau` within one standard error of the best, the one
    with the highest recall of the minority is taken. Without views of a trunk that is
    right on 98 % of its training data nothing can be learned, and the defaults are
    kept, with a warning.

    Args:
        head: Keras model; it has its weights back afterwards.
        plain: `LabelledFeatures` of the data as they are.
        views: list of `LabelledFeatures` of the same data, augmented.
        validation: `LabelledFeatures` to judge by, or None.
        loss: what `compile` takes.
        num_classes: C.
        optimizer: a function that makes one from the number of steps, see `fit_head`.
        threshold: of outputs `[B, 1]`.
        time_budget: seconds after which no further head is trained.
        batch_size: see `fit_head`.
        epochs: see `fit_head`.
        seed: two whole numbers.
        strategy: a `tf.distribute` strategy, or None.

    Returns:
        tuning: `Tuning`.
    """
    began = time.perf_counter()
    real = class_counts(plain.labels, num_classes)
    judge = _Judge(head, real, num_classes, threshold)
    materials, judged, judged_on = _parts(judge, plain, views, validation, seed)
    start = {name: values[0] for name, values in _SPACE.items()}
    start["on_views"] = True in materials
    if judged is None:
        warnings.warn(
            "The settings were left at their defaults: the trunk is right on "
            f"{100 * _MEMORISED:g} % or more of the training data, so they cannot tell "
            "settings apart. Pass `validation_data`, or `augment` for views of them.",
            stacklevel=2,
        )
        return Tuning({**start, "blend": 0.0, "tau": 0.0}, judged_on, [], 0.0, True)
    blends = _BLENDS if validation is not None else _BLENDS[:1]
    untold = () if validation is not None else ("fresh_head",)
    old = weights_of(head)

    def trials_of(settings):
        stage = time.perf_counter()
        material = materials[settings["on_views"]]
        with restored_unless_kept(head):
            fit = _fit(head, material, judged, settings, common)
            seconds = time.perf_counter() - stage
            trials, new = [], weights_of(head)
            for blend in (0.0,) if settings["fresh_head"] else blends:
                blend_weights(head, old, new, blend)
                blended = {**settings, "blend": blend}
                trials += judge.trials(judged, blended, seconds)
            return trials if fit.kept else []

    common = {
        "loss": loss,
        "num_classes": num_classes,
        "minority": judge.minority,
        "threshold": threshold,
        "batch_size": batch_size,
        "epochs": epochs,
        "seed": seed,
        "strategy": strategy,
        "verbose": 0,
        "optimizer": optimizer,
    }
    trials, complete = trials_of(start), True
    chosen, best = start, _best(trials)
    for name, values in _SPACE.items():
        if name in untold or (name == "on_views" and len(materials) == 1):
            continue
        for value in values[1:]:
            if time.perf_counter() - began > time_budget:
                complete = False
                break
            tried = trials_of({**chosen, name: value})
            trials += tried
            if _better(_best(tried), best, lean=validation is None):
                chosen, best = {**chosen, name: value}, _best(tried)
    if validation is None:
        best = _leaning(trials, chosen, best)
    chosen = best.settings if best else {**start, "blend": 0.0, "tau": 0.0}
    seconds = time.perf_counter() - began
    return Tuning(chosen, judged_on, trials, seconds, complete)


def _unlike_default(trial):
    defaults = {name: values[0] for name, values in _SPACE.items()}
    defaults |= {"blend": 0.0, "tau": 0.0}
    words = [f"{k}={v}" for k, v in trial.settings.items() if v != defaults.get(k)]
    return ", ".join(words) or "defaults"


def _parts(judge, plain, views, validation, seed):
    """What to train on {on_views: features}, what to judge by, and its name."""
    if validation is not None:
        judged, judged_on = validation, "validation data"
    elif views:
        *views, judged = views
        judged_on = "a held-out view"
    elif judge.trials(plain, {}, 0.0)[0].balanced_accuracy >= _MEMORISED:
        return {}, None, "nothing"
    else:
        held_out = _held_out(class_ids(plain.labels), seed)
        judged, plain = _rows(plain, held_out), _rows(plain, ~held_out)
        judged_on = "held-out features"
    materials = {False: plain}
    if views:
        materials[True] = concatenate([plain, *views])
    return materials, judged, judged_on


def _held_out(ids, seed):
    """A fifth of each class, but always one example to train on."""
    order = numbers_for("held-out rows", seed).permutation(ids.size)
    rank = np.zeros(ids.size, int)
    for class_id in np.unique(ids):
        members = order[ids[order] == class_id]
        rank[members] = np.arange(members.size)
    return rank < np.floor(_HELD_OUT * np.bincount(ids)[ids])


def _rows(extracted, rows):
    features, weight = extracted.features, extracted.sample_weight
    stored = isinstance(features, StoredArray)
    return LabelledFeatures(
        features.select(rows) if stored else features[rows],
        extracted.labels[rows],
        None if weight is None else weight[rows],
    )


def _fit(head, material, judged, settings, common):
    gaussian = ClassConditionalGaussian(
        common["num_classes"],
        covariance_type=settings["covariance_type"],
        shrinkage=settings["shrinkage"],
        covariance_scale=settings["covariance_scale"],
    )
    gaussian.adapt(material.features, material.labels)
    multiplier = settings["multiply_minority"]
    strategy = multiply_minority(multiplier) if multiplier else "auto"
    return fit_head(
        head,
        material,
        judged,
        gaussian=gaussian,
        counts=pseudo_counts(material.labels, strategy),
        fresh_head=settings["fresh_head"],
        **common,
    )


class _Judge:
    """Scores a head with every tau at the cost of one."""

    def __init__(self, head, real, num_classes, threshold):
        self.head, self.num_classes = head, num_classes
        self.minority = minority_classes(real)
        self.activation = output_activation(head)
        self.threshold = threshold
        movable = final_dense(head) is not None and real.all()
        self.taus = _TAUS if movable else (0.0,)
        self.log_prior = np.log(np.maximum(real, 1) / real.sum())

    def trials(self, judged, settings, seconds):
        by_tau = [[] for _ in self.taus]
        for outputs in head_outputs(self.head, judged.features):
            outputs = outputs.astype(np.float64)
            for tau, predicted in zip(self.taus, by_tau, strict=True):
                predicted.append(self._predicted(outputs, tau).astype(np.int32))
        ids = class_ids(judged.labels)
        total = np.bincount(ids, minlength=self.num_classes)
        trials = []
        for tau, predicted in zip(self.taus, by_tau, strict=True):
            predicted = np.concatenate(predicted)
            recalls = class_recalls(ids, predicted, self.num_classes)
            variance = recalls * (1 - recalls) / np.maximum(total, 1)
            trials.append(
                Trial(
                    {**settings, "tau": tau},
                    float(np.nanmean(recalls)),
                    float(np.sqrt(np.nansum(variance)) / np.sum(total > 0)),
                    float(np.nanmean(recalls[self.minority])),
                    seconds,
                )
            )
        return trials

    def _predicted(self, outputs, tau):
        if outputs.shape[-1] > 1 and not tau:
            return outputs.argmax(axis=-1)
        if not tau:
            return (outputs[:, 0] > self.threshold).astype(int)
        logits = logits_behind(outputs, self.activation)
        logits = keras.ops.convert_to_numpy(logits)
        if outputs.shape[-1] > 1:
            return (logits - tau * self.log_prior).argmax(axis=-1)
        shift = tau * (self.log_prior[1] - self.log_prior[0])
        return (logits[:, 0] > shift).astype(int)


def _best(trials):
    return max(trials, key=lambda trial: trial.balanced_accuracy, default=None)


def _better(new, best, lean):
    """Whether a setting is worth changing; by more than chance where views judge."""
    if new is None or best is None:
        return new is not None
    margin = best.standard_error if lean else 0.0
    return new.balanced_accuracy > best.balanced_accuracy + margin


def _leaning(trials, chosen, best):
    """Of those as good as the best, with the same head, what finds most rare ones."""
    if best is None:
        return None
    least = best.balanced_accuracy - best.standard_error
    as_good = [
        trial
        for trial in trials
        if trial.balanced_accuracy >= least and chosen.items() <= trial.settings.items()
    ]
    return max(as_good, key=lambda trial: trial.minority_recall)
