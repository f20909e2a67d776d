"""Tests for batches.py: what `fit` takes gives what its arrays give."""

import functools
import threading
import time

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from keras import layers

from tf_pseudofeat.data.batches import (
    batches_of,
    first_batch,
    has_known_length,
    num_batches,
)
from tf_pseudofeat.data.checks import check_data, is_one_pass
from tf_pseudofeat.data.map_batches import first_batches, map_batches
from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.retraining.retrain import retrain_head

N, SIZE = 196, 28
RNG = np.random.default_rng(0)
Y = RNG.permutation(np.repeat([0, 1, 2], [130, 46, 20]))
X = (RNG.normal(size=(N, 6)) + 2 * np.eye(3, 6)[Y]).astype("float32")
X[RNG.random(X.shape) < 0.5] = 0
WEIGHT = RNG.random(N).astype("float32")
PLAIN = Extraction(batch_size=SIZE)


def classifier(sparse=False):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,), sparse=sparse)
    features = layers.Dense(5, activation="relu", name="features")(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(features))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def retrained(data, model=None, **settings):
    """The bits of the weights after a retraining."""
    model = model or classifier()
    retrain_head(model, "features", data, epochs=2, verbose=0, **settings)
    return [value.tobytes() for value in model.get_weights()]


@functools.cache
def expected(form="arrays", sparse=False, validated=False, **settings):
    """What `retrained` gives for arrays or for their dataset."""
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(SIZE)
    data = (X, Y) if form == "arrays" else dataset
    if validated:
        settings["validation_data"] = data
    return retrained(data, classifier(sparse), **settings)


def extracted(data, trunk=None, **options):
    """Features and labels as bits."""
    trunk = trunk or keras.Sequential([keras.Input((6,)), layers.Identity()])
    options = {"batch_size": SIZE, "verbose": 0, **options}
    return [np.asarray(a).tobytes() for a in extract_features(trunk, data, **options)]


def joined(data, extraction=PLAIN):
    """Inputs and labels of all batches."""
    batches = list(batches_of(data, extraction))
    return tuple(np.concatenate([b[i] for b in batches]) for i in range(2))


def is_all(data, rows=slice(None)):
    x, y = joined(data)
    np.testing.assert_array_equal(x, X[rows])
    np.testing.assert_array_equal(y, Y[rows])


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("tf_pseudofeat")]


# ---- Sparse matrices. ----------------------------------------------------------------


def sparse_tensor(x, permuted=False):
    tensor = tf.sparse.from_dense(x)
    order = RNG.permutation(len(tensor.values)) if permuted else slice(None)
    indices, values = tensor.indices.numpy()[order], tensor.values.numpy()[order]
    return tf.SparseTensor(indices, values, tensor.dense_shape)


SPARSE = {
    **{
        f"{name}_{kind}": getattr(scipy.sparse, f"{name}_{kind}")
        for name in ("csr", "csc", "coo", "lil", "bsr")
        for kind in ("matrix", "array")
    },
    "SparseTensor": sparse_tensor,
    "SparseTensor in another order": functools.partial(sparse_tensor, permuted=True),
}
every_sparse = pytest.mark.parametrize("form", SPARSE)


@every_sparse
@pytest.mark.parametrize("options", [{}, {"per_class": 9}, {"steps": 3}])
def test_sparse_rows_are_the_dense_rows(form, options):
    x = SPARSE[form](X)
    assert extracted((x, Y), **options) == extracted((X, Y), **options)
    weighted = extracted((x, Y, WEIGHT), **options)
    assert weighted == extracted((X, Y, WEIGHT), **options)


@pytest.mark.integration
@pytest.mark.parametrize(
    "form",
    [
        "csr_array",
        pytest.param("coo_matrix", marks=pytest.mark.slow),
        pytest.param("SparseTensor", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("sparse_input", [False, True])
def test_a_retraining_on_sparse_rows_is_that_on_dense_ones(form, sparse_input):
    data = SPARSE[form](X), Y
    received = retrained(data, classifier(sparse_input), per_class=30)
    assert received == expected(sparse=sparse_input, per_class=30)
    assert received == expected(sparse=not sparse_input, per_class=30)


@every_sparse
def test_sparse_rows_among_several_inputs(form):
    x = {"words": SPARSE[form](X), "rest": (X[:, :2], SPARSE[form](X[:, 2:]))}
    assert num_batches((x, Y), PLAIN) == 7
    got = [batch[0] for batch in batches_of((x, Y), PLAIN)]
    for number, batch in enumerate(got):
        rows = slice(number * SIZE, (number + 1) * SIZE)
        np.testing.assert_array_equal(batch["words"], X[rows])
        np.testing.assert_array_equal(np.hstack(batch["rest"]), X[rows])
    with pytest.raises(ValueError, match=r"same length, at least 1; .*\[5, 196\]"):
        check_data((x | {"words": SPARSE[form](X[:5])}, Y))


@pytest.mark.parametrize("empty", [X * 0, X[:0], X[:1]])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_sparse_rows_without_entries(empty, dtype):
    empty = empty.astype(dtype)
    for form in ("csr_array", "SparseTensor"):
        x, y = SPARSE[form](empty), np.zeros(len(empty), int)
        if not len(empty):
            with pytest.raises(ValueError, match=r"at least 1; received lengths \[0\]"):
                check_data((x, y))
            continue
        got, _ = joined((x, y))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, empty)


def test_sparse_tensors_of_other_dtypes_and_ranks():
    maps = X.reshape(N, 2, 3)
    words = np.where(maps > 0, b"word", b"")
    for values in (maps.astype("float16"), words):
        got, _ = joined((tf.sparse.from_dense(values), Y))
        np.testing.assert_array_equal(got, values)


def test_a_sparse_matrix_is_never_dense_as_a_whole():
    """5e9 numbers would not fit in memory."""
    shape, places, labels = (50_000, 100_000), [[2, 7], [49_999, 0]], np.zeros(50_000)
    matrix = scipy.sparse.coo_array(([1.0, 2.0], np.transpose(places)), shape)
    for x in (matrix, matrix.tocsc(), tf.SparseTensor(places, [1.0, 2.0], shape)):
        batch, _, _ = first_batch((x, labels), Extraction(batch_size=4))
        assert batch.shape == (4, 100_000) and batch.sum() == batch[2, 7] == 1


def test_sparse_batches_of_other_data():
    for data in (Items(x=scipy.sparse.csr_array(X)), Loader(x=SPARSE["csr_matrix"](X))):
        assert extracted(data) == extracted((X, Y))


def test_sparse_one_hot_labels():
    labels = scipy.sparse.csr_array(np.eye(3, dtype="float32")[Y])
    for options in ({}, {"per_class": 9}):
        expected = extracted((X, labels.toarray()), **options)
        assert extracted((X, labels), **options) == expected


def test_ragged_rows():
    ragged = tf.RaggedTensor.from_row_lengths(np.arange(6.0), [1, 2, 0, 3])
    got = list(batches_of((ragged, np.arange(4)), Extraction(batch_size=3)))
    assert got[0][0].to_list() == [[0], [1, 2], []]
    assert got[1][0].to_list() == [[3, 4, 5]]


# ---- PyDataset. ----------------------------------------------------------------------


class Items(keras.utils.PyDataset):
    """The examples in batches, with no `__len__`."""

    def __init__(self, count=7, x=X, wait=0.0, faults=None, **settings):
        super().__init__(**settings)
        self.count, self.x, self.wait = count, x, wait
        self.faults = faults or {}
        self.lock = threading.Lock()
        self.asked, self.under_way, self.most_under_way = [], 0, 0

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        with self.lock:
            self.asked.append(index)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        time.sleep(self.wait * (1 + index % 2))
        with self.lock:
            self.under_way -= 1
        if index in self.faults:
            raise self.faults[index]
        rows = slice(index % 7 * SIZE, (index % 7 + 1) * SIZE)
        return self.x[rows], Y[rows]

    def on_epoch_begin(self):
        raise AssertionError("an epoch begins")

    on_epoch_end = on_epoch_begin


class SizedItems(Items):
    """The same with a `__len__` alone."""

    num_batches = keras.utils.PyDataset.num_batches

    def __len__(self):
        return self.count


@pytest.mark.integration
@pytest.mark.parametrize("kind", [Items, SizedItems])
@pytest.mark.parametrize("workers", [1, 5])
def test_a_py_dataset_is_its_arrays(kind, workers):
    data = kind(workers=workers)
    assert num_batches(data, PLAIN) == 7 and has_known_length(data)
    is_all(data)
    assert data.asked == list(range(7)) or workers > 1
    assert extracted(data) == extracted((X, Y))
    settings = {"per_class": None, "augment": None}
    received = retrained(kind(workers=workers), **settings)
    assert received == expected("dataset", **settings)


def test_an_infinite_py_dataset_needs_steps():
    data = Items(count=None, workers=3)
    assert not has_known_length(data)
    with pytest.raises(ValueError, match="infinite .*`num_batches` of None.* `steps`"):
        check_data(data)
    with pytest.raises(ValueError, match="infinite .*pass `steps`, the number"):
        retrained(data)
    with pytest.raises(ValueError, match="`validation_data` is infinite"):
        retrained((X, Y), validation_data=data)
    assert data.asked == []
    assert extracted(data, steps=7) == extracted((X, Y))
    assert sorted(data.asked) == list(range(7))


def test_a_py_dataset_without_a_length_says_what_to_write():
    class Endless(keras.utils.PyDataset):
        def __getitem__(self, index):
            raise AssertionError

    with pytest.raises(NotImplementedError, match="implement the `num_batches`"):
        retrained(Endless())


@pytest.mark.parametrize(
    "item, message",
    [
        (
            (X[0], 1),
            r"Batch 0, counted from 0, holds the single value 1; .*arrays instead",
        ),
        ((X[0], np.int64(1)), "holds the single value .*Yield batches of examples"),
        ((X[0], tf.constant(1)), "holds the single value"),
        ((1.0, Y), "holds the single value 1.0"),
        ((X, Y, 1.0), "holds the single value 1.0"),
        ((X,), r"Batch 0, .*must yield \(x, y\) .*received tuple of 1"),
        ({"x": X, "y": Y}, r"must yield \(x, y\)"),
        (X, "must yield .*received ndarray"),
        (None, "must yield .*received NoneType"),
    ],
)
@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
def test_items_that_are_no_batches(item, message, names):
    class Wrong(Items):
        def __getitem__(self, index):
            return item

    for data in (Wrong(), Loader(batches=[item])):
        with pytest.raises(ValueError, match=message):
            retrained(data, class_names=names)


def test_single_examples_of_a_dataset_of_unknown_rank():
    data = tf.data.Dataset.from_generator(
        lambda: zip(X, Y, strict=True), output_types=(tf.float32, tf.int64)
    )
    with pytest.raises(
        ValueError, match="holds the single value .*arrays instead of lists"
    ):
        extracted(data)


# ---- PyDataset with workers. ---------------------------------------------------------


@pytest.mark.parametrize("multiprocessing", [False, True])
def test_workers_read_ahead(multiprocessing):
    data = Items(56, wait=0.02, workers=8, use_multiprocessing=multiprocessing)
    start = time.perf_counter()
    list(batches_of(data, PLAIN))
    assert time.perf_counter() - start < 56 * 0.03 / 2
    assert 1 < data.most_under_way <= 8 and len(data.asked) == 56
    one = Items(3, workers=1)
    list(batches_of(one, PLAIN))
    assert one.most_under_way == 1


def test_their_order_is_kept_and_the_queue_bounds_them():
    data = Items(21, wait=0.005, workers=4, max_queue_size=6)
    for number, (x, _, _) in enumerate(batches_of(data, PLAIN)):
        np.testing.assert_array_equal(x[0], X[number % 7 * SIZE])
        time.sleep(0.002)
        assert len(data.asked) <= number + 6
    assert threads() == []
    narrow = Items(7, wait=0.005, workers=4, max_queue_size=1)
    is_all(narrow)
    assert narrow.most_under_way == 1
    unbounded = Items(7, wait=0.005, workers=4, max_queue_size=0)
    is_all(unbounded)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("kind", [OSError, IndexError, KeyboardInterrupt])
def test_an_error_of_an_item_comes_through(workers, kind):
    fault = kind("no such file")
    data = Items(40, wait=0.001, faults={4: fault}, workers=workers)
    read = []
    with pytest.raises(kind) as caught:
        for batch in batches_of(data, PLAIN):
            read.append(batch)
    assert caught.value is fault and len(read) == 4
    assert threads() == [] and len(data.asked) < 40
    model = classifier()
    before = [value.tobytes() for value in model.get_weights()]
    with pytest.raises(kind):
        retrained(Items(faults={4: fault}, workers=workers), model)
    assert [value.tobytes() for value in model.get_weights()] == before


@pytest.mark.parametrize("workers", [1, 4])
def test_an_item_that_stops_the_iteration_is_named(workers):
    """It was taken for the end: 112 of 196 examples, without a word."""
    data = Items(faults={4: StopIteration()}, workers=workers)
    message = "Item 4 of the 7 of the PyDataset raised StopIteration"
    for take in (extracted, retrained):
        with pytest.raises(RuntimeError, match=message):
            take(data)
    with pytest.raises(RuntimeError, match=message):
        retrained(data, class_names=["a", "b", "c"])
    assert threads() == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_threads_end_where_the_reader_fails(error):
    class Trunk(keras.Sequential):
        def call(self, *args, **kwargs):
            raise error("no more")

    data = Items(500, wait=0.001, workers=4)
    with pytest.raises(error) as caught:  # whose traceback holds the reading
        extracted(data, Trunk([keras.Input((6,)), layers.Identity()]))
    assert threads() == [] and len(data.asked) < 100
    del caught


def test_threads_end_where_a_batch_is_wrong():
    class Wrong(Items):
        def __getitem__(self, index):
            return (X, Y) if index < 2 else (X[0], 1)

    with pytest.raises(ValueError, match="Batch 2, counted from 0") as caught:
        extracted(Wrong(500, workers=4))
    assert threads() == []
    del caught


def test_one_batch_is_read_alone():
    data = Items(7, workers=4)
    first_batch(data, PLAIN)
    assert data.asked == [0] and threads() == []


def test_mapped_items_keep_their_workers():
    data = Items(56, wait=0.02, workers=8, max_queue_size=9, use_multiprocessing=True)
    mapped = map_batches(data, lambda batch: (batch[0], batch[1] + 1))
    assert (mapped.workers, mapped.max_queue_size) == (8, 9)
    assert mapped.use_multiprocessing and mapped.num_batches == 56
    np.testing.assert_array_equal(mapped[1][1], Y[SIZE : 2 * SIZE] + 1)


def test_first_batches():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(SIZE)
    for data in (Items(), Items(count=None), dataset):
        is_all(first_batches(data, 3), slice(3 * SIZE))
    assert first_batches(Items(2), 3).num_batches == 2


# ---- Iterables. ----------------------------------------------------------------------


class Array:
    """What is like an array, as a tensor of another library is."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def __len__(self):
        return len(self.values)


class Stream:
    """Batches, anew each time, as of a torch DataLoader over an IterableDataset.

    Like that it has a `__len__`, which raises.
    """

    def __init__(self, x=X, batches=None, wrap=lambda values: values):
        self.read = 0
        parts = [slice(i * SIZE, (i + 1) * SIZE) for i in range(7)]
        self.batches = batches or [[wrap(x[rows]), wrap(Y[rows])] for rows in parts]

    def __len__(self):
        raise TypeError("object of type 'IterableDataset' has no len()")

    def __iter__(self):
        for batch in self.batches:
            self.read += 1
            yield batch


class Loader(Stream):
    """As a torch DataLoader over a dataset with a length."""

    def __init__(self, *args, length=None, **settings):
        super().__init__(*args, **settings)
        self.length = length

    def __len__(self):
        return len(self.batches) if self.length is None else self.length


@pytest.mark.parametrize("kind", [Stream, Loader])
@pytest.mark.parametrize("wrap", [Array, tf.constant, np.asarray])
def test_an_iterable_is_its_arrays(kind, wrap):
    data = kind(wrap=wrap)
    assert has_known_length(data) == (kind is Loader)
    assert num_batches(data, PLAIN) == (7 if kind is Loader else None)
    assert num_batches(data, Extraction(steps=3)) == 3
    assert extracted(data) == extracted((X, Y))
    assert data.read == 7
    assert extracted(data, steps=2) == extracted((X[: 2 * SIZE], Y[: 2 * SIZE]))
    assert data.read == 9


@pytest.mark.integration
@pytest.mark.parametrize("kind", [Stream, Loader])
def test_a_retraining_on_an_iterable(kind):
    data = kind(wrap=Array)
    assert retrained(data) == expected("dataset")
    guarded = retrained(data, validation_data=data, class_names=["a", "b", "c"])
    assert guarded == expected("dataset", validated=True)


def test_an_iterable_that_ends_early_is_not_taken_for_whole():
    data = Loader(length=9)
    with pytest.raises(ValueError, match=r"after 7 of 9 batches: .*pass `steps=7`"):
        extracted(data)
    assert extracted(data, steps=7) == extracted((X, Y))
    with pytest.raises(ValueError, match="after 7 of 9 batches"):
        retrained(data, class_names=["a", "b", "c"])


def test_an_iterable_with_no_end_needs_steps():
    class Repeated(Stream):
        def __len__(self):
            return 2**63 - 1  # as Grain's `repeat()`

        def __iter__(self):
            while True:
                yield from super().__iter__()

    with pytest.raises(ValueError, match="infinite .*pass `steps`"):
        extracted(Repeated())
    assert extracted(Repeated(), steps=7) == extracted((X, Y))


@pytest.mark.parametrize(
    "make",
    [
        lambda: iter([(X, Y)]),
        lambda: ((x, y) for x, y in [(X, Y)]),
        lambda: map(tuple, [(X, Y)]),
        lambda: zip([X], [Y], strict=True),
        lambda: iter(tf.data.Dataset.from_tensors((X, Y))),
    ],
)
@pytest.mark.parametrize("names", [None, ["a", "b", "c"]])
def test_an_iterator_raises_with_the_way_out(make, names):
    data = make()
    assert is_one_pass(data)
    message = f"received {type(data).__name__}, which .*only once.*from_generator"
    for given in ({"data": data}, {"data": (X, Y), "validation_data": data}):
        with pytest.raises(TypeError, match=message):
            retrained(**given, class_names=names)
    assert next(data)  # nothing was read


@pytest.mark.parametrize(
    "data", [X, {"x": X}, {1, 2}, "train", b"train", 5, None, pd.DataFrame(X), Items]
)
def test_what_is_no_data_raises(data):
    message = f"iterable of .*arrays .*; received {type(data).__name__}"
    with pytest.raises(TypeError, match=message):
        retrained(data, class_names=["a", "b", "c"])


# ---- Lists and pandas. ---------------------------------------------------------------


@pytest.mark.integration
def test_lists_of_numbers_are_arrays():
    lists = X.tolist(), Y, WEIGHT.tolist()
    assert extracted(lists) == extracted((X.astype("float64"), Y, WEIGHT))
    assert extracted(lists[:2], per_class=9) == extracted(
        (X.astype("float64"), Y), per_class=9
    )
    assert retrained((X.tolist(), Y)) == expected()


@pytest.mark.parametrize(
    "data, message",
    [
        ((X.tolist(), Y.tolist()), "`y` is a list of 196; pass an array"),
        (([[1.0], [1.0, 2.0]], Y[:2]), "lists of different lengths"),
        (([["a"], ["b"]], Y[:2]), "single value 'a'; .*Pass lists as arrays"),
        (([], Y[:0]), r"received lengths \[0\]"),
        ((X.tolist()[:-1], Y), r"lengths \[195, 196\]"),
    ],
)
def test_lists_that_are_no_arrays_raise(data, message):
    with pytest.raises(ValueError, match=message):
        extracted(data)


@pytest.mark.integration
def test_pandas():
    index = pd.RangeIndex(7, 7 + N)
    frame = pd.DataFrame(X, index, list("abcdef"))
    labels, weight = pd.Series(Y, index), pd.Series(WEIGHT, index)
    for options in ({}, {"per_class": 9}):
        received = extracted((frame, labels, weight), **options)
        assert received == extracted((X, Y, WEIGHT), **options)
        assert extracted((X, labels.to_frame()), **options) == extracted(
            (X, Y[:, None]), **options
        )
    assert retrained((frame, labels)) == expected()
    names = pd.Series(np.array(["rare", "b", "c"])[Y], index)
    received = retrained((frame, names), class_names=["rare", "b", "c"])
    assert received == expected()
    assert extracted(Items(x=frame)) == extracted((X, Y))


def test_a_column_of_pandas_as_input():
    trunk = keras.Sequential([keras.Input((1,)), layers.Identity()])
    series = pd.Series(X[:, 0])
    assert extracted((series, Y), trunk) == extracted((X[:, :1], Y), trunk)
    assert extracted(({"a": series}, Y), by_name(), per_class=9) == extracted(
        ({"a": X[:, :1]}, Y), by_name(), per_class=9
    )


def by_name():
    inputs = {"a": keras.Input((1,), name="a")}
    return keras.Model(inputs, layers.Identity()(inputs["a"]))
