"""Tests for parts.py: any order and number of attempts; real engines lose a worker."""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests import programs
from tests.paths import ROOT
from tests.same_moments import assert_same
from tests.worker_rows import NUM_CLASSES, NUM_PARTS, read_rows, rows_of
from tf_pseudofeat.engines import parts as parts_module
from tf_pseudofeat.engines.parts import (
    extract_part,
    finish_parts,
    merge_parts,
)
from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.extraction.shard_reader import load_features
from tf_pseudofeat.extraction.shard_writer import ShardWriter, write_index
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.gaussians.moments_file import load_moments
from tf_pseudofeat.gaussians.moments_merge import merge_moments
from tf_pseudofeat.serving.export import export_classifier
from tf_pseudofeat.splitting.split_at import split_at

pytestmark = pytest.mark.tensorflow(reason="SavedModels")

C = NUM_CLASSES


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 1), name="image")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    features = layers.Dense(5, activation="tanh", name="features")(x)
    return keras.Model(image, layers.Dense(C, activation="softmax")(features))


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    return export_classifier(model, folder, layer_name="features")


@pytest.fixture(scope="module")
def expected(model):
    """`(features, labels)` of all parts in order, as one machine extracts them."""
    images, labels = map(
        np.concatenate, zip(*map(rows_of, range(NUM_PARTS)), strict=True)
    )
    trunk = split_at(model, "features").trunk
    return tuple(extract_features(trunk, (images, labels), augment=None, verbose=0))


def pairs(part):
    return zip(*rows_of(part), strict=True)


def extract(part, served, folder, **options):
    return extract_part(part, pairs(part), served, folder, C, **options)


def by_row(features, labels):
    """Rows with their labels, in an order that does not depend on theirs."""
    rows = np.column_stack([features, labels])
    return rows[np.lexsort(rows.T)]


def assert_is_expected(folder, moments, expected, kind="full"):
    """The set has each row once, and the moments are those of one machine."""
    features, labels = load_features(folder)
    np.testing.assert_allclose(
        by_row(features[:], labels), by_row(*expected), rtol=0, atol=1e-6
    )
    np.testing.assert_array_equal(labels, expected[1])  # in the order of the parts
    pieces = zip(*(np.split(a[:], NUM_PARTS) for a in (features, labels)), strict=True)
    one_machine = functools.reduce(
        merge_moments, (moments_of(*piece, C, kind) for piece in pieces)
    )
    all_at_once = moments_of(features[:], labels, C, kind)  # sums in float32
    for found in (moments, load_moments(pathlib.Path(folder) / "moments.npz")):
        assert_same(found, one_machine, 1e-9)
        assert_same(found, all_at_once, 1e-6)
    names = {path.name for path in pathlib.Path(folder).iterdir()}
    num_shards = len(features.lengths)
    assert len(names) == 3 * num_shards + 2  # nothing of attempts that do not count
    assert {"index.json", "moments.npz"} < names
    assert not [name for name in names if name.startswith(".unfinished-")]


# Order, attempts.


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_parts_give_what_one_machine_does(kind, served, expected, tmp_path):
    folder = tmp_path / "new" / "folder"
    parts = [
        extract(part, served, folder, kind=kind, batch_size=7, rows_per_shard=15)
        for part in reversed(range(NUM_PARTS))
    ]
    assert all(len(part.shards) == 3 for part in parts)
    assert len(pickle.dumps(parts[0])) < 1000
    moments = finish_parts(folder, functools.reduce(merge_parts, parts), NUM_PARTS)
    assert_is_expected(folder, moments, expected, kind)


def test_any_order_grouping_and_number_of_attempts_gives_the_same(
    served, expected, tmp_path
):
    attempts = [
        extract(part, served, tmp_path) for part in [*range(NUM_PARTS), 2, 5, 5]
    ]
    results = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        pool = [{}, *attempts, *rng.choice(attempts, 4)]
        while len(pool) > 1:
            rng.shuffle(pool)
            size = rng.integers(2, len(pool) + 1)
            pool[:size] = [functools.reduce(merge_parts, pool[:size])]
            if rng.random() < 0.3:
                pool.append(merge_parts(pool[0], rng.choice(attempts)))  # overlaps
        results.append(pool[0])
    assert all(result == results[0] for result in results)
    moments = finish_parts(tmp_path, results[0], NUM_PARTS)
    assert_is_expected(tmp_path, moments, expected)


def test_moments_do_not_depend_on_the_order(served, tmp_path):
    parts = [extract(part, served, tmp_path / "a") for part in range(4)]
    again = [extract(part, served, tmp_path / "b") for part in (3, 1, 0, 2)]
    first = finish_parts(tmp_path / "a", functools.reduce(merge_parts, parts), 4)
    second = finish_parts(tmp_path / "b", functools.reduce(merge_parts, again), 4)
    for field in ("count", "mean", "scatter"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
    arrays = (load_features(tmp_path / name).features[:] for name in "ab")
    np.testing.assert_array_equal(*arrays)


def test_attempts_at_the_same_time_do_not_disturb_each_other(
    served, expected, tmp_path
):
    found = []
    threads = [
        threading.Thread(
            target=lambda part: found.append(
                extract(part, served, tmp_path, batch_size=3, rows_per_shard=10)
            ),
            args=[part],
        )
        for part in [*range(NUM_PARTS), *range(NUM_PARTS)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    moments = finish_parts(tmp_path, functools.reduce(merge_parts, found), NUM_PARTS)
    assert_is_expected(tmp_path, moments, expected)


def test_finishing_is_repeatable_and_survives_an_interrupt(
    served, expected, tmp_path, monkeypatch
):
    parts = [extract(part, served, tmp_path) for part in [*range(NUM_PARTS), 0]]
    merged = functools.reduce(merge_parts, parts)

    def interrupted(*_):
        raise KeyboardInterrupt

    for step in ("save_moments", "write_index", "_remove_others"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(parts_module, step, interrupted)
            finish_parts(tmp_path, merged, NUM_PARTS)
        assert (tmp_path / "index.json").exists() == (step == "_remove_others")
    for _ in range(2):
        moments = finish_parts(tmp_path, merged, NUM_PARTS)
        assert_is_expected(tmp_path, moments, expected)
    with pytest.raises(ValueError, match="already holds a set of features"):
        finish_parts(tmp_path, parts[1], 1)
    with pytest.raises(ValueError, match="already holds a set of features"):
        extract(0, served, tmp_path)  # an attempt that comes late


def test_a_failed_attempt_leaves_nothing(served, tmp_path):
    def failing():
        yield from itertools.islice(pairs(0), 20)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        extract_part(0, failing(), served, tmp_path, C, batch_size=2, rows_per_shard=3)
    assert os.listdir(tmp_path) == []


def test_parts_without_rows(served, tmp_path):
    empty = [extract_part(name, [], served, tmp_path, C) for name in ("a", "b")]
    assert (empty[0].shards, empty[0].num_rows) == ((), 0)
    with pytest.raises(ValueError, match="None of the 2 parts has rows"):
        finish_parts(tmp_path, merge_parts(*empty), 2)
    one = extract_part("c", [next(pairs(0))], served, tmp_path, C)
    moments = finish_parts(tmp_path, functools.reduce(merge_parts, [one, *empty]), 3)
    assert moments.count.sum() == len(load_features(tmp_path)) == 1


# Rows.


def test_batches_and_rows_are_told_apart_by_their_shapes(served, tmp_path):
    images, labels = rows_of(0)
    one_hot = np.eye(C)[labels]
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    forms = [
        [
            pairs(0),
            [(images, labels)],
            [(images[:9], labels[:9]), (images[9:], labels[9:])],
            dataset,
            dataset.batch(9),
        ],
        [zip(images, one_hot, strict=True), [(images, one_hot)]],
    ]
    for number, same in enumerate(forms):
        found = [extract_part(number, rows, served, tmp_path, C) for rows in same]
        assert len({part.digest for part in found}) == 1
        functools.reduce(merge_parts, found)
    backwards = [(images[::-1], labels[::-1])]
    assert extract_part(0, backwards, served, tmp_path, C).digest == (
        extract(0, served, tmp_path).digest
    )


def test_inputs_by_name(tmp_path):
    sizes = {"a": 2, "b": 3}
    inputs = {name: keras.Input((size,), name=name) for name, size in sizes.items()}
    x = layers.Dense(5, name="features")(layers.Concatenate()([*inputs.values()]))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    served = export_classifier(model, tmp_path / "served", layer_name="features")
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(7, size)) for name, size in sizes.items()}
    rows = [({name: x[name][i] for name in x}, i % 2) for i in range(7)]
    part = extract_part(0, rows, served, tmp_path / "f", 2)
    finish_parts(tmp_path / "f", part, 1)
    np.testing.assert_allclose(
        load_features(tmp_path / "f").features[:],
        split_at(model, "features").trunk.predict(x, verbose=0),
        atol=1e-6,
    )
    with pytest.raises(ValueError, match=r"inputs \['a', 'b'\]; received \['a'\]"):
        extract_part(1, [({"a": x["a"][0]}, 0)], served, tmp_path / "g", 2)
    with pytest.raises(ValueError, match="received a ndarray. Pass a dict"):
        extract_part(1, [(x["a"][0], 0)], served, tmp_path / "g", 2)


def test_a_newer_model_at_the_same_path_is_loaded(model, tmp_path):
    served = export_classifier(model, tmp_path / "served", layer_name="features")
    other = keras.models.clone_model(model)
    newer = export_classifier(other, tmp_path / "newer", layer_name="features")
    before = extract(0, served, tmp_path / "a")
    shutil.rmtree(served)
    shutil.copytree(newer, served)
    os.utime(pathlib.Path(served) / "saved_model.pb", (1, 1))
    after = extract(0, served, tmp_path / "b")
    assert before.digest == after.digest
    finish_parts(tmp_path / "a", before, 1)
    finish_parts(tmp_path / "b", after, 1)
    arrays = [load_features(tmp_path / name).features[:] for name in "ab"]
    assert np.abs(arrays[0] - arrays[1]).max() > 0.01


# What must not get in.


IMAGE = np.zeros((4, 4, 1))
INFINITE = tf.data.Dataset.from_tensors((IMAGE, 0)).repeat()


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"part": -1}, ValueError, "`part` must be a whole number from 0.*received -1"),
        ({"part": "a/b"}, ValueError, "`part` must be .*received 'a/b'"),
        ({"part": 1.5}, TypeError, "`part` must be .*received 1.5"),
        ({"part": True}, ValueError, "`part` must be .*received True"),
        ({"num_classes": 0}, ValueError, "`num_classes`.*received 0"),
        ({"kind": "round"}, ValueError, "`kind` must be .*'round'"),
        ({"rank": 3}, ValueError, "`rank` is .*low_rank"),
        ({"batch_size": 0}, ValueError, "`batch_size`.*received 0"),
        ({"rows_per_shard": 0}, ValueError, "`rows_per_shard`.*received 0"),
        ({"folder": "gs://bucket/x"}, ValueError, "Mount the bucket"),
        ({"folder": 3}, TypeError, "`folder` must be a path; received 3"),
        ({"served": "nowhere"}, OSError, "nowhere"),
        ({"rows": 3}, TypeError, "`rows` must be an iterable .*received 3"),
        ({"rows": {"image": 1}}, TypeError, "`rows` must be .*received {'image"),
        ({"rows": INFINITE}, ValueError, r"`rows` is infinite .*rows.take\(n\)"),
        ({"rows": [3]}, ValueError, r"must yield \(input, label\); received a int"),
        ({"rows": [(IMAGE, 0, 1)]}, ValueError, "received a tuple of 3"),
        ({"rows": [(IMAGE[0], 0)]}, ValueError, r"\[None, 4, 4, 1\].*\[4, 1\]"),
        ({"rows": [([IMAGE], [0, 1])]}, ValueError, r"a label of shape \[2\]"),
        ({"rows": [(IMAGE, C)]}, ValueError, f"class ids 0 to {C - 1}"),
        ({"rows": [(IMAGE * np.nan, 0)]}, ValueError, "NaN or infinite"),
    ],
)
def test_bad_arguments(changes, error, message, served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {
        "part": 0,
        "rows": [(IMAGE, 0)],
        "served": served,
        "folder": "folder",
        "num_classes": C,
    }
    with pytest.raises(error, match=message):
        extract_part(**given | changes)
    assert not [*pathlib.Path().glob("folder/*")]


def test_a_model_without_features(model, tmp_path):
    path = export_classifier(model, tmp_path / "served")
    with pytest.raises(ValueError, match=r"\['serving_default'\].*layer_name=\.\.\."):
        extract(0, path, tmp_path / "f")


def test_other_rows_under_the_same_id(served, tmp_path):
    first = extract_part(0, pairs(0), served, tmp_path, C)
    for rows in (pairs(1), itertools.islice(pairs(0), 39)):
        other = extract_part(0, rows, served, tmp_path, C)
        with pytest.raises(ValueError, match="'00000000' was extracted from different"):
            merge_parts(first, other)


@pytest.mark.parametrize("wrong", [None, 3, [1], {"a": 1}])
def test_other_results(wrong, tmp_path):
    with pytest.raises(TypeError, match="results of `extract_part` or `merge_parts`"):
        merge_parts(wrong, {})
    with pytest.raises(TypeError, match="results of `extract_part` or `merge_parts`"):
        finish_parts(tmp_path, wrong, 1)


def test_missing_parts_and_files(served, tmp_path):
    parts = [extract(part, served, tmp_path) for part in (0, 2)]
    merged = merge_parts(*parts)
    with pytest.raises(ValueError, match="3 parts .* received 2, without 00000001"):
        finish_parts(tmp_path, merged, 3)
    with pytest.raises(ValueError, match="1 parts were expected; received 2. "):
        finish_parts(tmp_path, merged, 1)
    with pytest.raises(ValueError, match="is missing: part '00000000' was written to"):
        finish_parts(tmp_path / "elsewhere", merged, 2)
    (tmp_path / f"checksums-{parts[0].shards[0]}.json").unlink()
    with pytest.raises(ValueError, match="has no shard 00000000-"):
        finish_parts(tmp_path, merged, 2)


def test_shards_of_others_stay(served, tmp_path):
    with ShardWriter(tmp_path, prefix="mine") as writer:
        writer.add(np.ones((3, 5), "f4"), [0, 1, 2])
    finish_parts(tmp_path, extract(0, served, tmp_path), 1)
    assert len([*tmp_path.glob("*-mine-00000.*")]) == 3
    with pytest.raises(ValueError, match="already holds a set"):
        write_index(tmp_path)


def test_no_engine_is_imported():
    code = "import sys, tf_pseudofeat.engines.parts; print(*sys.modules)"
    done = programs.run("-c", code)
    assert done.returncode == 0, done.stderr
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert not imported & {"apache_beam", "dask", "distributed", "pyspark", "ray"}


# Engines, each with two worker processes, one of which is killed half-way.


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def recipe(engine):
    page = (ROOT / "docs" / "guide" / "clusters.md").read_text("utf-8")
    (code,) = re.findall(rf"^```py\n(# {engine}: .*?)^```$", page, re.S | re.M)
    return code


def package(name):
    """A module that no extra brings."""
    return pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture
def start(tmp_path):
    """Starts processes with this checkout on their path; ends them afterwards."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    with contextlib.ExitStack() as stack:

        def started(*command, **more):
            log = stack.enter_context(open(tmp_path / "engine.log", "ab"))
            process = subprocess.Popen(
                [*map(str, command)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment | more,
            )
            stack.callback(_end, process)
            return process

        yield started


def _end(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def begun(tmp_path):
    """Starts programs that have this package imported; ends them afterwards."""
    with contextlib.ExitStack() as stack:

        def started(module, *flags):
            log = tmp_path / "engine.log"
            program = programs.Program(module, *flags, outputs=[log])
            stack.callback(program.kill)
            return program

        yield started


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def logged(tmp_path):
    """How often the processes of `start` wrote a text."""
    return lambda text: (tmp_path / "engine.log").read_text("utf-8").count(text)


def wait_for(condition, what, seconds=60):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"no {what} after {seconds} s"
        time.sleep(0.05)
    return found


def accepts(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def run_recipe(engine, workers, served, tmp_path, expected, spared=None, **names):
    """Runs the recipe; the workers have begun, and one of them dies in it.

    `spared` is the process that began them, unless it is this one.
    """
    notes, folder = tmp_path / "notes", tmp_path / "shards"
    notes.mkdir()
    session = {
        "__name__": "__main__",  # so that its functions are sent, not their names
        "read_rows": functools.partial(
            read_rows, notes=notes, spared=spared or os.getpid()
        ),
        "served": served,
        "folder": str(folder),
        **names,
    }
    exec(compile(recipe(engine), "clusters.md", "exec"), session)
    assert_is_expected(folder, session["moments"], expected)
    attempts = [path.name.split("-") for path in notes.glob("*-*")]
    assert {int(part) for part, _ in attempts} == set(range(NUM_PARTS))
    assert len(attempts) > NUM_PARTS  # the part of the killed worker twice
    assert {int(pid) for _, pid in attempts} == {worker.pid for worker in workers}
    killed = int((notes / "killed").read_text("ascii"))
    (victim,) = (worker for worker in workers if worker.pid == killed)
    assert victim.wait(20) == -signal.SIGKILL


@pytest.mark.slow
@on_linux
def test_the_recipe_for_dask(begun, served, tmp_path, expected):
    distributed = pytest.importorskip("distributed", reason="of the extra `dask`")
    file = tmp_path / "scheduler.json"
    on = "--scheduler-file", file, "--no-dashboard", "--host", "127.0.0.1"
    begun("distributed.cli.dask_scheduler", "--port", 0, *on)
    flags = "--no-nanny", "--nthreads", 1, "--local-directory", tmp_path, *on
    workers = [begun("distributed.cli.dask_worker", *flags) for _ in range(2)]
    wait_for(file.exists, "scheduler")
    scheduler = json.loads(file.read_text("utf-8"))["address"]
    with distributed.Client(scheduler) as client:
        client.wait_for_workers(2, timeout=60)
    names = {"spared": workers[0].parent, "scheduler": scheduler}
    run_recipe("Dask", workers, served, tmp_path, expected, **names)


@pytest.mark.slow
@on_linux
def test_the_recipe_for_spark(start, logged, served, tmp_path, expected, monkeypatch):
    sql = package("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, 17 or later")
    home = pathlib.Path(sql.__file__).parents[1]
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    port = free_port()
    master = f"spark://127.0.0.1:{port}"
    at = "--host", "127.0.0.1", "--webui-port", 0
    spark_class, deploy = home / "bin" / "spark-class", "org.apache.spark.deploy"
    start(
        *(spark_class, f"{deploy}.master.Master", "--port", port, *at),
        SPARK_HOME=str(home),
    )
    wait_for(lambda: accepts(port), "master")
    workers = [
        start(
            *(spark_class, f"{deploy}.worker.Worker", master, *at),
            *("--cores", 1, "--memory", "1g", "--work-dir", tmp_path / "work"),
            SPARK_HOME=str(home),
        )
        for _ in range(2)
    ]
    wait_for(lambda: logged("Registering worker") == 2, "worker")
    try:
        run_recipe("Spark", workers, served, tmp_path, expected, master=master)
    finally:
        sql.SparkSession.builder.getOrCreate().stop()


@pytest.mark.slow
@on_linux
def test_the_recipe_for_ray(start, logged, served, tmp_path, expected):
    ray = package("ray")
    command = [shutil.which("ray", path=pathlib.Path(sys.executable).parent), "start"]
    port = free_port()
    head = f"127.0.0.1:{port}"
    rest = "--block", "--disable-usage-stats", "--object-store-memory", 10**8
    start(
        *(*command, "--head", "--port", port, "--num-cpus", 0, *rest),
        *("--include-dashboard", "false", "--node-ip-address", "127.0.0.1"),
    )
    wait_for(lambda: logged("Ray runtime started."), "head")
    workers = []
    for number in range(2):  # in turn, as they look for free ports
        workers.append(start(*command, "--address", head, "--num-cpus", 1, *rest))
        wait_for(lambda n=number: logged("Ray runtime started.") == n + 2, "worker")
    try:
        run_recipe("Ray", workers, served, tmp_path, expected, head=head)
    finally:
        ray.shutdown()
