"""README, pages and docstrings: what they show runs, and nothing is missing.

`mkdocs build --strict` in `.ci/run` finds links and names that lead nowhere.
"""

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tf_pseudofeat as tfpf
from tests.few_steps import few_steps
from tests.paths import ROOT
from tests.tiny_tasks import text_classifier, texts_of
from tests.trained import compiled
from tf_pseudofeat.head.task import Task
from tf_pseudofeat.serving import lowering

DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text("utf-8")


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.S | re.M)


# What readers do to the end, and a test does briefly.
BRIEFLY = {
    "epochs=100": "epochs=2",
    "PseudoFeatureClassifier(epochs=10,": "PseudoFeatureClassifier(epochs=2,",
    "PseudoFeatureClassifier())": "PseudoFeatureClassifier(epochs=2))",
    'recipe__tau": [0.5, 1.0]': 'recipe__tau": [0.5]',
    "(classifier, X, y,": "(classifier, X, y, cv=2,",
}


def briefly(code):
    for text, shorter in BRIEFLY.items():
        code = code.replace(text, shorter)
    return code


PAGES = sorted(
    path.relative_to(DOCS).as_posix()
    for path in DOCS.rglob("*.md")
    if python_blocks(path)
)


@pytest.fixture(scope="module")
def digits():
    """What a reader has at hand: a compiled, trained model and two datasets."""
    keras.utils.set_random_seed(0)
    bunch = load_digits()
    x, y = bunch.images[..., np.newaxis].astype("float32") / 16, bunch.target
    held_out = np.arange(len(y)) % 3 == 0
    rank = np.array([np.sum(y[:i] == label) for i, label in enumerate(y)])
    train = ~held_out & ((y < 5) | (rank < 20))

    def dataset(rows):
        return tf.data.Dataset.from_tensor_slices((x[rows], y[rows])).batch(64)

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu", name="features"),
            keras.layers.Dense(10, activation="softmax", name="disease"),
        ]
    )
    compiled_again(model).fit(dataset(train), epochs=40, verbose=0)
    return {
        "model": model,
        "train_ds": dataset(train),
        "val_ds": dataset(held_out),
        "images": x[train],
        "labels": y[train],
    }


def compiled_again(model):
    adam = keras.optimizers.Adam(1e-3)
    return compiled(model, adam, "sparse_categorical_crossentropy", jit_compile=False)


@pytest.fixture
def session(digits):
    """A copy of it for one page; the model's weights and its compilation come back.

    Where a page does not say how long a head is trained, it is for a few steps.
    """
    model = digits["model"]
    trained = model.get_weights()
    with few_steps():
        yield {**digits, "tfpf": tfpf}
    compiled_again(model)
    model.set_weights(trained)


@pytest.fixture
def table():
    """For the README's snippet of tables."""
    X, y = load_breast_cancer(return_X_y=True)
    X, X_val, y, y_val = train_test_split(X, y, random_state=0)
    scaler = StandardScaler().fit(X)
    mlp = keras.Sequential(
        [
            keras.Input((30,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    compiled(mlp, "adam", "sparse_categorical_crossentropy", jit_compile=False)
    X, X_val = scaler.transform(X), scaler.transform(X_val)
    mlp.fit(X, y, epochs=5, verbose=0)
    return {"X": X, "y": y, "X_val": X_val, "y_val": y_val, "mlp": mlp}


@pytest.fixture
def reviews():
    """For the README's snippet of texts."""
    sentiments = np.arange(32) % 4 // 3
    texts = texts_of(sentiments)
    task = text_classifier()
    compiled(task, "adam", "sparse_categorical_crossentropy", jit_compile=False)
    task.fit(texts, sentiments, epochs=1, verbose=0)
    return {"task": task, "texts": texts, "sentiments": sentiments}


def run(page, blocks, session):
    """Runs blocks in turn, each on the model as it was trained."""
    trained = session["model"].get_weights()
    for block in blocks:
        session["model"].set_weights(trained)
        exec(compile(briefly(block), page, "exec"), session)


@pytest.mark.tensorflow(reason="SavedModels of KerasHub tasks")
def test_the_readme_runs_as_written(session, table, reviews, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = session | table | reviews
    run("README.md", python_blocks(ROOT / "README.md"), session)
    assert isinstance(session["retrainer"].report, tfpf.RetrainingReport)
    assert (tmp_path / "served" / "1" / "saved_model.pb").exists()
    assert (tmp_path / "sentiment" / "1" / "saved_model.pb").exists()
    assert isinstance(session["report"], tfpf.RetrainingReport)
    assert session["classifier"].predict(session["X_val"]).shape == (143,)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_as_written(page, session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(session)
    run(page, python_blocks(DOCS / page), session)
    made = {name: session[name] for name in set(session) - before}
    for value in made.values():
        if isinstance(value, tfpf.RetrainingReport):
            assert value.recipe is not None
    if page == "guide/priors.md":
        assert len(made["thresholds"].bias) == len(made["names"]) == 10
    if page == "guide/serving.md":
        assert (tmp_path / "rollout" / "2" / "saved_model.pb").exists()
        assert tfpf.next_version("rollout").name == "3"


def test_the_readme_is_short_and_names_every_page():
    assert len(README.splitlines()) <= 160
    nav = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    pages |= {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.ipynb")}
    listed = set(re.findall(r": (\S+\.(?:md|ipynb))$", nav, re.M))
    assert listed == pages


# The API reference.


def documented():
    pages = (DOCS / "api").glob("*.md")
    return [n for p in pages for n in re.findall(r"^::: (\S+)$", p.read_text(), re.M)]


def test_every_public_name_is_in_the_reference_once():
    public = [f"tf_pseudofeat.{n}" for n in tfpf.__all__ if n != "__version__"]
    for name in ("tf_pseudofeat.engines.beam", "tf_pseudofeat.engines.parts"):
        public += [f"{name}.{n}" for n in importlib.import_module(name).__all__]
    assert sorted(documented()) == sorted(public)


MODULES = [
    name
    for _, name, is_room in pkgutil.walk_packages(tfpf.__path__, "tf_pseudofeat.")
    if not is_room
]


def examples():
    """(name, docstring's examples) of all that the package defines."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        for test in finder.find(importlib.import_module(name), name):
            if test.examples:
                yield pytest.param(test, id=test.name.removeprefix("tf_pseudofeat."))


@pytest.fixture(scope="module")
def pieces(digits):
    """What docstrings call by name, made from what a reader has at hand."""
    trunk, head = tfpf.split_at(digits["model"], "features")
    features, labels = tfpf.extract_features(trunk, digits["train_ds"], augment=None)
    X, y = load_breast_cancer(return_X_y=True)
    signature = tf.TensorSpec([None, 8, 8, 1], tf.float32)
    return {
        **vars(tfpf),
        **digits,
        "data": digits["train_ds"],
        "val": digits["val_ds"],
        "trunk": trunk,
        "head": head,
        "features": features,
        "labels": labels,
        "recipe": tfpf.HeadRecipe(epochs=2),
        "Task": Task,
        "Lowering": lowering.Lowering,
        "signature": [signature],
        "X": X[:80],
        "y": y[:80],
        "np": np,
        "keras": keras,
        "tf": tf,
        "make_pipeline": make_pipeline,
        "StandardScaler": StandardScaler,
        "cross_val_score": cross_val_score,
        "mlflow": types.SimpleNamespace(log_metrics=lambda metrics: len(metrics)),
    }


def cluster_pieces():
    beam = pytest.importorskip("apache_beam")
    from apache_beam.ml.inference import base

    pipeline = beam.Pipeline("FnApiRunner")
    rows = [(np.zeros((8, 8, 1), "float32"), 0)]
    images = pipeline | "images" >> beam.Create(rows)
    batches = pipeline | "batches" >> beam.Create([(np.zeros((4, 3)), np.zeros(4))])
    return {
        "beam": beam,
        "images": images,
        "batches": batches,
        "RunInference": base.RunInference,
    }


@pytest.mark.tensorflow(reason="SavedModels and tf.data")
@pytest.mark.parametrize("test", [*examples()])
@pytest.mark.usefixtures("session")
def test_an_example_of_a_docstring_runs(test, digits, pieces, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {**vars(importlib.import_module(module_of(test))), **pieces}
    if ".engines.beam" in test.name:
        names |= cluster_pieces()
    match test.name.rpartition(".")[2]:
        case "export_classifier":
            model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
            model.compile("adam", keras.losses.CategoricalCrossentropy(True))
            names["model"] = model
        case "extract_part" | "merge_parts" | "finish_parts":
            tfpf.export_classifier(digits["model"], "served", layer_name="features")
        case "adjust_logits":
            names["report"] = tfpf.retrain_head(
                digits["model"], "features", digits["train_ds"], epochs=2
            )
            names["retrained"] = digits["model"]
        case "metrics":
            names["report"] = tfpf.retrain_head(
                digits["model"], "features", digits["train_ds"], epochs=2
            )
        case "load_moments":
            moments = tfpf.moments_of(names["features"], names["labels"], 10)
            for day in ("monday", "tuesday"):
                tfpf.save_moments(moments, f"{day}.npz")
        case "load_features":
            with tfpf.ShardWriter("features") as writer:
                writer.add(names["features"], names["labels"])
            tfpf.write_index("features")
    # A value that the docstring does not show may be any.
    for example in test.examples:
        source = briefly(example.source)
        if example.want:
            assert repr(eval(source, names)) == example.want.strip(), source
        else:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(source, test.name, "exec"), names)


def module_of(test):
    return max((n for n in MODULES if test.name.startswith(n)), key=len)


def test_every_program_is_in_the_readme_of_the_examples():
    page = (ROOT / "examples" / "README.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+)`", page))
    for path in (ROOT / "examples").glob("*.py"):
        if "__name__ == " in path.read_text("utf-8"):
            assert path.stem in named, f"examples/README.md lacks `{path.stem}`"
