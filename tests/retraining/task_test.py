"""Tests for task.py: all is resolved, and refused, before it costs anything."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from imblearn.over_sampling import SMOTE
from keras import layers

import tf_pseudofeat as tfpf
from tests.small_models import small_classifier
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.retraining.task import resolve_task
from tf_pseudofeat.splitting.trunk_and_head import Split

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype("float32")
Y = np.arange(40) % 3
ONE_HOT = np.eye(3, dtype="float32")[Y]
FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BINARY_FROM_LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)


def job(model=None, layer_name="features", data=(X, Y), **settings):
    return resolve_task(model or small_classifier(), layer_name, data, **settings)


def error_of(*args, error=ValueError, **settings):
    with pytest.raises(error) as caught:
        job(*args, **settings)
    return str(caught.value)


# ---- What comes out. -----------------------------------------------------------------


def test_no_layer_is_the_usual_one():
    assert job(layer_name=None).split.layer_name == "features"


def test_job_holds_the_two_halves_of_the_model():
    model = small_classifier()
    result = job(model)
    assert result.split.layer_name == "features" and result.task.num_classes == 3
    trunk, head = result.split
    pair = map(keras.ops.convert_to_numpy, (head(trunk(X)), model(X)))
    np.testing.assert_allclose(*pair, rtol=1e-6, atol=1e-6)
    assert result.task.head.layers[-1] is model.layers[-1]


@pytest.mark.parametrize(
    "units, activation, loss, classes, threshold",
    [
        (3, "softmax", "sparse_categorical_crossentropy", 3, 0.5),
        (1, "sigmoid", "binary_crossentropy", 2, 0.5),
        (1, None, keras.losses.BinaryCrossentropy(from_logits=True), 2, 0.0),
        (1, "tanh", "hinge", 2, 0.0),
        (1, None, "hinge", 2, 0.0),
        (1, None, "mse", 2, 0.5),
        (1, None, keras.losses.Huber(), 2, 0.5),
        (1, "sigmoid", "mse", 2, 0.5),
        (3, None, FROM_LOGITS, 3, 0.0),
    ],
)
def test_classes_and_threshold_follow_from_the_outputs(
    units, activation, loss, classes, threshold
):
    labels = Y if units == 3 else Y % 2
    result = job(small_classifier(units, activation, loss), data=(X, labels)).task
    assert (result.num_classes, result.threshold) == (classes, threshold)


@pytest.mark.parametrize(
    "units, activation, labels, expected",
    [
        (3, "softmax", Y, "sparse_categorical_crossentropy"),
        (3, "softmax", Y[:, None], "sparse_categorical_crossentropy"),
        (3, "softmax", ONE_HOT, "categorical_crossentropy"),
        (1, "sigmoid", Y % 2, "binary_crossentropy"),
    ],
)
def test_loss_of_a_model_that_was_not_compiled_follows_from_its_end(
    units, activation, labels, expected
):
    assert (
        job(small_classifier(units, activation, None), data=(X, labels)).task.loss
        == expected
    )


@pytest.mark.parametrize(
    "activation, units", [(None, 3), (None, 1), ("sigmoid", 3), ("relu", 3)]
)
def test_loss_that_does_not_follow_is_asked_for(activation, units):
    model = small_classifier(units, activation, None)
    message = error_of(model, data=(X, Y % 2))
    assert "'network' is not compiled" in message
    assert "Pass `loss`" in message and "from_logits=True" in message
    loss = FROM_LOGITS if units == 3 else BINARY_FROM_LOGITS
    assert job(model, data=(X, Y % 2), loss=loss).task.loss is loss


def test_loss_that_was_compiled_is_used_as_the_object_it_is():
    assert job(small_classifier(loss=FROM_LOGITS)).task.loss is FROM_LOGITS
    assert job(small_classifier(loss=[FROM_LOGITS])).task.loss is FROM_LOGITS
    assert job(small_classifier(loss={"end": FROM_LOGITS})).task.loss is FROM_LOGITS


def test_loss_that_is_given_goes_before_the_compiled_one():
    assert job(small_classifier(loss="mse"), loss=FROM_LOGITS).task.loss is FROM_LOGITS


def test_one_batch_is_read_and_no_more():
    read = []

    def batches():
        for step in itertools.count():
            read.append(step)
            yield X[:8], Y[:8]

    spec = (tf.TensorSpec((8, 4)), tf.TensorSpec((8,), tf.int64))
    endless = tf.data.Dataset.from_generator(batches, output_signature=spec)
    endless = endless.apply(tf.data.experimental.assert_cardinality(-1))
    job(data=endless, steps=1000)
    assert len(read) <= 2


def test_nothing_of_the_model_changes():
    model = small_classifier()
    before = model.get_weights()
    job(model, gaussian=ClassConditionalGaussian(3), validation_data=(X, Y))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(model.optimizer.iterations) == 0


def test_sequential_model_that_is_not_built_is_built():
    model = keras.Sequential([layers.Dense(5, name="features"), layers.Dense(3)])
    model.compile("sgd", FROM_LOGITS)
    assert job(model).task.threshold == 0.0
    assert model.built


@pytest.mark.tensorflow(reason="tf.distribute")
def test_strategy_is_the_models_own_and_none_without():
    assert job().task.strategy is None
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = small_classifier()
    assert job(model).task.strategy is strategy


# ---- What is refused. ----------------------------------------------------------------

UNFITTED = ClassConditionalGaussian(3)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"layer_name": "featuers"}, ["no layer 'featuers'", "'features'"]),
        ({"layer_name": "end"}, ["output layer", "'features'"]),
        ({"monitor": "f2"}, ["'f2'", "'balanced_accuracy'", "or None"]),
        ({"monitor": "recall"}, ["'recall'"]),
        ({"seed": 1}, ["two integers", "1"]),
        ({"seed": (1, 2, 3)}, ["two integers", "(1, 2, 3)"]),
        ({"gaussian": UNFITTED, "sampler": SMOTE()}, ["not both"]),
        ({"gaussian": SMOTE()}, ["received SMOTE", "`sampler`"]),
        (
            {"gaussian": ClassConditionalGaussian(4)},
            ["`gaussian` has 4 classes, but the model 3"],
        ),
        ({"sampler": UNFITTED}, ["fit_resample", "ClassConditionalGaussian"]),
        ({"sampler": SMOTE(), "data": (X, Y, np.ones(40))}, ["sample weights"]),
        ({"data": (X, Y + 1)}, ["0 to 2", "label 3"]),
        ({"data": (X, Y - 1)}, ["0 to 2", "label -1"]),
        ({"data": (X, np.eye(4)[Y])}, ["4 wide", "3 classes"]),
        ({"data": (X, 0.9 * ONE_HOT)}, ["one-hot", "Soft"]),
        ({"data": (X, Y[:-1])}, ["lengths [39, 40]"]),
        ({"validation_data": (X, Y + 1)}, ["0 to 2", "label 3"]),
        ({"validation_data": (X, Y, Y, Y)}, ["(x, y, sample_weight)"]),
        ({"steps": 0}, ["`steps`", "received 0"]),
        ({"epochs": 0}, ["`epochs` must be a whole number of at least 1; received 0"]),
        ({"epochs": 1.5}, ["`epochs`", "received 1.5"]),
        ({"batch_size": -3}, ["`batch_size`", "received -3"]),
        ({"batch_size": None}, ["`batch_size`", "received None"]),
        ({"sampling_strategy": "auot"}, ["sampling_strategy", "auot"]),
        ({"optimizer": "adamm"}, ["adamm"]),
    ],
    ids=lambda value: " and ".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_do_not_fit_raise_with_what_came(settings, words):
    message = error_of(**settings)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "data, words",
    [
        (X, ["ndarray", "tf.data.Dataset", "(x, y)"]),
        ({"x": X, "y": Y}, ["dict"]),
    ],
    ids=["array", "dict"],
)
def test_data_of_another_type_raise(data, words):
    message = error_of(data=data, error=TypeError)
    for word in words:
        assert word in message


@pytest.mark.parametrize("layer", [3, ("trunk", "head")])
def test_a_layer_is_a_name_or_a_split(layer):
    message = error_of(layer_name=layer, error=TypeError)
    assert "name of the layer" in message and "Split(trunk, head)" in message


def test_validation_data_that_do_not_fit_are_described():
    with pytest.raises(
        ValueError, match=r"^`validation_data` has inputs of shape \[N\]"
    ):
        job(validation_data=(Y, Y))


@pytest.mark.parametrize(
    "halves, name",
    [
        ((keras.Sequential(), None), "head"),
        ((None, 3), "trunk"),
        ((keras.Sequential(), layers.Dense(3)), "head"),
    ],
)
def test_a_split_has_two_halves(halves, name):
    with pytest.raises(TypeError, match=f"^`{name}` must be a keras.Model") as raised:
        Split(*halves)
    is_layer = isinstance(halves[1], layers.Layer) and name == "head"
    assert ("pass keras.Sequential([" in str(raised.value)) == is_layer


@pytest.mark.parametrize(
    "option, hint",
    [
        ("epoch", "mean 'epochs'"),
        ("view", "mean 'views'"),
        ("zzz", "options are gau"),
        ("learning_rate", "Pass optimizer="),
        ("shrinkage", "Pass gaussian={'shrinkage': 0.1}"),
    ],
)
def test_an_unknown_option_names_what_to_pass(option, hint):
    message = error_of(error=TypeError, **{option: 1})
    assert f"{option!r} is not an option" in message and hint in message


def test_infinite_data_need_steps():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat()
    assert "pass `steps`" in error_of(data=data)
    assert job(data=data, steps=5).task.num_classes == 3


def test_model_of_another_type_raises():
    with pytest.raises(TypeError, match="keras.Model"):
        resolve_task(object(), "features", (X, Y))


def test_model_with_several_outputs_raises():
    inputs = keras.Input((4,))
    features = layers.Dense(5, name="features")(inputs)
    outputs = [layers.Dense(3)(features), layers.Dense(2)(features)]
    model = keras.Model(inputs, outputs, name="twins")
    message = error_of(model)
    assert "'twins' has 2 outputs, 'dense" in message and "Pass output=" in message


def test_model_with_an_output_per_place_raises():
    inputs = keras.Input((6, 4))
    features = layers.Dense(5, name="features")(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(features))
    message = error_of(model, data=(np.zeros((8, 6, 4), "float32"), Y[:8]))
    assert "shapes [[8, 6, 3]]" in message


def test_weights_that_trunk_and_head_share_raise():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    features = layers.Activation("relu", name="features")(shared(inputs))
    outputs = layers.Dense(3, activation="softmax")(shared(features))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "sparse_categorical_crossentropy")
    message = error_of(model)
    assert "shared/kernel" in message and "cannot be trained alone" in message
    shared.trainable = False  # Nothing changes under the features then.
    assert job(model).task.num_classes == 3


def test_halves_that_do_not_make_the_model_raise():
    model, other = small_classifier(), small_classifier(seed=4)
    trunk = keras.Sequential([keras.Input((4,)), other.layers[0]])
    head = keras.Sequential([keras.Input((5,)), model.layers[1]])
    message = error_of(model, Split(trunk, head))
    assert "head(trunk(x)) is not model(x)" in message


# ---- What cannot be features. --------------------------------------------------------

IDS = np.tile(np.arange(5), (40, 1))


def reader(**settings):
    """A network of word ids: `ids`, `embedding` and `rnn` may vary in length."""
    inputs = keras.Input((None,), dtype="int32", **settings)
    x = layers.Identity(name="ids")(inputs)
    x = layers.Embedding(9, 4, name="embedding")(x)
    x = layers.LSTM(4, return_sequences=True, name="rnn")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x), name="reader")
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def test_whole_numbers_raise_as_features():
    message = error_of(reader(), "ids", (IDS, Y))
    assert "Cannot split at 'ids': its output is int32" in message
    assert "'embedding', 'rnn', 'mean'" in message
    model = reader()
    split = Split(
        keras.Model(model.input, model.get_layer("ids").output, name="trunk"),
        keras.Sequential([keras.Input((None,), dtype="int32"), *model.layers[2:]]),
    )
    assert "features at 'trunk' are int32" in error_of(model, split, (IDS, Y))


def of_lengths(*lengths, padded_to=None):
    def batches():
        for length in lengths:
            yield np.ones((10, padded_to or length), "int32"), np.arange(10) % 3

    shape = tf.TensorSpec((None, padded_to), tf.int32)
    return tf.data.Dataset.from_generator(
        batches, output_signature=(shape, tf.TensorSpec((None,), tf.int64))
    )


def test_lengths_that_may_vary_raise_before_anything_is_read():
    message = error_of(reader(), "rnn", of_lengths(5, 7))
    assert "features at 'rnn' have shape [None, 4]" in message
    assert "inputs of shape [None, None]" in message and "pooling layer" in message
    message = error_of(
        reader(), "rnn", (IDS, Y), validation_data=of_lengths(5, 7), augment=None
    )
    assert "features at 'rnn' have shape" in message


def test_lengths_that_are_fixed_or_pooled_are_taken():
    job(reader(), "rnn", (IDS, Y))
    job(reader(), "rnn", of_lengths(5, 7, padded_to=8))
    job(reader(), "mean", of_lengths(5, 7))


# ---- State that inference changes. ---------------------------------------------------


def stateful():
    """An LSTM with state, two models deep and in a wrapper."""
    inputs = keras.Input(batch_shape=(4, 3, 2))
    lstm = layers.LSTM(4, stateful=True, name="memory")
    inner = keras.Sequential([layers.Bidirectional(lstm, name="both")], name="inner")
    x = layers.Dense(5, name="features")(inner(inputs))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x), name="outer")


def test_layers_with_state_raise_by_name_before_any_call():
    model, x, y = stateful(), np.ones((4, 3, 2)), np.array([0, 1, 2, 0])
    trunk, _ = split = tfpf.split_at(model, "features")
    states = [np.array(variable) for variable in model.non_trainable_variables]
    for call in [
        lambda: tfpf.retrain_head(model, "features", (x, y)),
        lambda: tfpf.tune(model, "features", (x, y), (x, y)),
        lambda: tfpf.diagnose(model, "features", (x, y), (x, y)),
        lambda: tfpf.choose_thresholds(model, (x, y)),
        lambda: tfpf.extract_features(trunk, (x, y)),
        lambda: tfpf.export_classifier(model, "nowhere"),
        lambda: split.check(model, x),
    ]:
        with pytest.raises(ValueError, match=r"stateful=True .*'(both|\w*memory)'"):
            call()
    for before, after in zip(states, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(before, np.array(after))


# ---- Names. --------------------------------------------------------------------------


def test_errors_name_the_model_that_was_passed():
    model = small_classifier()
    assert "Model 'network' has no layer 'nothing'" in error_of(model, "nothing")
    split = tfpf.split_at(model, "features")
    assert split.head.name == "network_after_features"
    assert split.trunk.name == "network_to_features"
    with pytest.raises(ValueError, match="'network' has outputs of shapes"):
        tfpf.export_classifier(
            small_classifier(activation="relu"), "nowhere", class_names=list("abc")
        )


# ---- Of which data an error is. ------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y + 1), "Labels must be class ids 0 to 2"),
        ((X, Y[:-1]), "must have the same length"),
        ((X[:, :3], Y), "expected axis -1 of input shape|incompatible|shape"),
        (("images", "labels"), "."),
    ],
)
@pytest.mark.parametrize("form", ["arrays", "dataset"])
def test_an_error_of_the_validation_data_says_so(data, message, form):
    if form == "dataset" and len(data[0]) == len(data[1]) and len(data[0]) == 40:
        data = tf.data.Dataset.from_tensor_slices(data).batch(8)
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        tfpf.retrain_head(
            small_classifier(), "features", (X, Y), validation_data=data, verbose=0
        )
    assert "validation_data" in str(caught.value)
