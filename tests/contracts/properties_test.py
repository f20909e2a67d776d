"""What holds for any shape, dtype, class count and order, not for examples alone.

`PROPERTY_CASES=10000 python -m pytest -n 0 tests/contracts/properties_test.py` looks at
so many cases, others in each run; without it they are few, and the same each time.
"""

import collections
import importlib
import os
from unittest import mock

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.moments_estimation import moments_of, moments_of_batches
from tf_pseudofeat.gaussians.moments_merge import merge_moments
from tf_pseudofeat.sampling.counts import multiply_minority, pseudo_counts
from tf_pseudofeat.sampling.interleave import interleave
from tf_pseudofeat.splitting.split_at import split_at

# The package shows the function by this name, so the module is asked for by name.
interleave_module = importlib.import_module("tf_pseudofeat.sampling.interleave")

CASES = int(os.environ.get("PROPERTY_CASES", 0))


def cases(share):
    """Runs `share` cases, or that many hundredths of `PROPERTY_CASES`."""
    return settings(
        max_examples=max(1, CASES * share // 100) if CASES else share,
        derandomize=not CASES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


seeds = st.integers(0, 2**32 - 1)

# ---- Moments. ------------------------------------------------------------------------


@st.composite
def examples(draw):
    """`(features [N, D], labels [N], C)` of any size, place and scale."""
    num_classes, size = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(seeds))
    num = draw(st.integers(1, 80))
    labels = rng.integers(draw(st.integers(1, num_classes)), size=num)
    centre = draw(st.sampled_from([0.0, -3.0, 1e3]))
    spread = draw(st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
    features = centre + spread * rng.normal(size=(num, size))
    dtype = draw(st.sampled_from(["float16", "float32", "float64", "int32"]))
    return features.astype(dtype), labels, num_classes


def in_pieces(features, labels, num_classes, kind, rng):
    """The moments of random pieces, merged two by two in a random order."""
    owner = rng.integers(rng.integers(1, 8), size=len(labels))
    pieces = [
        moments_of(features[owner == one], labels[owner == one], num_classes, kind)
        for one in np.unique(owner)
    ]
    while len(pieces) > 1:
        rng.shuffle(pieces)
        pieces.append(merge_moments(pieces.pop(), pieces.pop()))
    return pieces[0]


def in_batches(features, labels, num_classes, kind, rng):
    stops = np.sort(rng.integers(1, len(labels) + 1, size=3))
    batches = zip(np.split(features, stops), np.split(labels, stops), strict=True)
    return moments_of_batches(batches, num_classes, kind)


def assert_moments(received, features, labels, num_classes, kind):
    """Against numpy in float64, within 1e-5 of the largest number; 1e-10 of float64."""
    tolerance = 1e-10 if features.dtype == np.float64 else 1e-5
    x = features.astype(np.float64)
    of_class = [x[labels == c] for c in range(num_classes)]
    means = [rows.mean(axis=0) if len(rows) else 0 * x[0] for rows in of_class]
    deviations = [rows - mean for rows, mean in zip(of_class, means, strict=True)]
    scatter = np.stack([rows.T @ rows for rows in deviations])
    scatter = {
        "full": scatter,
        "tied": scatter.sum(axis=0),
        "diag": np.diagonal(scatter, axis1=1, axis2=2),
        "low_rank": np.diagonal(scatter, axis1=1, axis2=2),
    }[kind]
    np.testing.assert_array_equal(received.count, list(map(len, of_class)))
    largest, rounding = np.abs(x).max(), len(x) * (1e-12 * np.abs(x).max()) ** 2
    np.testing.assert_allclose(received.mean, means, atol=tolerance * largest)
    np.testing.assert_allclose(
        received.scatter, scatter, atol=tolerance * np.abs(scatter).max() + rounding
    )


@pytest.mark.parametrize("way", [moments_of, in_pieces, in_batches])
@cases(25)
@given(examples(), st.sampled_from(["full", "tied", "diag", "low_rank"]), seeds)
def test_moments_in_any_pieces_and_order_are_those_of_numpy(way, example, kind, seed):
    rng = [] if way is moments_of else [np.random.default_rng(seed)]
    assert_moments(way(*example, kind, *rng), *example, kind)


# ---- Strategies. ---------------------------------------------------------------------


@st.composite
def imbalanced_labels(draw):
    """Labels of two classes or more, some ids between them perhaps without any."""
    ids = draw(st.lists(st.integers(0, 9), min_size=2, max_size=6, unique=True))
    sizes = draw(st.lists(st.integers(1, 40), min_size=len(ids), max_size=len(ids)))
    order = np.random.default_rng(draw(seeds))
    return order.permutation(np.repeat(ids, sizes))


def totals_of(labels, strategy):
    """{class: real and pseudo together}, and {class: real}."""
    real = collections.Counter(labels.tolist())
    extra = pseudo_counts(labels, strategy)
    assert all(type(c) is type(n) is int and n > 0 for c, n in extra.items())
    assert extra.keys() <= real.keys()
    return {c: real[c] + extra.get(c, 0) for c in real}, real


@cases(10)
@given(imbalanced_labels(), st.integers(1, 50), st.data())
def test_strategies_reach_their_totals(labels, multiplier, data):
    for strategy in ("auto", "not majority", "all"):
        totals, real = totals_of(labels, strategy)
        most, least = max(real.values()), min(real.values())
        assert set(totals.values()) == {most}

    totals, _ = totals_of(labels, "minority")
    grown = [c for c in real if totals[c] != real[c]]
    assert all(real[c] == least and totals[c] == most for c in grown)
    assert len(grown) == (least < most)

    totals, _ = totals_of(labels, "not minority")
    left = [c for c in real if totals[c] != most]
    assert all(totals[c] == real[c] == least for c in left)
    assert len(left) == (least < most)

    asked = {c: n + data.draw(st.integers(0, 99)) for c, n in real.items()}
    for strategy in (asked, lambda ids: asked):
        assert totals_of(labels, strategy)[0] == asked

    totals, _ = totals_of(labels, multiply_minority(multiplier))
    rare = [c for c in real if 2 * real[c] < most] or [
        c for c in real if real[c] == least
    ]
    times = {c: multiplier if c in rare else 1 for c in real}
    assert totals == {c: times[c] * n for c, n in real.items()}


# ---- The stream. ---------------------------------------------------------------------


@st.composite
def streams(draw):
    """Whole numbers as real features, so that no drawn one is taken for them."""
    sizes = draw(st.lists(st.integers(2, 20), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(seeds))
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    numbers = np.arange(len(labels))
    features = np.stack([numbers, rng.permutation(numbers)], axis=1)
    counts = {c: draw(st.integers(0, 40)) for c in range(len(sizes))}
    return features.astype("float32"), labels, counts


@cases(7)
@given(
    streams(),
    st.integers(1, 50),
    st.integers(1, 60),
    st.booleans(),
    st.sampled_from(["full", "tied", "diag", "low_rank"]),
    st.sampled_from([lambda y: y, lambda y: y[:, None], lambda y: np.eye(4)[y]]),
    seeds,
)
def test_an_epoch_holds_each_real_row_once_and_the_planned_counts(
    example, batch_size, chunk_rows, fresh, covariance_type, form, seed
):
    features, labels, counts = example
    gaussian = ClassConditionalGaussian(4, covariance_type)
    gaussian.adapt(features, labels)
    with mock.patch.object(interleave_module, "_CHUNK_ROWS", chunk_rows):
        dataset = interleave(
            features,
            form(labels),
            gaussian,
            counts,
            batch_size,
            (seed, 1),
            fresh_each_epoch=fresh,
        )
    total = len(labels) + sum(counts.values())
    full, rest = divmod(total, batch_size)
    for _ in range(2):
        batches = [(x.numpy(), y.numpy()) for x, y in dataset]
        assert [len(x) for x, _ in batches] == [batch_size] * full + [rest] * (rest > 0)
        x, y = map(np.concatenate, zip(*batches, strict=True))
        ids = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)
        is_real = (x == np.round(x)).all(axis=1)
        order = x[is_real, 0].astype(int)
        np.testing.assert_array_equal(np.sort(order), np.arange(len(labels)))
        np.testing.assert_array_equal(x[is_real], features[order])
        np.testing.assert_array_equal(ids[is_real], labels[order])
        drawn = collections.Counter(ids[~is_real].astype(int).tolist())
        assert drawn == collections.Counter(counts)
    assert len(dataset) == len(batches)


# ---- Splits. -------------------------------------------------------------------------


@st.composite
def plans(draw):
    """{layer: (what it does, the layers that it reads)}, in some order to make them."""
    plan = {"start": ("input", [])}
    for number in range(draw(st.integers(1, 7))):
        known = st.sampled_from(list(plan))
        kind = draw(st.sampled_from(["dense", "add", "concatenate"]))
        most = 1 if kind == "dense" else 3
        reads = draw(st.lists(known, min_size=1, max_size=most, unique=True))
        plan[f"layer{number}"] = (kind, reads)
    return {**plan, "end": ("dense", [list(plan)[-1]])}


def model_of(plan):
    tensors = {"start": keras.Input((3,), name="start")}
    for name, (kind, reads) in list(plan.items())[1:]:
        inputs = [tensors[one] for one in reads]
        same = len({tensor.shape for tensor in inputs}) == 1
        if len(inputs) == 1:
            layer = keras.layers.Dense(3, activation="tanh", name=name)
            inputs = inputs[0]
        elif kind == "add" and same:
            layer = keras.layers.Add(name=name)
        else:
            layer = keras.layers.Concatenate(name=name)
        tensors[name] = layer(inputs)
    return keras.Model(tensors["start"], tensors["end"])


def reaches_start(plan, around):
    """Whether there is a way from the end to the start that avoids one layer."""
    seen, waiting = {around}, ["end"]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += plan[name][1]
    return "start" in seen - {around}


@cases(8)
@given(plans())
def test_a_model_is_cut_where_all_goes_through_and_nowhere_else(plan):
    model = model_of(plan)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(x))
    for name in plan:
        if name != "end" and not reaches_start(plan, around=name):
            trunk, head = split_at(model, name)
            received = keras.ops.convert_to_numpy(head(trunk(x)))
            np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
            assert head.layers[-1] is model.get_layer("end")
        else:
            with pytest.raises(ValueError, match=f"'{name}'"):
                split_at(model, name)
