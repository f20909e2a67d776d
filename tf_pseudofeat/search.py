"""The search for settings, on features that were extracted once."""

import dataclasses
import time
import warnings

import keras
import numpy as np

from tf_pseudofeat.activation import output_activation
from tf_pseudofeat.adjust import final_dense, logits_behind
from tf_pseudofeat.budget import minority_classes, multiply_minority
from tf_pseudofeat.head import fit_head
from tf_pseudofeat.labeled import LabeledFeatures
from tf_pseudofeat.material import prepare_material
from tf_pseudofeat.recipe import HeadRecipe
from tf_pseudofeat.scores import class_recalls
from tf_pseudofeat.seeds import numbers_for
from tf_pseudofeat.task import predicted_classes
from tf_pseudofeat.weights import blend_weights, restored_unless_kept, weights_of

__all__ = ["Trial", "Tuning", "search_recipe"]

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
# A trunk this sure of its training data has memorized them.
_MEMORIZED = 0.98
_HELD_OUT = 0.2
_ROWS = 10  # of the table that is printed


@dataclasses.dataclass(frozen=True)
class Trial:
    """One combination of settings, and what it did on the data to judge by.

    Attributes:
        settings: {name: value}: how the recipe was changed, and on which features.
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
        recipe: the `HeadRecipe` that was chosen.
        chosen: its settings {name: value}; where "on_views" is False, the features of
            the data as they are were better than those of augmented views.
        judged_on: "validation data", "a held-out view", "held-out features" or
            "nothing".
        trials: list of `Trial`, in the order they were made.
        seconds: wall-clock time of the search.
        complete: whether the budget of time sufficed for the whole search.
    """

    recipe: HeadRecipe
    chosen: dict
    judged_on: str
    trials: list[Trial]
    seconds: float
    complete: bool

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


def search_recipe(
    task,
    plain,
    views=(),
    validation=None,
    *,
    recipe=None,
    time_budget=60.0,
    seed=(1, 2),
):
    """Chooses a recipe by balanced accuracy on data that the head was not trained on.

    One setting after the other is varied, from the defaults on, and kept where it is
    better. `blend` and `tau` are free: every trained head is judged with all of their
    values.

    Without validation data a view that was held out stands for new data, because a
    trunk that has memorized its images has not memorized that view. It is a weaker
    judge, so three things differ. A setting is changed only for a gain of more than one
    standard error. The heads that are judged have seen other views of the same images,
    and the one from before has not, so what is kept of it cannot be judged: `blend` is
    a half, and no fresh head is tried. And the trunk has seen the rare images and
    flatters them, so that of all `tau` within one standard error of the best, the one
    with the highest recall of the minority is taken. Without views of a trunk that is
    right on 98 % of its training data nothing can be learned, and the defaults are
    kept, with a warning.

    Args:
        task: `Task`; its head has its weights back afterwards.
        plain: `LabeledFeatures` of the data as they are.
        views: list of `LabeledFeatures` of the same data, augmented.
        validation: `LabeledFeatures` to judge by, or None.
        recipe: `HeadRecipe` with what is not searched for, such as `batch_size`.
        time_budget: seconds after which no further head is trained.
        seed: two whole numbers.

    Returns:
        tuning: `Tuning`.
    """
    began, recipe = time.perf_counter(), recipe or HeadRecipe()
    judge = _Judge(task, plain.class_counts(task.num_classes))
    materials, judged, judged_on = _parts(judge, plain, views, validation, seed)
    start = {name: values[0] for name, values in _SPACE.items()}
    start["on_views"] = True in materials
    unchanged = {**start, "blend": 0.0, "tau": 0.0}
    if judged is None:
        warnings.warn(
            "The settings were left at their defaults: the trunk is right on "
            f"{100 * _MEMORIZED:g} % or more of the training data, so they cannot tell "
            "settings apart. Pass `validation_data`, or `augment` for views of them.",
            stacklevel=2,
        )
        kept = _changed(recipe, unchanged)
        return Tuning(kept, unchanged, judged_on, [], 0.0, True)
    blends = _BLENDS if validation is not None else _BLENDS[:1]
    untold = () if validation is not None else ("fresh_head",)
    head = task.head
    old = weights_of(head)

    def trials_of(settings):
        stage = time.perf_counter()
        with restored_unless_kept(head):
            tried = _changed(recipe, settings)
            features = materials[settings["on_views"]]
            material = prepare_material(features, tried, task.num_classes)
            fit = fit_head(task, material, tried, seed=seed, verbose=0)
            seconds = time.perf_counter() - stage
            trials, new = [], weights_of(head)
            for blend in (0.0,) if settings["fresh_head"] else blends:
                blend_weights(head, old, new, blend)
                blended = {**settings, "blend": blend}
                trials += judge.trials(judged, blended, seconds)
            return trials if fit.kept else []

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
    chosen = best.settings if best else unchanged
    seconds = time.perf_counter() - began
    recipe = _changed(recipe, chosen)
    return Tuning(recipe, chosen, judged_on, trials, seconds, complete)


def _changed(recipe, settings):
    """The recipe with the settings of a trial."""
    multiplier = settings["multiply_minority"]
    names = ("covariance_type", "shrinkage", "covariance_scale")
    return dataclasses.replace(
        recipe,
        gaussian={name: settings[name] for name in names},
        sampling_strategy=multiply_minority(multiplier) if multiplier else "auto",
        fresh_head=settings["fresh_head"],
        blend=settings.get("blend", 0.0),
        tau=settings.get("tau", 0.0),
    )


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
    elif judge.trials(plain, {}, 0.0)[0].balanced_accuracy >= _MEMORIZED:
        return {}, None, "nothing"
    else:
        held_out = _held_out(plain.ids, seed)
        judged, plain = plain.select(held_out), plain.select(~held_out)
        judged_on = "held-out features"
    materials = {False: plain}
    if views:
        materials[True] = LabeledFeatures.concatenate([plain, *views])
    return materials, judged, judged_on


def _held_out(ids, seed):
    """A fifth of each class, but always one example to train on."""
    order = numbers_for("held-out rows", seed).permutation(ids.size)
    rank = np.zeros(ids.size, int)
    for class_id in np.unique(ids):
        members = order[ids[order] == class_id]
        rank[members] = np.arange(members.size)
    return rank < np.floor(_HELD_OUT * np.bincount(ids)[ids])


class _Judge:
    """Scores a head with every tau at the cost of one."""

    def __init__(self, task, real):
        self.task, self.minority = task, minority_classes(real)
        self.activation = output_activation(task.head)
        movable = final_dense(task.head) is not None and real.all()
        self.taus = _TAUS if movable else (0.0,)
        self.log_prior = np.log(np.maximum(real, 1) / real.sum())

    def trials(self, judged, settings, seconds):
        by_tau = [[] for _ in self.taus]
        for outputs in self.task.outputs(judged.features):
            outputs = outputs.astype(np.float64)
            for tau, predicted in zip(self.taus, by_tau, strict=True):
                predicted.append(self._predicted(outputs, tau).astype(np.int32))
        total = judged.class_counts(self.task.num_classes)
        trials = []
        for tau, predicted in zip(self.taus, by_tau, strict=True):
            predicted = np.concatenate(predicted)
            recalls = class_recalls(judged.ids, predicted, self.task.num_classes)
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
        if not tau:
            return predicted_classes(outputs, self.task.threshold)
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
