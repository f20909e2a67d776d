"""The networks of the sweep, and which recipe is the best on some of them."""

import dataclasses
import json
import pathlib
import typing

import numpy as np

from .figures import SCORE_LABELS

__all__ = [
    "AS_GOOD",
    "AS_TRAINED",
    "ORACLE",
    "SHARED_SCORES",
    "Network",
    "Recipe",
    "best_recipes",
    "cheapest",
    "mean_passes",
    "read_networks",
    "safest",
    "share",
    "shares",
]

SHARED_SCORES = ("accuracy", "geometric_mean")
AS_GOOD = 1.0  # percent of the gap, within which the cheaper recipe is taken


class Recipe(typing.NamedTuple):
    """A head of the sweep.

    Attributes:
        arm: what it was trained on, as the results call it.
        blend: share of the old head in it.
        tau: how much of the prior is off its logits.
    """

    arm: str
    blend: float
    tau: float

    def __str__(self):
        return f"{self.arm}; blend {self.blend:g}, tau {self.tau:g}"


AS_TRAINED = Recipe("as trained", 1.0, 0.0)
ORACLE = Recipe("oracle", 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Network:
    """What the sweep found on one trained network.

    Attributes:
        name: as in the results.
        experiment: the data and the network, as in the results.
        kind: "step" or "long tail".
        scores: {`Recipe`: {score: mean over head seeds}}.
        forward_passes: {arm: inputs that the trunk sees}.
        seeds: number of head seeds.
    """

    name: str
    experiment: str
    kind: str
    scores: dict
    forward_passes: dict
    seeds: int


def read_networks(*paths):
    """Reads results files.

    Args:
        *paths: files of `examples/sweep.py`; of two lines for one head the last stands.

    Returns:
        networks: list of `Network`, those alone that have an oracle, by name.
    """
    lines = {}
    for path in paths:
        for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # torn when a run was killed
            lines[entry["network"], entry["seed"], entry["arm"]] = entry
    names = sorted({name for name, _, arm in lines if arm == "oracle"})
    return [_network(name, lines) for name in names]


def _network(name, lines):
    found, forward_passes, seeds = {}, {}, set()
    for (network, seed, arm), entry in lines.items():
        if network != name:
            continue
        kind = "long tail" if entry["num_minority"] is None else "step"
        experiment = entry["experiment"]
        if "same_as" in entry:
            entry = lines[name, seed, entry["same_as"]]
        seeds.add(seed)
        forward_passes[arm] = entry.get("forward_passes", 0)
        for i, blend in enumerate(entry["blends"]):
            for j, tau in enumerate(entry["taus"]):
                scores = [entry[score][i][j] / 1e4 for score in SCORE_LABELS]
                found.setdefault(Recipe(arm, blend, tau), []).append(scores)
    scores = {
        recipe: dict(zip(SCORE_LABELS, np.mean(values, axis=0), strict=True))
        for recipe, values in found.items()
    }
    return Network(name, experiment, kind, scores, forward_passes, len(seeds))


def share(networks, recipe, score):
    """Percent of the way from "as trained" to the oracle, over some networks.

    It is the mean gain over the mean gap, as in `examples/verdicts.py`, and no mean of
    shares, in which a network with next to no gap would count for most.

    Args:
        networks: list of `Network`.
        recipe: `Recipe`.
        score: such as "accuracy".

    Returns:
        share: 100 (recipe - as trained) / (oracle - as trained), of means.
    """
    ours, start, end = (
        np.mean([network.scores[each][score] for network in networks])
        for each in (recipe, AS_TRAINED, ORACLE)
    )
    return 100 * (ours - start) / (end - start)


def shares(networks, recipe):
    """Shares in accuracy and in geometric mean."""
    return [share(networks, recipe, score) for score in SHARED_SCORES]


def _merit(networks, recipe):
    return float(np.mean(shares(networks, recipe)))


def best_recipes(networks):
    """The best blend and tau of every arm that ran on all of some networks.

    Args:
        networks: list of `Network`, those that choose.

    Returns:
        best: {`Recipe`: its merit, the mean of its shares in accuracy and in geometric
            mean over the networks}, from the best on.
    """
    common = set.intersection(*(set(network.scores) for network in networks))
    best = {}
    for recipe in sorted(common):
        if recipe.arm in (AS_TRAINED.arm, ORACLE.arm):
            continue
        merit = _merit(networks, recipe)
        if merit > best.get(recipe.arm, (-np.inf,))[0]:
            best[recipe.arm] = merit, recipe
    ranked = sorted(best.values(), key=lambda pair: -pair[0])
    return {recipe: merit for merit, recipe in ranked}


def cheapest(networks, best):
    """Of the recipes as good as the best one, that with the fewest forward passes."""
    limit = max(best.values()) - AS_GOOD
    good = [recipe for recipe, merit in best.items() if merit >= limit]
    return min(good, key=lambda recipe: mean_passes(networks, recipe))


def safest(networks):
    """The recipe whose merit on the network that it suits least is the highest."""
    recipes = set.intersection(*(set(network.scores) for network in networks))
    recipes = sorted(r for r in recipes if r.arm not in (AS_TRAINED.arm, ORACLE.arm))
    return max(recipes, key=lambda r: min(_merit([n], r) for n in networks))


def mean_passes(networks, recipe):
    """Inputs that the trunk sees for a recipe, mean over networks."""
    return np.mean([network.forward_passes[recipe.arm] for network in networks])
