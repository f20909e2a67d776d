"""Models of every kind that people have: split and retrained, or refused with a reason.

What split_test.py and retrain_test.py do not have for other reasons.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.splitting.separating import separating_layers
from tf_pseudofeat.splitting.split_at import split_at

RNG = np.random.default_rng(0)
N = 120
LABELS = np.arange(N) % 10 // 4  # 48, 48 and 24 of three classes
QUIET = {"epochs": 1, "verbose": 0}


def numbers(*shape):
    x = RNG.normal(size=(N, *shape)).astype("float32")
    return x + LABELS.reshape((N,) + (1,) * len(shape))


def compiled(inputs, outputs):
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def digits(x):
    return layers.Dense(3, activation="softmax", name="classes")(x)


def assert_cured(model, layer_name, x):
    """It splits, its head alone is trained, and it says the same in halves."""
    split = split_at(model, layer_name)
    assert split.check(model, x) <= 1e-5
    trunk = [np.array(variable) for variable in split.trunk.variables]
    head = [np.array(variable) for variable in split.head.trainable_variables]
    report = retrain_head(model, layer_name, (x, LABELS), **QUIET)
    assert report.kept and report.pseudo[2] == 24
    for before, after in zip(trunk, split.trunk.variables, strict=True):
        np.testing.assert_array_equal(before, after)
    changed = [
        not np.array_equal(before, after)
        for before, after in zip(head, split.head.trainable_variables, strict=True)
    ]
    assert any(changed)
    assert split.check(model, x) <= 1e-5


def encoder(name="encoder"):
    inputs = keras.Input((6,))
    x = layers.Dense(5, activation="relu", name="inside")(inputs)
    return keras.Model(inputs, layers.Dense(4, name="end")(x), name=name)


# Sequences behind the cut.


@pytest.mark.parametrize(
    "head",
    [
        lambda x: layers.Bidirectional(layers.GRU(3))(x),
        lambda x: layers.GlobalMaxPooling1D()(layers.Conv1D(4, 3)(x)),
        lambda x: layers.Flatten()(layers.MultiHeadAttention(2, 2)(x, x)),
        pytest.param(lambda x: layers.LSTM(4)(x), marks=pytest.mark.slow),
        pytest.param(
            lambda x: layers.Attention()([x, x, x])[:, 0], marks=pytest.mark.slow
        ),
    ],
    ids=["bidirectional", "conv1d", "multi-head attention", "lstm", "attention"],
)
def test_head_over_a_sequence_of_features(head):
    inputs = keras.Input((5, 3))
    x = layers.Conv1D(4, 1, activation="relu", name="features")(inputs)
    assert_cured(compiled(inputs, digits(head(x))), "features", numbers(5, 3))


def test_recurrent_trunk():
    inputs = keras.Input((5, 3))
    x = layers.LSTM(4, name="features")(inputs)
    assert_cured(compiled(inputs, digits(x)), "features", numbers(5, 3))


def test_transformer_block_with_skip_connections():
    inputs = keras.Input((5, 4))
    x = layers.Dense(4, name="words")(inputs)
    attended = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    x = layers.LayerNormalization(name="block")(layers.Add(name="add")([x, attended]))
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    model = compiled(inputs, digits(x))
    for layer_name in ("words", "block", "pool"):
        assert_cured(model, layer_name, numbers(5, 4))
    with pytest.raises(ValueError, match=r"'add' reads 'words'.*first: 'words'"):
        split_at(model, "attention")


def words(*layers_between):
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 3, mask_zero=True, name="words")(inputs)
    for layer in layers_between:
        x = layer(x)
    return compiled(inputs, digits(x))


def test_mask_that_a_recurrent_layer_uses_up():
    model = words(layers.LSTM(4, name="features"))
    tokens = RNG.integers(1, 9, size=(N, 5)) * (RNG.random((N, 5)) < 0.8)
    assert_cured(model, "features", tokens)
    with pytest.raises(ValueError, match=r"a Keras mask.*without one: 'features'"):
        split_at(model, "words")


def test_mask_that_a_recurrent_layer_hands_on():
    model = words(layers.LSTM(4, return_sequences=True, name="states"), layers.LSTM(3))
    with pytest.raises(
        ValueError, match="Split after the layer that consumes the mask"
    ):
        retrain_head(model, "states", (np.ones((N, 5)), LABELS), **QUIET)


def test_masking_layer():
    inputs = keras.Input((5, 3))
    x = layers.Masking(name="masking")(inputs)
    model = compiled(inputs, digits(layers.LSTM(4, name="features")(x)))
    assert_cured(model, "features", numbers(5, 3))
    with pytest.raises(ValueError, match="a Keras mask"):
        split_at(model, "masking")


# One network in another, and one network twice.


def test_backbone_in_a_sequential_model():
    model = keras.Sequential(
        [keras.Input((6,)), encoder(), layers.Dense(3, activation="softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    for layer_name in ("encoder", "encoder/inside", "encoder/end"):
        assert_cured(model, layer_name, numbers(6))


def test_backbone_two_levels_deep():
    inputs = keras.Input((6,))
    x = layers.Dense(4, name="end")(encoder()(inputs))
    middle = keras.Model(inputs, x, name="middle")
    inputs = keras.Input((6,))
    model = compiled(inputs, digits(middle(inputs)))
    for inside in ("/end", "/encoder", "/encoder/end"):
        assert split_at(model, f"middle{inside}").check(model, numbers(6)) <= 1e-5
    for inside in ("", "/encoder/inside"):
        assert_cured(model, f"middle{inside}", numbers(6))


def test_siamese_branches():
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    twin = encoder("twin")
    distance = layers.Subtract(name="distance")([twin(left), twin(right)])
    model = compiled([left, right], digits(layers.Dense(4, name="features")(distance)))
    x = [numbers(6), RNG.normal(size=(N, 6)).astype("float32")]
    for layer_name in ("distance", "features"):
        assert_cured(model, layer_name, x)
    with pytest.raises(ValueError, match="called 2 times"):
        split_at(model, "twin")
    for call_index in (0, 1):
        with pytest.raises(ValueError, match=r"bypasses it.*first: 'distance'"):
            split_at(model, "twin", call_index=call_index)
    names = [cut.layer_name for cut in separating_layers(model)]
    assert names == ["features", "distance"]


def test_layer_on_both_sides_of_the_cut():
    shared = layers.Dense(6, name="shared")
    inputs = keras.Input((6,))
    x = layers.ReLU(name="features")(shared(inputs))
    model = compiled(inputs, digits(shared(x)))
    x = numbers(6)
    assert split_at(model, "features").check(model, x) <= 1e-6
    assert split_at(model, "shared", call_index=1).check(model, x) <= 1e-6
    with pytest.raises(ValueError, match=r"weights of the trunk.*last use"):
        retrain_head(model, "features", (x, LABELS), **QUIET)
    assert [cut.shared for cut in separating_layers(model)] == [False, True, True]


# Inputs, heads and layers of other kinds.


@pytest.mark.parametrize("structure", [dict, tuple, list])
def test_several_inputs(structure):
    image, age = keras.Input((6,), name="image"), keras.Input((1,), name="age")
    x = layers.Concatenate()([layers.Dense(4)(image), age])
    outputs = digits(layers.Dense(4, name="features")(x))
    x = {"image": numbers(6), "age": numbers(1)}
    if structure is dict:
        model = compiled({"image": image, "age": age}, outputs)
    else:
        model, x = compiled(structure([image, age]), outputs), structure(x.values())
    assert_cured(model, "features", x)


def test_head_without_weights():
    inputs = keras.Input((6,))
    x = layers.Dense(3, name="logits")(inputs)
    model = compiled(inputs, layers.Softmax(name="softmax")(x))
    x = numbers(6)
    assert split_at(model, "logits").check(model, x) <= 1e-6
    with pytest.raises(ValueError, match=r"no trainable weights.*earlier"):
        retrain_head(model, "logits", (x, LABELS), **QUIET)
    assert separating_layers(model)[0].head_parameters == 0


@keras.saving.register_keras_serializable("kinds_test")
class Swish(keras.Operation):
    """A user's own operation, which is no layer."""

    def call(self, x):
        return x * ops.sigmoid(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_operation_of_the_users_own():
    inputs = keras.Input((6,))
    x = Swish(name="swish")(layers.Dense(4)(inputs))
    model = compiled(inputs, digits(layers.Dense(4)(x)))
    assert_cured(model, "swish", numbers(6))


@keras.saving.register_keras_serializable("kinds_test")
class Gate(layers.Layer):
    """A layer with a tensor among its keyword arguments."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[-1:], initializer="ones")

    def call(self, inputs, gate=None):
        return inputs * self.scale if gate is None else inputs * ops.sigmoid(gate)


def test_layers_of_the_users_own_and_lambdas_on_both_sides_from_a_file(tmp_path):
    inputs = keras.Input((6,))
    x = layers.Lambda(lambda t: t / 2, name="half")(inputs)
    x = Gate(name="first_gate")(layers.Dense(4)(x), gate=layers.Dense(4)(x))
    x = layers.Dense(4, name="features")(x)
    x = layers.Lambda(lambda t: t * 2, name="twice")(Gate(name="gate")(x))
    model, x = compiled(inputs, digits(x)), numbers(6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=False)
    assert_cured(model, "features", x)
    for layer_name in ("features", "gate", "twice"):
        assert_cured(loaded, layer_name, x)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_of_one_layer_only(policy):
    inputs = keras.Input((6,))
    x = layers.Dense(4, dtype=policy, name="features")(inputs)
    model = compiled(inputs, digits(layers.Dense(4)(x)))
    split = split_at(model, "features")
    x = numbers(6)
    assert split.head.input.dtype == policy.removeprefix("mixed_")
    assert split.check(model, x, tolerance=0.0) == 0.0
    assert retrain_head(model, "features", (x, LABELS), **QUIET).kept


def test_features_of_any_length():
    inputs = keras.Input((None, 3))
    x = layers.Dense(4, name="features")(inputs)
    model = compiled(inputs, digits(ops.mean(x, axis=1)))
    split = split_at(model, "features")
    for length in (2, 7):
        assert split.check(model, numbers(5, 3)[:, :length]) <= 1e-6


# Models that are changed between two retrainings.


@pytest.mark.parametrize("one_after_the_other", [(False, True), (True, False)])
def test_a_layer_without_weights_comes_or_goes_between_two(one_after_the_other):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, name="features"), layers.Dense(3)]
    )
    for has_softmax in one_after_the_other:
        if has_softmax:
            model.add(layers.Softmax())
        elif isinstance(model.layers[-1], layers.Softmax):
            model.pop()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not has_softmax)
        model.compile("sgd", loss)
        x = numbers(4)
        data, settings = (x, LABELS), {"monitor": None, **QUIET}
        report = retrain_head(model, "features", data, validation_data=data, **settings)
        expected = model.evaluate(x, LABELS, verbose=0)
        assert report.after["log_loss"] == pytest.approx(expected, rel=1e-4)


class Shift(layers.Layer):
    """Adds what is no variable."""

    shift = np.zeros(3, "float32")

    def call(self, x):
        return x + self.shift


@pytest.mark.tensorflow(reason="on jax `predict` keeps what it has compiled")
def test_scores_are_those_of_the_head_as_it_is_now():
    shift = Shift()
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, name="features"), layers.Dense(3), shift]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    data, settings = (numbers(4), LABELS), {"monitor": None, **QUIET}
    for number in (0, 3):
        shift.shift = np.array([number, 0, -number], "float32")
        report = retrain_head(model, "features", data, validation_data=data, **settings)
        predicted = ops.convert_to_numpy(model(data[0])).argmax(axis=1)
        assert report.after["accuracy"] == pytest.approx(np.mean(predicted == LABELS))


@pytest.mark.tensorflow(reason="on jax `predict` keeps what it has compiled")
@pytest.mark.parametrize(
    "change", ["quantize", pytest.param("enable_lora", marks=pytest.mark.slow), "adapt"]
)
def test_a_trunk_that_was_changed_is_extracted_as_it_is_now(change):
    x, normalization = numbers(4), layers.Normalization()
    normalization.adapt(x)
    dense = layers.Dense(8, name="features")
    model = keras.Sequential([keras.Input((4,)), normalization, dense, layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    settings = {"validation_data": (x, LABELS), "monitor": None, **QUIET}
    retrain_head(model, "features", (x, LABELS), **settings)
    if change == "quantize":
        dense.quantize("int8")
    elif change == "adapt":
        normalization.adapt(3 * x + 5)
    else:
        dense.enable_lora(2)
        dense.lora_kernel_b.assign(np.ones((2, 8)))
    model.compile("sgd", loss)
    report = retrain_head(model, "features", (x, LABELS), **settings)
    expected = keras.ops.convert_to_numpy(loss(LABELS, model(x, training=False)))
    assert report.after["log_loss"] == pytest.approx(float(expected), rel=1e-5)
