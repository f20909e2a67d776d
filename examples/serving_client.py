"""Asks a server for the classes of images, or of the rows of a table.

    python -m examples.serving_client --model=digits three.png four.png
    python -m examples.serving_client --model=digits --versions=1,2 three.png
    python -m examples.serving_client --server=grpc://HOST:8500 --model=digits four.png
    python -m examples.serving_client --model=digits --repeat=2000 four.png
    python -m examples.serving_client --model=cancer rows.csv

The server is `examples.serve`, TensorFlow Serving itself, or, over REST, KServe. Images
go as they are, JPEG or PNG, to the signature `encoded`; rows of .csv and .json files
(`table_rows.py`) to `serving_default`, whose inputs the server tells. Over REST neither
TensorFlow nor anything else but absl is needed here.
"""

import concurrent.futures
import http.client
import pathlib
import sys
import time

from absl import app, flags

from .predict_clients import client_of
from .table_rows import check_rows, read_rows

FLAGS = flags.FLAGS


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string(
        "server", "http://127.0.0.1:8501", "http:// or grpc:// address."
    )
    flags.DEFINE_string("model", None, "Name of the model.")
    flags.DEFINE_list("versions", [], "Beside each other, as in 1,2; or the latest.")
    flags.DEFINE_string(
        "signature", None, "By default `encoded` for images, else `serving_default`."
    )
    flags.DEFINE_string("class_names", None, "File of them, where the model has none.")
    flags.DEFINE_integer("top", 3, "Classes to show of each image or row.")
    flags.DEFINE_integer("repeat", None, "Ask so often, and print the speed.")
    flags.DEFINE_integer("connections", 1, "At once, with --repeat.")
    flags.mark_flag_as_required("model")
    flags.register_validator(
        "versions",
        lambda versions: all(version.isdecimal() for version in versions),
        "--versions are numbers with commas between.",
    )
    for name in ("top", "repeat", "connections"):
        flags.register_validator(
            name, lambda n: n is None or n > 0, f"--{name} is above 0."
        )


def ranked(row, class_names=None):
    """The classes of one image or row, the likeliest first.

    Args:
        row: outputs, as `predict` gives them: `classes` and `scores`, or else
            `probabilities`, `logits`, or the only output.
        class_names: for a model that gives no `classes`. Of two of them a single
            number is the probability of the second.

    Returns:
        pairs: list of (class name, score).

    Raises:
        RuntimeError: Which output has the classes cannot be told.
    """
    if "classes" in row and "scores" in row:
        names, scores = row["classes"], row["scores"]
    else:
        known = [name for name in ("probabilities", "logits", "") if name in row]
        known = known[:1] or list(row)
        if len(known) != 1:
            raise RuntimeError(
                f"Received the outputs {sorted(row)}; expected `classes` and `scores`, "
                f"`probabilities`, `logits`, or one output alone."
            )
        scores = row[known[0]]
        scores = scores if isinstance(scores, list) else [scores]
        if class_names and len(class_names) == 2 and len(scores) == 1:
            scores = [1 - scores[0], scores[0]]
        names = class_names or [f"class {number}" for number in range(len(scores))]
    return sorted(zip(names, scores, strict=True), key=lambda pair: -pair[1])


def side_by_side(image, rankings, top):
    """A table: one column for each version.

    Args:
        image: name of the image or row.
        rankings: {title: pairs from `ranked`}.
        top: rows.

    Returns:
        text: with a mark where the versions do not agree.
    """
    winners = {pairs[0][0] for pairs in rankings.values()}
    lines = [image + ("   <- they differ" if len(winners) > 1 else "")]
    lines.append("".join(f"  {title:<24}" for title in rankings))
    for place in range(min(top, *map(len, rankings.values()), top)):
        best = [pairs[place] for pairs in rankings.values()]
        lines.append("".join(f"  {name:<14}{score:>8.3f}  " for name, score in best))
    return "\n".join(line.rstrip() for line in lines)


def measure(new_client, ask, repeat, connections):
    """Asks again and again, from several threads with a connection each.

    Args:
        new_client: function that makes a client.
        ask: function of a client that sends a request and waits for the answer.
        repeat: requests in all.
        connections: at once.

    Returns:
        seconds: for each request that was answered, sorted.
        failures: list of exceptions.
        elapsed: seconds for all.
    """
    numbers = iter(range(repeat))  # shared: `next` of a range iterator is atomic
    seconds, failures = [], []

    def work(client):
        for _ in numbers:
            began = time.perf_counter()
            try:
                ask(client)
                seconds.append(time.perf_counter() - began)
            except (RuntimeError, OSError, http.client.HTTPException) as error:
                failures.append(error)

    clients = [new_client() for _ in range(connections)]
    ask(clients[0])  # the first call of a signature is slow
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        list(pool.map(work, clients))
    return sorted(seconds), failures, time.perf_counter() - began


def speed(seconds, failures, elapsed):
    """What `measure` found, in a line."""
    if not seconds:
        return f"No request of {len(failures)} was answered: {failures[0]}"
    half, most = (1e3 * seconds[int(len(seconds) * q)] for q in (0.5, 0.99))
    return (
        f"{len(seconds) + len(failures)} requests, {len(failures)} failed, "
        f"{len(seconds) / elapsed:.0f} a second; "
        f"half within {half:.1f} ms, 99 % within {most:.1f} ms"
    )


def asker(paths, model, signature=None):
    """What to ask, of which version.

    Args:
        paths: of images; or of tables, .csv and .json, and no images.
        model: its name.
        signature: by default "encoded" for images, "serving_default" for rows.

    Returns:
        titles: list of str, one for each image or row.
        ask: function of a client and a version that gives the answers to them.
    """
    tables = [path for path in paths if path.lower().endswith((".csv", ".json"))]
    if not tables:
        images = [pathlib.Path(path).read_bytes() for path in paths]
        signature = signature or "encoded"
        return paths, lambda client, v: client.predict(model, images, v, signature)
    if len(tables) < len(paths):
        raise ValueError(
            f"Received tables and other files, {paths}; expected one kind. Call this "
            f"program for each."
        )
    found = {path: read_rows(path) for path in tables}
    titles = [f"{p}, row {k}" for p, rows in found.items() for k in _numbers(rows)]

    name = signature or "serving_default"
    checked = {}

    def ask(client, version):
        if version not in checked:
            inputs = client.inputs(model, version, name)
            checked[version] = [
                x for p, rows in found.items() for x in check_rows(rows, inputs, p)
            ]
        return client.predict_rows(model, checked[version], version, name)

    return titles, ask


def _numbers(rows):
    return range(1, len(rows) + 1)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    program, *paths = argv
    if not paths:
        raise app.UsageError("Name one or more images, or tables.")
    try:
        titles, ask = asker(paths, FLAGS.model, FLAGS.signature)
        names = FLAGS.class_names and (
            pathlib.Path(FLAGS.class_names).read_text("utf-8").splitlines()
        )
        client = client_of(FLAGS.server)
        answers = {
            f"version {version}" if version else "latest version": ask(client, version)
            for version in FLAGS.versions or [None]
        }
        for number, title in enumerate(titles):
            rankings = {
                column: ranked(rows[number], names) for column, rows in answers.items()
            }
            print(side_by_side(title, rankings, FLAGS.top))
        if FLAGS.repeat:
            version = FLAGS.versions[-1] if FLAGS.versions else None
            found = measure(
                lambda: client_of(FLAGS.server),
                lambda one: ask(one, version),
                FLAGS.repeat,
                FLAGS.connections,
            )
            print(speed(*found))
    except (RuntimeError, ValueError, OSError, http.client.HTTPException) as error:
        sys.exit(f"{pathlib.Path(program).name}: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
