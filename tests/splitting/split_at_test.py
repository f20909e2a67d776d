"""Tests for split_at.py: real models, cut and put together again."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops

from tests import programs
from tf_pseudofeat.splitting.split_at import split_at

RNG = np.random.default_rng(0)


def batch(*shape):
    return RNG.normal(size=(3, *shape)).astype("float32")


def dense_model(**kwargs):
    """4 numbers in, 2 probabilities out, with 'features' in between."""
    x = inputs = keras.Input((4,), name="image")
    x = layers.Dense(5, activation="relu", name="hidden")(x)
    x = layers.Dense(3, name="features")(x)
    x = layers.Dense(2, activation="softmax", name="probabilities")(x)
    return keras.Model(inputs, x, **kwargs)


def backbone(name="backbone"):
    """A convolutional network that ends in pooled features."""
    x = inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(2, 3, name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(3, 3, activation="relu", name="conv2")(x)
    return keras.Model(inputs, layers.GlobalMaxPooling2D(name="pool")(x), name=name)


def transfer_model():
    """A nested backbone, frozen in inference mode, and a classifier."""
    inputs = keras.Input((6, 6, 1))
    x = backbone()(inputs, training=False)
    x = layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(2, name="logits")(x))


def residual_model():
    """A skip connection over 'inside'."""
    x = inputs = keras.Input((4,))
    x = before = layers.Dense(4, name="before")(x)
    x = layers.Dense(4, name="inside")(x)
    x = layers.Add(name="join")([before, x])
    x = layers.Dense(4, name="after")(x)
    return keras.Model(inputs, layers.Dense(2, name="logits")(x))


def assert_splits(model, layer_name, x, **kwargs):
    """Compare with the model, through numpy, bit for bit; return the split."""
    result = split_at(model, layer_name, **kwargs)
    trunk, head = result
    for half in result:
        half.summary(print_fn=lambda *args, **kwargs: None)
    features = ops.convert_to_numpy(trunk(x, training=False))
    expected, received = model(x, training=False), head(features, training=False)
    keras.tree.assert_same_structure(expected, received)
    for a, b in zip(
        keras.tree.flatten(expected), keras.tree.flatten(received), strict=True
    ):
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (a, b)), 1e-6, 1e-6)
    assert result.check(model, x) <= 1e-6
    return result


def error_of(function, *args, error=ValueError, **kwargs):
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    return str(caught.value)


# What can be split.


@pytest.mark.parametrize("layer_name", ["image", "hidden", "features"])
def test_functional_model_splits_at_every_layer_but_the_last(layer_name):
    result = assert_splits(dense_model(), layer_name, batch(4))
    assert result.layer_name == layer_name


def test_split_unpacks_into_functional_models_that_share_the_models_layers():
    model = dense_model()
    trunk, head = split_at(model, "features")
    assert trunk.get_layer("features") is model.get_layer("features")
    assert head.get_layer("probabilities") is model.get_layer("probabilities")
    assert head.input_shape == (None, 3)


@pytest.mark.integration
def test_training_the_head_trains_the_model_and_leaves_the_trunk():
    model, x = dense_model(), batch(4)
    result = split_at(model, "features")
    before, features = model.predict(x, verbose=0), result.trunk.predict(x, verbose=0)
    result.head.compile("sgd", "sparse_categorical_crossentropy")
    result.head.fit(features, np.array([0, 1, 1]), verbose=0)
    assert abs(model.predict(x, verbose=0) - before).max() > 1e-4
    np.testing.assert_array_equal(result.trunk.predict(x, verbose=0), features)
    assert result.check(model, x) == 0.0


def test_sequential_model_with_an_input():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="features"), layers.Dense(2)]
    )
    assert_splits(model, "features", batch(4))


@pytest.mark.parametrize("build", [lambda m: m(batch(4)), lambda m: m.build((None, 4))])
def test_sequential_model_without_an_input_that_was_called_or_built(build):
    model = keras.Sequential([layers.Dense(3, name="features"), layers.Dense(2)])
    build(model)
    assert_splits(model, "features", batch(4))


def test_sequential_model_that_grew_after_it_was_split_is_split_anew():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="features"), layers.Dense(2)]
    )
    first = assert_splits(model, "features", batch(4))
    model.add(layers.Dense(5, name="added"))  # Calls every layer a second time.
    second = assert_splits(model, "features", batch(4))
    assert second is not first
    assert second.head.output_shape == (None, 5)
    model.pop()
    assert assert_splits(model, "features", batch(4)).head.output_shape == (None, 2)


def test_layer_that_other_models_use_too():
    shared = layers.Dense(3, name="features")
    other_input = keras.Input((4,))
    other = keras.Model(other_input, shared(other_input))  # Node 0 is not our node.
    x = inputs = keras.Input((4,))
    x = shared(layers.Dense(4, name="first")(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert_splits(model, "features", batch(4))
    assert "output layer" in error_of(split_at, other, "features")


def test_nested_backbone():
    assert_splits(transfer_model(), "backbone", batch(6, 6, 1))


@pytest.mark.parametrize("layer_name", ["conv", "norm", "conv2", "pool"])
def test_layer_inside_a_nested_backbone(layer_name):
    assert_splits(transfer_model(), f"backbone/{layer_name}", batch(6, 6, 1))


def test_last_layer_of_a_nested_backbone_is_the_same_cut_as_the_backbone():
    model = transfer_model()
    result = split_at(model, "backbone/pool")
    assert result.layer_name == "backbone/pool"
    assert result.head is split_at(model, "backbone").head


def test_nested_models_to_any_depth():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="deep"), layers.Dense(3)], name="inner"
    )
    middle_input = keras.Input((4,))
    x = inner(layers.Dense(4, name="deep")(middle_input))
    middle = keras.Model(middle_input, layers.Dense(3)(x), name="middle")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(middle(inputs)))
    for layer_name in ["middle", "middle/deep", "middle/inner", "middle/inner/deep"]:
        assert_splits(model, layer_name, batch(4))


def test_model_that_is_one_nested_backbone_is_split_inside_it():
    inputs = keras.Input((6, 6, 1))
    model = keras.Model(inputs, backbone()(inputs))
    assert_splits(model, "backbone/norm", batch(6, 6, 1))
    assert "nearest first: 'backbone/conv2'" in error_of(split_at, model, "backbone")


def test_nested_backbone_with_dict_inputs_and_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    x = layers.Dense(3, name="mixed")(layers.Concatenate()([a, b]))
    outputs = {"z": layers.Dense(3)(x), "y": layers.Dense(3)(x)}
    nested = keras.Model({"a": a, "b": b}, outputs, name="nested")
    inputs = keras.Input((4,))
    found = nested({"b": layers.Dense(4)(inputs), "a": inputs})
    x = layers.Subtract()([found["y"], found["z"]])
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert_splits(model, "nested/mixed", batch(4))
    assert "it returns 2 tensors" in error_of(split_at, model, "nested")


def test_nested_model_called_twice_counts_its_inner_calls():
    refine = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.Dense(4)], name="refine"
    )
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(refine(refine(inputs))))
    assert "called 2 times" in error_of(split_at, model, "refine/a")
    for call_index in [0, 1]:
        assert_splits(model, "refine/a", batch(4), call_index=call_index)
    first, second = (split_at(model, "refine/a", call_index=i) for i in [0, 1])
    assert first.trunk.count_params() < second.trunk.count_params()


def test_layer_called_twice_is_cut_after_the_call_that_was_chosen():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(shared(ops.relu(shared(inputs)))))
    x = batch(4)
    first = assert_splits(model, "shared", x, call_index=0)
    second = assert_splits(model, "shared", x, call_index=1)
    for half, once_more in ((first.trunk, x), (second.trunk, ops.relu(shared(x)))):
        pair = map(ops.convert_to_numpy, (half(x), shared(once_more)))
        np.testing.assert_allclose(*pair, rtol=1e-6)
    assert first.head.get_layer("shared") is shared


@pytest.mark.parametrize("structure", [dict, tuple, list])
def test_inputs_and_outputs_keep_their_structure(structure):
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    x = layers.Dense(3, name="features")(layers.Concatenate()([a, b]))
    y, z = layers.Dense(2, name="y")(x), layers.Dense(1, name="z")(x)
    if structure is dict:
        model = keras.Model({"b": b, "a": a}, {"z": z, "y": y})
        trunk, head = assert_splits(model, "features", {"a": batch(4), "b": batch(2)})
    else:
        model = keras.Model(structure([b, a]), structure([z, y]))
        x = structure([batch(2), batch(4)])
        trunk, head = assert_splits(model, "features", x)
    assert type(trunk.input) is type(model.input)
    assert type(head.output) is type(model.output)


def test_features_that_are_an_output_themselves():
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="features")(inputs)
    model = keras.Model(inputs, {"embedding": x, "logits": layers.Dense(2)(x)})
    assert_splits(model, "features", batch(4))


def test_input_that_the_output_does_not_need():
    used, unused = keras.Input((4,), name="used"), keras.Input((1,), name="unused")
    x = layers.Dense(3, name="features")(used)
    layers.Dense(1)(unused)  # Keras 3.12 wants every input to be read somewhere.
    model = keras.Model([used, unused], layers.Dense(2)(x))
    assert_splits(model, "features", [batch(4), batch(1)])


def test_raw_operations_lambdas_and_constants():
    inputs = keras.Input((4, 3))
    x = layers.Dense(3, name="features")(ops.mean(inputs * 2.0, axis=1))
    x = ops.concatenate([x[:, :2], ops.add(ops.ones((1, 1)), x[:, 2:])], axis=-1)
    x = layers.Lambda(lambda t, by: t / by, arguments={"by": 3.0}, name="lambda")(x)
    model = keras.Model(inputs, 1.0 - ops.softmax(layers.Dense(2)(x)))
    assert_splits(model, "features", batch(4, 3))
    assert_splits(model, "lambda", batch(4, 3))
    operation = next(o.name for o in model.operations if o.name.startswith("mean"))
    assert_splits(model, operation, batch(4, 3))


@keras.saving.register_keras_serializable("split_test")
class Scale(layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[-1:], initializer="ones")

    def call(self, inputs, shift=None, factor=1.0):
        return inputs * self.scale * factor + (0.0 if shift is None else shift)


def test_custom_layer_with_tensors_and_numbers_as_keyword_arguments():
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="features")(inputs)
    x = Scale(name="scale")(x, shift=layers.Dense(3)(x), factor=2.5)
    assert_splits(keras.Model(inputs, layers.Dense(2)(x)), "features", batch(4))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_its_dtypes(policy):
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((4,))
        x = layers.Dense(3, name="features")(inputs)
        model = keras.Model(inputs, layers.Dense(2, dtype="float32")(x))
    finally:
        keras.config.set_dtype_policy("float32")
    result, x = split_at(model, "features"), batch(4)
    assert result.head.input.dtype == policy.removeprefix("mixed_")
    assert result.head.output.dtype == "float32"
    assert result.check(model, x) <= 1e-3
    assert result.check(model, x, tolerance=0.0) == 0.0


def test_head_with_convolution_and_batch_normalization():
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(2, 3, name="features")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(2, 3, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    trunk, head = assert_splits(model, "features", batch(8, 8, 1))
    before = ops.convert_to_numpy(model.get_layer("norm").moving_mean)
    head(trunk(batch(8, 8, 1)), training=True)
    assert (ops.convert_to_numpy(model.get_layer("norm").moving_mean) != before).any()


@pytest.mark.parametrize("layer_name", ["backbone", "backbone/conv2"])
def test_training_flag_reaches_dropout_in_the_head(layer_name):
    trunk, head = split_at(transfer_model(), layer_name)
    features = trunk(batch(6, 6, 1))
    inference = [ops.convert_to_numpy(head(features)) for _ in range(2)]
    training = [ops.convert_to_numpy(head(features, training=True)) for _ in range(8)]
    np.testing.assert_array_equal(*inference)
    assert any((other != training[0]).any() for other in training[1:])


def test_training_flag_that_a_nested_model_was_called_with_is_kept_in_the_head():
    nested = keras.Sequential(
        [keras.Input((4,)), layers.Dense(9, name="inside"), layers.Dropout(0.5)],
        name="nested",
    )
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(nested(inputs, training=True)))
    trunk, head = split_at(model, "nested/inside")
    for function, x in [(model, batch(4)), (head, trunk(batch(4)))]:
        calls = [ops.convert_to_numpy(function(x)) for _ in range(8)]
        assert any((call != calls[0]).any() for call in calls[1:])


def test_network_deeper_than_resnet_110_needs_no_recursion():
    x = inputs = keras.Input((4,))
    x = layers.Dense(4, name="features")(x)
    for _ in range(150):
        x = layers.Average()([x, layers.Activation("relu")(layers.Identity()(x))])
    assert_splits(keras.Model(inputs, layers.Dense(2)(x)), "features", batch(4))


# The model is left as it was.


@pytest.mark.parametrize("make", [dense_model, transfer_model, residual_model])
def test_model_and_halves_save_and_load_after_a_split(make, tmp_path):
    model = make()
    before = model.to_json()
    layer_name = {"features", "backbone", "before"} & {x.name for x in model.layers}
    layer_name = layer_name.pop()
    if layer_name == "backbone":
        layer_name = "backbone/norm"
    result = split_at(model, layer_name)
    assert model.to_json() == before
    x = batch(*model.input_shape[1:])
    features = result.trunk(x)
    for name, part, given in [
        ("model", model, x),
        ("trunk", result.trunk, x),
        ("head", result.head, features),
    ]:
        part.save(tmp_path / f"{name}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras")
        pair = map(ops.convert_to_numpy, (loaded(given), part(given)))
        np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-6)
        if part is model:
            assert_splits(loaded, layer_name, x)


def test_sequential_configuration_is_unchanged_by_a_split():
    model = keras.Sequential([layers.Dense(3, name="features"), layers.Dense(2)])
    model.build((None, 4))
    before = model.to_json()
    split_at(model, "features")
    assert model.to_json() == before


@pytest.mark.parametrize("layer_name", ["backbone", "backbone/norm", "backbone/pool"])
def test_same_split_again_does_not_grow_the_model(layer_name):
    model = transfer_model()
    operations = {
        *model.operations,
        *model.get_layer("backbone").operations,
    }

    def nodes():
        return sum(len(o._inbound_nodes) + len(o._outbound_nodes) for o in operations)

    first, size = split_at(model, layer_name), nodes()
    second = split_at(model, layer_name)
    assert (second.trunk, second.head) == (first.trunk, first.head)
    assert nodes() == size


@pytest.mark.integration
@pytest.mark.parametrize("layer_name", ["backbone", "backbone/norm"])
def test_remembered_split_does_not_keep_the_model_alive(layer_name):
    gc.freeze()  # what other tests left takes seconds to look through
    model = transfer_model()
    model.compile("sgd", "mse")
    model.fit(batch(6, 6, 1), batch(2), verbose=0)
    trunk, head = split_at(model, layer_name)
    reference, features = weakref.ref(model), trunk(batch(6, 6, 1))
    del model
    gc.collect()
    assert reference() is None
    assert head(features).shape == (3, 2)  # And the halves live on.


def test_remembered_split_does_not_keep_a_model_called_on_its_own_input_alive():
    gc.freeze()
    model = dense_model()
    flipped = model(ops.flip(model.input, axis=1))  # Test-time augmentation.
    both = keras.Model(model.input, layers.Average()([model.output, flipped]))
    split_at(model, "features")
    reference = weakref.ref(model)
    del model, flipped, both
    gc.collect()
    assert reference() is None


def test_models_that_share_a_graph_have_splits_of_their_own():
    model = dense_model()
    longer = keras.Model(model.input, layers.Dense(7)(model.output))
    assert_splits(model, "features", batch(4))
    assert assert_splits(longer, "features", batch(4)).head.output_shape == (None, 7)


def test_halves_are_named_after_the_cut():
    trunk, head = split_at(transfer_model(), "backbone/norm")
    assert trunk.name.endswith("_to_norm") and head.name.endswith("_after_norm")
    assert head.inputs[0].name == "norm_output"


def test_name_of_the_heads_input_avoids_the_names_in_the_model():
    x = inputs = keras.Input((4,))
    for name in ["features", "features_output", "logits"]:
        x = layers.Dense(3, name=name)(x)
    assert_splits(keras.Model(inputs, x), "features", batch(4))


# Distribution.

IN_TWO_REPLICAS = """
import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tf_pseudofeat.splitting.split_at import split_at

cpu = tf.config.list_physical_devices("CPU")[0]
devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, devices)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    backbone = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="features"),
                                 layers.Dense(3)], name="backbone")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(backbone(inputs)))
x, y = np.random.default_rng(0).normal(size=(8, 4)).astype("float32"), np.arange(8) % 2
for layer_name in ["backbone", "backbone/features"]:  # outside of the scope
    trunk, head = split = split_at(model, layer_name)
    assert trunk.distribute_strategy is strategy
    assert head.distribute_strategy is strategy
    assert split.check(model, x) <= 1e-6
before = np.asarray(model(x))
with strategy.scope():  # Keras asks that of its optimizers.
    head.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
head.fit(trunk.predict(x, verbose=0), y, verbose=0)
assert abs(np.asarray(model(x)) - before).max() > 1e-4
assert split.check(model, x) <= 1e-6
for variable in head.trainable_variables:
    one, other = strategy.experimental_local_results(variable.value)
    np.testing.assert_array_equal(one, other)
assert not tf.distribute.has_strategy()
"""


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.tensorflow(reason="tf.distribute")
def test_halves_belong_to_the_strategy_that_the_model_was_made_in():
    pytest.importorskip("tensorflow")  # Its devices are fixed once it has started.
    done = programs.run("-c", IN_TWO_REPLICAS)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.tensorflow(reason="tf.distribute")
def test_halves_of_a_model_made_in_no_strategy_belong_to_none():
    tf = pytest.importorskip("tensorflow")
    result = split_at(dense_model(), "features")
    assert not tf.distribute.has_strategy()
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        for half in result:  # A model of no strategy takes what is current.
            assert half.distribute_strategy is tf.distribute.get_strategy()


# What cannot be split: the errors.


def test_tf_keras_model_is_named_as_keras_2():
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.Dense(2)])
    text = error_of(split_at, model, "dense", error=TypeError)
    assert "tf_keras (Keras 2) model" in text and "with `keras`" in text


def test_wrong_types():
    model = dense_model()
    text = error_of(split_at, model.get_layer("features"), "x", error=TypeError)
    assert "must be a keras.Model, not Dense" in text
    text = error_of(split_at, model, model.get_layer("features"), error=TypeError)
    assert "must be a string" in text and "pass layer.name" in text
    for call_index in ["0", True]:
        text = error_of(
            split_at, model, "features", call_index=call_index, error=TypeError
        )
        assert f"int or None, not {call_index!r}" in text


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.features = layers.Dense(3, name="features")

    def call(self, inputs):
        return self.features(inputs)


def test_subclassed_model_has_no_graph():
    model = Subclassed()
    model(batch(4))
    text = error_of(split_at, model, "features")
    assert "'mine' (Subclassed) has no graph" in text
    assert "Split(trunk, head)" in text


def test_subclassed_model_nested_in_a_functional_one_is_a_layer():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Subclassed()(inputs)))
    assert_splits(model, "mine", batch(4))
    text = error_of(split_at, model, "mine/features")
    assert "inside 'mine': it is a Subclassed" in text


def test_subclass_with_a_graph_and_a_call_of_its_own_fails_the_check():
    class Doubled(keras.Model):
        def call(self, inputs, **kwargs):
            return 2.0 * super().call(inputs, **kwargs)

    inputs = keras.Input((4,))
    x = layers.Dense(3, name="features")(inputs)
    model = Doubled(inputs, layers.Dense(2, name="logits")(x))
    text = error_of(split_at(model, "features").check, model, 9.0 * batch(4))
    assert "head(trunk(x)) is not model(x)" in text and "`call` of its own" in text


def test_unbuilt_sequential():
    model = keras.Sequential([layers.Dense(3, name="features"), layers.Dense(2)])
    text = error_of(split_at, model, "features")
    assert "is not built" in text and "Call model.build(input_shape)" in text


def test_unknown_layer_gets_close_matches():
    text = error_of(split_at, dense_model(name="m"), "feature")
    assert text == "Model 'm' has no layer 'feature' in it. Did you mean 'features'?"


def test_unknown_layer_without_close_match_gets_the_layers_there_are():
    text = error_of(split_at, dense_model(name="m"), "qqq")
    assert "'qqq'" in text and "from the last: 'features', 'hidden'." in text


def test_unknown_layer_that_is_inside_a_nested_model():
    text = error_of(split_at, transfer_model(), "conv2")
    assert "inside the nested model 'backbone': use 'backbone/conv2'" in text


def test_unknown_layer_inside_a_nested_model():
    text = error_of(split_at, transfer_model(), "backbone/convv")
    assert "Model 'backbone' has no layer 'convv'" in text
    assert "'backbone/conv'" in text


def test_path_into_a_layer():
    text = error_of(split_at, dense_model(), "hidden/x")
    assert "inside 'hidden': it is a Dense" in text and "'features'" in text


def test_layer_called_several_times_needs_a_call_index():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(shared(shared(shared(inputs)))))
    text = error_of(split_at, model, "shared")
    assert "called 3 times" in text and "call_index=0 to call_index=2" in text
    for call_index in [3, -1]:
        text = error_of(split_at, model, "shared", call_index=call_index)
        assert f"call_index={call_index} is out of range" in text
        assert "3 time(s)" in text


def test_advice_names_the_call_of_a_layer_called_several_times():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="last")(shared(shared(inputs))))
    text = error_of(split_at, model, "last")
    assert "'shared' (call_index=1), 'shared' (call_index=0)." in text


def test_layer_with_several_outputs():
    inputs = keras.Input((4, 3))
    x, state, _ = layers.LSTM(2, return_state=True, name="lstm")(inputs)
    x = layers.Concatenate(name="joined")([x, state])
    model = keras.Model(inputs, layers.Dense(2)(x))
    text = error_of(split_at, model, "lstm")
    assert "'lstm': it returns 3 tensors" in text and "'joined'" in text


def test_output_layer_itself():
    text = error_of(split_at, dense_model(), "probabilities")
    assert "'probabilities': it is an output layer" in text
    assert "nearest first: 'features', 'hidden'." in text


def test_model_of_one_layer_has_nowhere_to_split():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="only")])
    assert "nearest first: none." in error_of(split_at, model, "only")


def test_skip_connection_over_the_cut():
    text = error_of(split_at, residual_model(), "inside")
    assert "Cannot split at 'inside'" in text
    assert "'join' reads 'before'" in text
    assert "nearest first: 'before', 'join', 'after'." in text


def test_skip_connection_in_a_nested_model_is_named_with_its_path():
    nested = residual_model()
    nested.name = "nested"
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(nested(inputs)))
    text = error_of(split_at, model, "nested/inside")
    assert "'nested/join' reads 'nested/before'" in text
    assert "nearest first: 'nested/before', 'nested/join'" in text


@pytest.mark.parametrize("swap", [False, True])
def test_side_input_behind_the_cut(swap):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="side")
    pair = [layers.Dense(4, name="inside")(a), b]
    x = layers.Add(name="join")(pair[::-1] if swap else pair)
    x = layers.Dense(3, name="after")(x)
    model = keras.Model([a, b], layers.Dense(2)(x))
    text = error_of(split_at, model, "inside")
    assert "'join' reads 'side'" in text
    assert "nearest first: 'join', 'after'." in text
    assert_splits(model, "after", [batch(4), batch(4)])


def test_auxiliary_output_before_the_cut():
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="before")(inputs)
    y = layers.Dense(4, name="features")(x)
    outputs = {"main": layers.Dense(2)(y), "aux": layers.Dense(1, name="aux")(x)}
    model = keras.Model(inputs, outputs)
    text = error_of(split_at, model, "features")
    assert "the output 'aux' does not depend on it" in text
    assert "nearest first: 'before'." in text
    assert_splits(model, "before", batch(4))


def test_list_of_what_bypasses_is_cut_short():
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="before")(inputs)
    y = layers.Dense(4, name="inside")(x)
    for _ in range(8):
        y = layers.Add()([x, y])
    model = keras.Model(inputs, layers.Dense(2)(y))
    assert "; 3 more)" in error_of(split_at, model, "inside")


def masked_model():
    x = inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 3, mask_zero=True, name="embedding")(x)
    x = layers.Dense(4, name="words")(x)
    x = layers.GlobalAveragePooling1D(name="pooled")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(3, name="features")(x)))


def test_mask_across_the_cut():
    model = masked_model()
    text = error_of(split_at, model, "words")
    assert "its output has a Keras mask" in text
    assert "Layers without one: 'pooled', 'features'." in text
    words = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    assert_splits(model, "pooled", words)


@pytest.mark.filterwarnings("ignore:Layer '.*mask")
def test_mask_that_appears_only_at_run_time_fails_the_check():
    encoder = keras.Sequential(
        [keras.Input((5, 3)), layers.Dense(3, name="words"), layers.Dense(3)],
        name="encoder",
    )
    inputs = keras.Input((5,), dtype="int32")
    x = encoder(layers.Embedding(7, 3, mask_zero=True)(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    result = split_at(model, "encoder/words")
    text = error_of(result.check, model, np.array([[1, 2, 0, 0, 0]]))
    assert "its output has a Keras mask" in text


# The check.


def test_check_reports_the_largest_difference():
    model, other = dense_model(), dense_model()
    other.get_layer("hidden").set_weights(
        [9.0 * w for w in other.get_layer("hidden").get_weights()]
    )
    x = batch(4)
    result = split_at(model, "features")
    difference = ops.convert_to_numpy(model(x) - other(x))
    expected = abs(difference).max()  # All below 1.
    text = error_of(result.check, other, x)
    assert f"largest difference {expected:.3g}, tolerance 0.0001" in text
    assert result.check(other, x, tolerance=1.0) == pytest.approx(expected, rel=1e-4)


def test_check_raises_for_an_empty_batch_and_nan_behind_the_cut():
    model = dense_model()
    result = split_at(model, "features")
    text = error_of(result.check, model, np.zeros((0, 4), "float32"))
    assert "largest difference nan" in text and "an empty batch, a NaN" in text
    weight = model.weights[-1]
    weight.assign(np.nan * np.ones(weight.shape))
    text = error_of(result.check, model, batch(4))
    assert "a NaN in the model's own output (the features are finite)" in text


def test_check_tells_nan_of_the_inputs_from_nan_of_the_trunk():
    model, x = dense_model(), batch(4)
    # TensorFlow's graphs make 0 of NaN where a relu follows a matrix product.
    model.get_layer("hidden").activation = keras.activations.tanh
    result = split_at(model, "features")
    x[1, 0] = np.nan
    text = error_of(result.check, model, x)
    name = f"The features at 'features' are NaN or infinite in 1 of {len(x)} rows, the"
    assert name in text and "inputs of 1 of them, the first is row 1: clean" in text
    model.get_layer("features").bias.assign(
        np.inf * np.ones_like(model.get_layer("features").bias)
    )
    text = error_of(result.check, model, batch(4))
    assert f"in {len(x)} of {len(x)} rows" in text
    assert "The inputs of these rows are finite, so the layers in between" in text


def test_check_before_the_training_takes_what_is_finite_on_neither_side():
    model, other = dense_model(), dense_model()
    other.set_weights(model.get_weights())
    result, x = split_at(model, "features"), batch(4)
    for one in (model, other):
        bias = one.get_layer("features").bias
        bias.assign(np.inf * np.ones(bias.shape))
    assert "NaN or infinite in 3 of 3 rows" in error_of(result.check, model, x)
    for one in (model, other):
        assert result.check(one, x, trained=False) == 0.0
    other.get_layer("features").bias.assign(np.zeros(3))
    text = error_of(result.check, other, x, trained=False)
    assert "largest difference nan" in text  # finite on one side alone


def test_check_before_the_training_still_compares():
    model, other = dense_model(), dense_model()
    kernel = other.get_layer("hidden").kernel
    kernel.assign(9.0 * ops.convert_to_numpy(kernel))
    result, x = split_at(model, "features"), batch(4)
    assert result.check(model, x, trained=False) <= 1e-6
    assert "largest difference" in error_of(result.check, other, x, trained=False)


def test_check_takes_equal_infinities_and_one_example():
    x = inputs = keras.Input((1,))
    x = layers.Rescaling(1.0, name="features")(x)
    model = keras.Model(inputs, 1.0 / x)
    assert split_at(model, "features").check(model, np.zeros((1, 1))) == 0.0
