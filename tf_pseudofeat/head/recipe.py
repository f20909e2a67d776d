"""The options of Steps 3 to 5: how a head is retrained."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.validation import whole_number
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.head.assumed_prior import check_tau
from tf_pseudofeat.head.losses import check_loss_name
from tf_pseudofeat.head.plain_values import plain
from tf_pseudofeat.head.priors import by_class, positive_shares
from tf_pseudofeat.head.recipe_checks import (
    check_blend,
    check_fresh,
    check_optimizer,
    check_source,
    check_task_logit_bias,
    resolve_prior,
    resolve_target_prior,
)
from tf_pseudofeat.head.task import Task
from tf_pseudofeat.head.weights import product_layers, recorded_prior
from tf_pseudofeat.sampling.counts import check_strategy
from tf_pseudofeat.splitting.graph import functional

__all__ = ["HeadRecipe"]

# Chosen on some networks and confirmed on others, see docs/results/recipe.
# Memorized examples teach the head little, views more.
_BLEND_ON_VIEWS, _BLEND_AS_IT_IS = 0.2, 0.7
# The old head's part follows the prior, so as much is subtracted, plus this.
_TAU_BEYOND_BLEND = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """How the head is retrained; every field is optional.

    Attributes:
        gaussian: a `ClassConditionalGaussian` with the settings to use, or a dict of
            its arguments; it is fitted to the features. By default full covariances
            with "oas" shrinkage, or a shared covariance if a class has a single
            example.
        sampler: an imbalanced-learn sampler to use instead of the Gaussians, such as
            `SMOTE()`. It gets features `[N, D]` and class ids.
        sampling_strategy: the numbers of pseudo-features, see `pseudo_counts`.
        epochs: passes over real and pseudo-features; by default about 1,000 steps, from
            5 to 100 epochs.
        batch_size: batch size of the head's training.
        optimizer: its name, a function that makes one from the number of steps, or a
            Keras optimizer, which can be used for one retraining only. By default a new
            one like the model's, see `head_optimizer`.
        loss: what `compile` takes; by default the loss that the model was compiled
            with, or the cross-entropy that fits its last activation.
        fresh_head: whether to start from new initial weights, as the paper does,
            instead of the trained ones.
        fresh_each_epoch: whether to draw new pseudo-features in each epoch; False for
            the paper's fixed set.
        freeze_batch_norm: whether to freeze BatchNormalization layers in the head.
        blend: weight of the old head in the result, 0 to 1: the average of a head and
            one that was fine-tuned from it is often better than either [1]. With 1
            nothing is trained. By default 0.2 on views, see `Extraction`, and 0.7
            without views; 0 with a `sampler`, a `sampling_strategy`, a
            `fresh_head`, a `target_prior` or LoRA in the head.
        tau: after training, `tau * log(prior)` is subtracted from the logits [2], with
            the prior of all the data, which favors rare classes. By default 0.3 plus
            the part of the prior that `blend` keeps: 0.3 + `blend` for a head that was
            trained on the data, less for one that assumes another `prior`. By default 0
            with a `sampler`, a `sampling_strategy`, a `fresh_head` or a `target_prior`,
            if a class has no example, or if the logits have no trainable bias.
        prior: the class shares that the outputs assume before the retraining:
            "training", "uniform", numbers like `target_prior`, or the report of an
            earlier retraining. By default those of the training data; for a model
            that was retrained in this process and has not changed since, those of that
            retraining. A saved model does not know them: pass `report.prior`. For one
            that was trained with class weights or balanced batches pass "uniform", or
            tau=0.
        target_prior: the class shares that the outputs should assume: "uniform",
            "training" for those of the real examples, or numbers, `[C]` in the order of
            the class ids or {id: number}, a dict or pandas Series. This is exact, since
            the training mix is known; with `blend`, if the old head was trained on the
            same examples. None does not change the prior.

    Raises:
        ValueError: If a value is out of range, or two fields contradict each other.
        TypeError: If a value has the wrong type.

    Examples:
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
    prior: object = None
    target_prior: object = None

    @classmethod
    def paper(cls) -> Self:
        """The recipe of Konno and Iwazume (2018).

        Sample covariances without shrinkage, a new head, one fixed set of
        pseudo-features, and all examples without views.
        """
        return cls(
            gaussian={"shrinkage": 0.0},
            fresh_head=True,
            fresh_each_epoch=False,
            blend=0.0,
            tau=0.0,
        )

    def __post_init__(self):
        check_source(self)
        for name in ("fresh_head", "fresh_each_epoch", "freeze_batch_norm"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise TypeError(
                    f"`{name}` must be True or False; received {getattr(self, name)!r}."
                )
        if isinstance(self.gaussian, dict):
            self._set("gaussian", dict(self.gaussian))  # a copy
        if self.epochs is not None:
            self._set("epochs", whole_number("epochs", self.epochs))
        self._set("batch_size", whole_number("batch_size", self.batch_size))
        check_optimizer(self.optimizer)
        if self.loss is not None:
            check_loss_name(self.loss)
        if self.blend is not None:
            check_blend(self.blend, self.fresh_head)
            self._set("blend", float(self.blend))
        if self.tau is not None:
            self._set("tau", check_tau(self.tau))
        self._set("prior", resolve_prior(self.prior, "prior"))
        self._set("target_prior", resolve_target_prior(self.target_prior, self.tau))

    def _set(self, name, value):
        object.__setattr__(self, name, value)

    def check(self, task: Task) -> None:
        """Raises if the recipe does not fit the `Task`."""
        head, num_classes = task.head, task.num_classes
        check_strategy(self.sampling_strategy, num_classes)
        if self.tau:
            check_task_logit_bias(task, f"tau={self.tau}")
        if self.target_prior is not None:
            check_task_logit_bias(task, f"target_prior={self.target_prior!r}")
        for name in ("prior", "target_prior"):
            self._shares(name, np.ones(num_classes))
        products = product_layers(head)
        if products and self.blend is not None and 0 < self.blend < 1:
            raise ValueError(
                f"blend={self.blend:g} averages old and new weights, but layer "
                f"{products[0]!r} multiplies weights with each other (LoRA). Pass "
                f"blend=0, or merge the layer's weights."
            )
        if self.fresh_head:
            check_fresh(head)
        if self.fresh_head and functional(head) is None:
            raise ValueError(
                f"fresh_head=True needs a head with a graph of layers; {head.name!r} "
                f"is a {type(head).__name__}. Build it as a functional or Sequential "
                f"model, or start from its trained weights."
            )
        received = self.gaussian_for(num_classes).num_classes
        if received != num_classes:
            raise ValueError(
                f"`gaussian` has {received} classes, but the model {num_classes}. Pass "
                f"ClassConditionalGaussian({num_classes})."
            )

    @property
    def balances(self) -> bool:
        """Whether classes are balanced, starting from the trained head."""
        return (
            self.sampler is None
            and self.sampling_strategy == "auto"
            and not self.fresh_head
        )

    def resolve(self, task: Task, material: object) -> Self:
        """Replaces `blend` and `tau` by numbers if they are None.

        Args:
            task: `Task`.
            material: `Material` to train on.
        """
        blend, tau = self.blend, self.tau
        leans = self.balances and self.target_prior is None
        if blend is None:
            usual = _BLEND_ON_VIEWS if material.viewed else _BLEND_AS_IT_IS
            blend = usual if leans and not product_layers(task.head) else 0.0
        if tau is None:
            known = (material.population > 0).all() and task.has_logit_bias
            kept = blend * _exponent(
                self.prior_of(task.head, material), material.population
            )
            tau = round(kept + _TAU_BEYOND_BLEND, 6) if leans and known else 0.0
        return dataclasses.replace(self, blend=blend, tau=tau)

    def check_weighted(self) -> None:
        """Raises if data with sample weights cannot be used."""
        if self.sampler is not None:
            raise ValueError(
                "The data have sample weights, which imbalanced-learn's samplers do "
                "not support. Remove them, or use the Gaussians."
            )

    def check_prior(self, population: npt.ArrayLike) -> None:
        """Raises if a class without examples has no log prior.

        Args:
            population: counts or total weights of the classes `[C]`.
        """
        empty = np.flatnonzero(np.equal(population, 0)).tolist()
        if empty and (self.tau or self.target_prior is not None):
            raise ValueError(
                f"`tau` and `target_prior` subtract the log of each class's share of "
                f"the data, but classes {empty} have no example. Add examples, or "
                f"leave both out."
            )

    def gaussian_for(
        self, num_classes: int, examples: Iterable[int] = ()
    ) -> ClassConditionalGaussian:
        """Returns the `ClassConditionalGaussian` to fit, given or new.

        Args:
            num_classes: C.
            examples: number of examples of each class, `[C]`.
        """
        if isinstance(self.gaussian, ClassConditionalGaussian):
            return self.gaussian
        settings = {"num_classes": num_classes, **(self.gaussian or {})}
        if self.gaussian is None and 1 in list(examples):
            settings["covariance_type"] = "tied"
        return ClassConditionalGaussian(**settings)

    def prior_of(self, head: keras.Model, material: object) -> np.ndarray | None:
        """Returns the class shares `[C]` that the outputs of the old head assume.

        Args:
            head: Keras model.
            material: `Material` to train on.

        Returns:
            shares: None for those of the training data.
        """
        if self.prior is None:
            return recorded_prior(head)
        if self.prior == "training":
            return None
        return self._shares("prior", material.population)

    def target_shares(self, real: np.ndarray) -> np.ndarray | None:
        """Returns `target_prior` as shares `[C]` that sum to 1, or None.

        Args:
            real: real examples per class `[C]`.
        """
        return self._shares("target_prior", real)

    def _shares(self, name, real):
        shares = getattr(self, name)
        if shares is None:
            return None
        named = {"uniform": np.ones(len(real)), "training": real}
        shares = named[shares] if isinstance(shares, str) else shares
        return positive_shares(by_class(shares, len(real), name), name)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict for JSON, with objects by their names."""
        return plain(self)


def _exponent(prior, population):
    """The exponent with which a prior follows the data's class shares; 1 for None."""
    if prior is None or not (np.array(prior) > 0).all() or not (population > 0).all():
        return 1.0
    data, prior = np.log(population), np.log(prior)
    data, prior = data - data.mean(), prior - prior.mean()
    return float(data @ prior / (data @ data)) if data.any() else 1.0
