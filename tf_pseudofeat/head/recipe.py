"""How a head is retrained: every choice of Steps 3 to 5 in one object."""

import dataclasses
import inspect
import math
from collections.abc import Iterable
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.arguments import check_is_object, whole_number
from tf_pseudofeat.gaussians.gaussian import ClassConditionalGaussian, check_gaussian
from tf_pseudofeat.head.adjust import check_movable, check_tau
from tf_pseudofeat.head.losses import check_loss_name
from tf_pseudofeat.head.priors import by_class, positive_shares
from tf_pseudofeat.head.task import Task
from tf_pseudofeat.head.weights import left_prior, product_layers
from tf_pseudofeat.sampling.budget import check_strategy
from tf_pseudofeat.splitting.graph import functional, layers_inside

__all__ = ["HeadRecipe", "plain"]

_PRIORS = ("uniform", "training")

# Chosen on some networks and confirmed on others, see docs/results/recipe. What the
# trunk has learned by heart teaches the head little that is new, a view does.
_BLEND_ON_VIEWS, _BLEND_AS_IT_IS = 0.2, 0.7
# What is kept of the old head follows the prior, so as much comes off, and some more.
_TAU_BEYOND_BLEND = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """How the head is retrained; every field is optional.

    Attributes:
        gaussian: a `ClassConditionalGaussian` with the settings to use, or a dict of
            its arguments; it is fitted to the features by the
            retraining. By default full covariances with "oas" shrinkage; one that all
            classes share where a class has a single example.
        sampler: an imbalanced-learn sampler to use instead of the Gaussians, such as
            `SMOTE()`. It sees features `[N, D]` and class ids.
        sampling_strategy: how many pseudo-features, see `pseudo_counts`.
        epochs: passes over real and pseudo-features; by default as many as make about
            1,000 steps, from 5 to 100.
        batch_size: B of the head's training.
        optimizer: its name, a function that makes one from the number of steps, or a
            Keras optimizer, which is used as it is and so for one retraining only. By
            default a new one of the model's own kind, see `head_optimizer`.
        loss: what `compile` takes; by default the one that the model was compiled
            with; for a model that was not, the cross-entropy that fits its last
            activation.
        fresh_head: start from new initial weights, as the paper does, and not from the
            trained ones.
        fresh_each_epoch: draw new pseudo-features in each epoch; False for the paper's
            fixed set.
        freeze_batch_norm: keep BatchNormalization layers in the head as they are.
        blend: share of the old weights in the result, 0 to 1: the mean of two heads of
            which one was trained from the other is often better than either [1]. Of 1
            nothing is trained. By default 0.2 on views, see `Extraction`, and 0.7 on
            examples as they are; 0 with a `sampler`, a `sampling_strategy`, a
            `fresh_head`, a `target_prior` or LoRA in the head.
        tau: after training, `tau * log(prior)` of all examples in the data is taken off
            the logits [2], which leans further towards what is rare. By default what
            `blend` keeps of the prior and 0.3 more: 0.3 + `blend` for a head that was
            trained on the data, less for one that was retrained and not changed since.
            Of a network trained with class weights or balanced batches nobody knows
            which prior it follows: give it tau=0. By default 0 with a `sampler`, a
            `sampling_strategy`, a `fresh_head` or a `target_prior`, where a class has
            no example, or where the logits have no bias of their own to train.
        target_prior: the class shares that the outputs assume afterwards: "uniform",
            "training" for those of the real examples, or numbers, `[C]` in the order of
            the class ids or {id: number}, a dict or pandas Series. Exact, as the
            mix that the head was trained on is known; with `blend`, where the old head
            was trained on the same examples as they are. None leaves the mix.

    Raises:
        ValueError: A value is out of its range, or two fields contradict each other.
        TypeError: A value is of the wrong kind.

    Example:

    >>> HeadRecipe(gaussian={"covariance_type": "tied"}, blend=0.5).blend
    0.5

    References:
        [1] Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022,
        arXiv 2109.01903.
        [2] Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, arXiv
        2007.07314.
    """

    gaussian: object = None
    sampler: object = None
    sampling_strategy: object = "auto"
    epochs: int | None = None
    batch_size: int = 256
    optimizer: object = None
    loss: object = None
    fresh_head: bool = False
    fresh_each_epoch: bool = True
    freeze_batch_norm: bool = True
    blend: float | None = None
    tau: float | None = None
    target_prior: object = None

    @classmethod
    def paper(cls) -> Self:
        """Exactly Konno and Iwazume (2018): singular Gaussians, a new head, one set.

        So it is trained on every example as it is.
        """
        return cls(
            gaussian={"shrinkage": 0.0},
            fresh_head=True,
            fresh_each_epoch=False,
            blend=0.0,
            tau=0.0,
        )

    def __post_init__(self):
        _check_source(self)
        for name in ("fresh_head", "fresh_each_epoch", "freeze_batch_norm"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise TypeError(
                    f"`{name}` is True or False; received {getattr(self, name)!r}."
                )
        if isinstance(self.gaussian, dict):
            self._set("gaussian", dict(self.gaussian))  # nobody else holds it
        if self.epochs is not None:
            self._set("epochs", whole_number("epochs", self.epochs))
        self._set("batch_size", whole_number("batch_size", self.batch_size))
        _check_optimizer(self.optimizer)
        if self.loss is not None:
            check_loss_name(self.loss)
        if self.blend is not None:
            _check_blend(self.blend, self.fresh_head)
            self._set("blend", float(self.blend))
        if self.tau is not None:
            self._set("tau", check_tau(self.tau))
        self._set("target_prior", _target(self.target_prior, self.tau))

    def _set(self, name, value):
        object.__setattr__(self, name, value)

    def check(self, task: Task) -> None:
        """Raises what only the `Task` tells to be wrong."""
        head, num_classes = task.head, task.num_classes
        check_strategy(self.sampling_strategy, num_classes)
        if self.tau:
            _check_movable(task, f"tau={self.tau}")
        if self.target_prior is not None:
            _check_movable(task, f"target_prior={self.target_prior!r}")
            self.target_shares(np.ones(num_classes))
        products = product_layers(head)
        if products and self.blend is not None and 0 < self.blend < 1:
            raise ValueError(
                f"blend={self.blend:g} takes the mean of old and new weights, and "
                f"layer {products[0]!r} multiplies some with each other (LoRA), whose "
                f"product would be another. Pass blend=0, or merge the layer's weights."
            )
        if self.fresh_head:
            _check_fresh(head)
        if self.fresh_head and functional(head) is None:
            raise ValueError(
                f"fresh_head=True needs a head with a graph of layers, to make a new "
                f"one from; {head.name!r} is a {type(head).__name__}. Build it as a "
                f"functional or Sequential model, or start from its trained weights."
            )
        received = self.gaussian_for(num_classes).num_classes
        if received != num_classes:
            raise ValueError(
                f"`gaussian` has {received} classes, the model "
                f"{num_classes}. Pass ClassConditionalGaussian({num_classes})."
            )

    @property
    def balances(self) -> bool:
        """Whether classes are filled up to the largest, from the trained head on."""
        return (
            self.sampler is None
            and self.sampling_strategy == "auto"
            and not self.fresh_head
        )

    def resolve(self, task: Task, material: object) -> Self:
        """The same, with numbers for `blend` and `tau` where they are None.

        Args:
            task: `Task`.
            material: `Material` that it is to be trained on.
        """
        blend, tau = self.blend, self.tau
        leans = self.balances and self.target_prior is None
        if blend is None:
            usual = _BLEND_ON_VIEWS if material.viewed else _BLEND_AS_IT_IS
            blend = usual if leans and not product_layers(task.head) else 0.0
        if tau is None:
            known = (material.population > 0).all() and task.movable
            kept = blend * _exponent(left_prior(task.head), material.population)
            tau = round(kept + _TAU_BEYOND_BLEND, 6) if leans and known else 0.0
        return dataclasses.replace(self, blend=blend, tau=tau)

    def check_weighted(self) -> None:
        """Raises where data with sample weights cannot be used."""
        if self.sampler is not None:
            raise ValueError(
                "The data have sample weights, and imbalanced-learn's samplers know "
                "none. Map them away, or use the Gaussians."
            )

    def check_prior(self, population: npt.ArrayLike) -> None:
        """Raises where a class without examples has no share to take the log of.

        Args:
            population: examples of each class `[C]`, or what they weigh.
        """
        empty = np.flatnonzero(np.equal(population, 0)).tolist()
        if empty and (self.tau or self.target_prior is not None):
            raise ValueError(
                f"`tau` and `target_prior` take off the log of each class's share of "
                f"the data, and classes {empty} have no example. Give them some, or "
                f"leave both out."
            )

    def gaussian_for(
        self, num_classes: int, examples: Iterable[int] = ()
    ) -> ClassConditionalGaussian:
        """The `ClassConditionalGaussian` to fit: the user's own, or a new one.

        Args:
            num_classes: C.
            examples: of each class in the data, `[C]`.
        """
        if isinstance(self.gaussian, ClassConditionalGaussian):
            return self.gaussian
        settings = {"num_classes": num_classes, **(self.gaussian or {})}
        if self.gaussian is None and 1 in list(examples):
            settings["covariance_type"] = "tied"
        return ClassConditionalGaussian(**settings)

    def target_shares(self, real: np.ndarray) -> np.ndarray | None:
        """`target_prior` as shares `[C]` that add up to 1; None where it is None.

        Args:
            real: real examples per class `[C]`.
        """
        if self.target_prior is None:
            return None
        named = {"uniform": np.ones(len(real)), "training": real}
        target = self.target_prior
        target = named[target] if isinstance(target, str) else target
        shares = by_class(target, len(real), "target_prior")
        return positive_shares(shares, "target_prior")

    def to_dict(self) -> dict[str, Any]:
        """The fields in plain words and numbers, objects by their names."""
        return plain(self)


def plain(value):
    """A value as JSON knows it; what is NaN or infinite is None.

    A dataclass becomes a dict of its fields; an object its name, or what it says of
    itself where it is a strategy or a sampler.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    is_data = dataclasses.is_dataclass(value)
    if hasattr(value, "get_params") or (is_data and callable(value)):
        return str(value)
    if is_data:
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    return getattr(value, "__name__", type(value).__name__)


def _exponent(prior, population):
    """The power of the data's class shares that a prior is; 1 where it is None."""
    if prior is None or not (np.array(prior) > 0).all():
        return 1.0
    data, prior = np.log(population), np.log(prior)
    data, prior = data - data.mean(), prior - prior.mean()
    return float(data @ prior / (data @ data)) if data.any() else 1.0


def _check_fresh(head):
    """Raises where a layer's kernel is not among what is trained and made anew."""
    kept = [
        layer.name
        for layer in layers_inside(head)
        if getattr(layer, "quantization_mode", None) is not None
    ]
    if kept:
        raise ValueError(
            f"fresh_head=True makes the weights anew that are trained, and layer "
            f"{kept[0]!r} is quantized: its kernel would stay. Start from the trained "
            f"head, fresh_head=False, or retrain before `quantize`."
        )


def _check_movable(task, option):
    if task.reading.meaning == "numbers":
        raise ValueError(
            f"{option} moves log-odds, and the outputs of {task.head.name!r} are none: "
            f"{task.reading.reason}. Leave it out, or train with a cross-entropy."
        )
    check_movable(task.head, option)


def _check_source(recipe):
    gaussian, sampler = recipe.gaussian, recipe.sampler
    if gaussian is not None and sampler is not None:
        raise ValueError(
            "Pass `gaussian` or `sampler`, not both: one makes the examples."
        )
    if isinstance(gaussian, dict):
        ClassConditionalGaussian(**{**gaussian, "num_classes": 1})  # raises if wrong
    elif gaussian is not None:
        check_gaussian(gaussian)
    if sampler is None:
        return
    check_is_object("sampler", sampler)
    if not hasattr(sampler, "fit_resample"):
        raise ValueError(
            f"`sampler` needs imbalanced-learn's `fit_resample(X, y)`; received "
            f"{type(sampler).__name__}."
        )
    if recipe.sampling_strategy != "auto":
        raise ValueError(
            f"`sampling_strategy` steers the Gaussians, and there is a `sampler`. Set "
            f"it there, {type(sampler).__name__}(sampling_strategy=...)."
        )


def _check_optimizer(optimizer):
    if optimizer is None or isinstance(optimizer, keras.optimizers.Optimizer):
        return
    made = getattr(optimizer, "func", optimizer)  # of a functools.partial
    if inspect.isclass(made) and issubclass(made, keras.optimizers.Optimizer):
        # It can be called, but would take the number of steps for its learning rate.
        check_is_object("optimizer", made)
    if isinstance(optimizer, str | dict):
        keras.optimizers.get(optimizer)  # raises for an unknown name
    elif isinstance(optimizer, keras.optimizers.schedules.LearningRateSchedule):
        raise TypeError(
            f"`optimizer` is a Keras optimizer; received the learning rate "
            f"{type(optimizer).__name__}. Pass an optimizer with it, such as "
            f"keras.optimizers.Adam(schedule)."
        )
    elif not callable(optimizer):
        raise TypeError(
            f"`optimizer` is a Keras optimizer, its name, or a function that makes one "
            f"from the number of steps; received {optimizer!r}."
        )


def _check_blend(blend, fresh_head):
    try:
        fits = 0 <= blend <= 1
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"`blend` is a share from 0 to 1; received {blend!r}.")
    if blend and fresh_head:
        raise ValueError(
            f"blend={blend} is a mean of the head from before and the one trained from "
            f"it; a fresh head has nothing in common with it. Choose one of the two."
        )


def _target(target, tau):
    """`target_prior`, checked; numbers as a tuple in the order of the class ids."""
    if target is None:
        return None
    if tau:
        raise ValueError(
            f"tau={tau} and `target_prior` both say what to take off the logits. "
            f"Choose one of the two."
        )
    if isinstance(target, str) and target in _PRIORS:
        return target
    if isinstance(target, str) or np.ndim(target) > 1 or not hasattr(target, "__len__"):
        raise ValueError(
            f"`target_prior` is one of {_PRIORS}, or a positive share for each class; "
            f"received {target!r}."
        )
    shares = by_class(target, len(target), "target_prior")
    positive_shares(shares, "target_prior")
    return tuple(shares.tolist())
