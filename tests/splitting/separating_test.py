"""Tests for separating.py: the list is what `split_at` can do, with what it costs."""

import keras
import pytest
from keras import layers, ops

from tf_pseudofeat.splitting.graph import Graph, functional
from tf_pseudofeat.splitting.separating import separating_layers, usual_layer
from tf_pseudofeat.splitting.split_at import split_at


def plain():
    x = inputs = keras.Input((6,))
    for name in ("first", "features"):
        x = layers.Dense(4, name=name)(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


def sequential():
    model = keras.Sequential([layers.Dense(4, name="features"), layers.Dense(3)])
    model.build((None, 6))
    return model


def residual(name=None):
    inputs = keras.Input((6,))
    x = before = layers.Dense(4, name="before")(inputs)
    x = layers.Add(name="join")([before, layers.Dense(4, name="inside")(x)])
    return keras.Model(inputs, layers.Dense(6, name="after")(x), name=name)


def nested():
    """Two levels deep, with a skip connection, and frozen in part."""
    inner = residual("inner")
    inner.get_layer("after").trainable = False
    inputs = keras.Input((6,))
    outer = keras.Model(inputs, layers.Dense(5, name="d")(inner(inputs)), name="outer")
    return keras.Sequential([keras.Input((6,)), outer, layers.Dense(3)])


def only_a_backbone():
    inputs = keras.Input((6,))
    return keras.Model(inputs, residual("backbone")(inputs))


def called_twice():
    """A nested model and a layer in it, both called twice: four calls."""
    shared = layers.Dense(6, name="shared")
    inputs = keras.Input((6,))
    refine = keras.Model(inputs, shared(ops.relu(shared(inputs))), name="refine")
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(2)(refine(refine(inputs))))


def masked():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 3, mask_zero=True, name="words")(inputs)
    x, _, _ = layers.LSTM(4, return_state=True, name="states")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(3, name="features")(x)))


def several_outputs():
    inputs = keras.Input((6,))
    x = layers.Dense(4, name="first")(inputs)
    side = layers.Dense(1, name="side")(x)
    x = layers.Dense(4, name="features")(x)
    return keras.Model(inputs, {"main": layers.Dense(3)(x), "side": side})


MODELS = [
    plain,
    sequential,
    residual,
    nested,
    only_a_backbone,
    called_twice,
    masked,
    several_outputs,
]


def cuts_by_trial(model, output=None):
    """Tries every call of every layer, inputs apart, at every depth."""

    def paths(graph):
        for node in graph.nodes:
            if not node.is_input:
                yield graph.path(node)
            if functional(node.operation) is not None:
                yield from paths(Graph(node.operation, f"{graph.path(node)}/"))

    found = {}
    for path in dict.fromkeys(paths(Graph(model))):
        for call_index in [None, 0, 1, 2, 3]:
            try:
                split = split_at(model, path, call_index=call_index, output=output)
            except ValueError:
                continue
            found[path, call_index] = split.head
    return found


@pytest.mark.parametrize("make", MODELS)
def test_listed_are_the_cuts_that_can_be_made_with_what_they_cost(make):
    model = make()
    listed = {(cut.layer_name, cut.call_index): cut for cut in separating_layers(model)}
    made = cuts_by_trial(model)
    # A layer that is called once takes call_index=0 as well as none.
    once = {path for path, call_index in made if call_index is None}
    made = {k: v for k, v in made.items() if k[0] not in once or k[1] is None}
    # The last layer of a nested model is a second name for the cut after that model.
    heads = [id(made[key]) for key in listed]
    assert len(set(heads)) == len(heads)
    assert set(heads) == {id(head) for head in made.values()}
    for key, cut in listed.items():
        head = made[key]
        assert cut.feature_shape == head.input_shape[1:]
        weights = {id(v): v for v in head.trainable_variables}
        sizes = [ops.size(weight) for weight in weights.values()]
        assert cut.head_parameters == sum(map(int, sizes))
        trunk = split_at(model, key[0], call_index=key[1]).trunk
        both = weights.keys() & {id(v) for v in trunk.trainable_variables}
        assert cut.shared == bool(both)


def test_of_several_outputs_one_may_be_meant():
    model = several_outputs()
    names = [cut.layer_name for cut in separating_layers(model, output="main")]
    assert names == ["features", "first"]
    assert [cut.layer_name for cut in separating_layers(model)] == ["first"]
    made = cuts_by_trial(model, "main")
    assert {path for path, _ in made} == set(names)


def test_nothing_is_added_to_the_model():
    model = nested()
    nodes = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    separating_layers(model)
    assert [len(layer._inbound_nodes) for layer in model._flatten_layers()] == nodes


def test_table():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.GlobalMaxPooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(10)(x))
    assert str(separating_layers(model)).splitlines() == [
        "layer  kind                feature      D  head parameters  covariance",
        "-----  ------------------  ---------  ---  ---------------  ----------  -----",
        "pool   GlobalMaxPooling2D  4            4               50        64 B  usual",
        "conv   Conv2D              6 x 6 x 4  144               50     82.9 kB",
        "",
        "covariance: of one class, full, in float32",
    ]


def test_usual_choice_is_the_last_flat_vector_before_the_classifier():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(10, name="logits")(x)
    cuts = separating_layers(keras.Model(inputs, layers.Softmax()(x)))
    assert [cut.layer_name for cut in cuts] == ["logits", "flat", "conv"]
    assert cuts.usual.layer_name == "flat"


def test_usual_choice_is_the_last_layer_where_no_feature_is_flat():
    inputs = keras.Input((4, 3))
    x = layers.Dense(4, name="first")(layers.Dense(5, name="zeroth")(inputs))
    x = layers.Dense(2, name="classifier")(x)
    cuts = separating_layers(keras.Model(inputs, layers.Activation("softmax")(x)))
    assert cuts.usual.layer_name == "first"
    assert separating_layers(only_softmax()).usual is None


def only_softmax():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Softmax()(layers.Activation("relu")(inputs)))


def test_usual_layer_is_that_of_the_table_or_says_what_to_pass():
    assert usual_layer(plain()) == "features"
    with pytest.raises(ValueError, match="has no usual layer to split"):
        usual_layer(only_softmax())
    inputs = keras.Input((6,))
    two = keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(2)(inputs)])
    with pytest.raises(ValueError, match="outputs"):
        usual_layer(two)
    with pytest.raises(TypeError, match="must be a keras.Model"):
        usual_layer("network")


def test_the_usual_layer_of_one_output_and_what_is_split_at_none():
    inputs = keras.Input((6,))
    first = layers.Dense(4, name="first")(inputs)
    second = layers.Dense(5, name="second")(inputs)
    ends = [layers.Dense(2, name=name) for name in ("one", "two")]
    model = keras.Model(inputs, [ends[0](first), ends[1](second)])
    assert usual_layer(model, "two") == "second"
    assert split_at(model, None, output="one").layer_name == "first"
    assert split_at(plain(), None).layer_name == "features"
    with pytest.raises(ValueError, match="has 2 outputs, 'one', 'two'"):
        split_at(model, None)
    with pytest.raises(ValueError, match="call_index=1 .*Pass the name of the layer"):
        split_at(plain(), None, call_index=1)


def test_long_table_shows_the_last_rows_and_the_usual_choice():
    x = inputs = keras.Input((4,))
    x = layers.Dense(6, name="flat")(x)
    x = layers.Reshape((2, 3))(x)
    for place in range(30):
        x = layers.Dense(3, name=f"step_{place}")(x)
    x = layers.Flatten()(x)
    x = layers.Reshape((2, 3), name="last")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    cuts = separating_layers(model)
    assert len(cuts) == 34
    rows, notes = str(cuts).split("\n\n")
    rows = rows.splitlines()[2:]
    assert [row.split()[0] for row in rows] == [cut.layer_name for cut in cuts[:15]]
    assert [row.endswith("usual") for row in rows].index(True) == 1
    assert notes.startswith("... 19 more; list(layers) has all\n")
    assert "19 more" in cuts._repr_html_()
    far = keras.Model(inputs, layers.Dense(2)(model.get_layer("step_29").output))
    rows = str(separating_layers(far)).split("\n\n")[0].splitlines()[2:]
    assert len(rows) == 16 and rows[-1].split()[0] == "flat"
    assert rows[-1].endswith("usual")


def words():
    """Strings, ids, and what makes floats of them."""
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Identity(name="ids")(inputs)
    x = layers.Embedding(9, 4, name="embedding")(ops.minimum(x, 8))
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(inputs, layers.Dense(3)(x), name="words")


def test_whole_numbers_are_no_features():
    model = words()
    assert [cut.layer_name for cut in separating_layers(model)] == ["mean", "embedding"]
    with pytest.raises(ValueError, match=r"int32, and features.*: 'embedding', 'mean'"):
        split_at(model, "ids")


def test_table_of_what_varies_and_of_what_is_shared():
    inputs = keras.Input((None, 4))
    shared = layers.Dense(4, name="shared")
    x = layers.GlobalAveragePooling1D()(shared(shared(inputs)))
    text = str(separating_layers(keras.Model(inputs, layers.Dense(2)(x))))
    assert "shared (call_index=0) " in text
    assert "? x 4" in text and "30*" in text
    assert "*: shares weights with the trunk" in text


def test_model_without_a_cut_has_an_empty_table():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert separating_layers(model) == ()
    assert "layer" in str(separating_layers(model))


def test_what_has_no_graph_raises():
    with pytest.raises(ValueError, match=r"no graph of layers.*Build it"):
        separating_layers(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(TypeError, match="keras.Model, not Dense"):
        separating_layers(layers.Dense(2))
    with pytest.raises(ValueError, match="no output 'x'; its outputs: 'main', 'side'"):
        separating_layers(several_outputs(), output="x")
