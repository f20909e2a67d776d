"""How sure a gain must be before a retrained head may stay.

    python -m examples.sweep_guard --tables=FOLDER --results=FILE.jsonl

On each re-split of `examples/deployment.py` the head is retrained with the default and
scored on validation and on test data, before and after: a line of --results. What a
`Guard` of any confidence would have made of it follows from that. Of the sets, by name,
the first, third, fifth and so on are to choose a confidence by, the others to confirm.
"""

import json
import pathlib
import warnings

import keras
import numpy as np
from absl import app, flags
from scipy import stats

import tf_pseudofeat as tfpf
from tf_pseudofeat.evaluation.comparison import score_predictions
from tf_pseudofeat.sampling.counts import minority_classes

from .compare import Results
from .deployment import resplit, trained_network
from .devices import leave_gpus_to_keras
from .natural_sets import bundled_sets, read_tables

__all__ = ["CONFIDENCES", "SCORES", "guard_table", "run_guard"]

FLAGS = flags.FLAGS

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975)
SCORES = ("balanced_accuracy", "f1", "macro_f1", "accuracy")
_DEGREES = 9  # of freedom, of a standard error from ten groups


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("tables", None, "Folder of KEEL .dat and headerless .csv.")
    flags.DEFINE_integer("resplits", 5, "Re-splits of each set.", lower_bound=1)
    flags.DEFINE_string("results", "outputs/deployment/guard.jsonl", "Lines go here.")


def run_guard(data, results, passes=None, **options):
    """Retrains one head without a guard, unless its line is there.

    Args:
        data: `Resplit`.
        results: `Results`.
        passes: of the network, see `train`.
        **options: of `retrain_head`.
    """
    split = data.split
    place = {"kind": "guard", "experiment": split.name, "episode": split.number}
    place["arm"] = "default"
    if place in results:
        return
    keras.backend.clear_session()
    network = trained_network(data, passes=passes)
    rare = minority_classes(split.counts)

    def on_test():
        outputs = network.predict(split.test_inputs, verbose=0)
        said = tfpf.Predictions(split.test_labels, outputs, "softmax")
        return score_predictions(said, rare)

    before = on_test()
    report = tfpf.retrain_head(
        *(network, "features", (split.inputs, split.labels)),
        validation_data=(data.inputs, data.labels),
        monitor=None,
        seed=(split.number, 1),
        verbose=0,
        **options,
    )
    after = on_test()
    scores = {
        name: {
            "validation": [report.before[name], report.after[name]],
            "error": report.standard_error[name],
            "test": [before[name], after[name]],
        }
        for name in SCORES
    }
    results.add(place | scores)


def guard_table(path):
    """Markdown: what a guard of each confidence keeps, and what that gives."""
    lines = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    sets = sorted({line["experiment"] for line in lines})
    rows = [
        "| score | confidence | kept, choosing | points, choosing | kept, confirming | "
        "up / down | points, confirming |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for score in SCORES:
        for confidence in (None, *CONFIDENCES):
            cells = [score.replace("_", " "), str(confidence or "no guard")]
            for place, half in enumerate((sets[::2], sets[1::2])):
                gains = [_gains(lines, name, score, confidence) for name in half]
                all_of_them = np.concatenate(gains)
                kept = all_of_them[~np.isnan(all_of_them)]
                mean = np.mean([np.nansum(g) / g.size for g in gains])
                cells.append(f"{kept.size} of {all_of_them.size}")
                if place:
                    cells.append(f"{np.sum(kept > 0)} / {np.sum(kept < 0)}")
                cells.append(f"{100 * mean:+.2f}")
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _gains(lines, name, score, confidence):
    """Of each re-split of a set the gain on test data; NaN where it is taken back."""
    gains = []
    for line in lines:
        if line["experiment"] == name:
            old, new = line[score]["validation"]
            needed = 0.0
            if confidence is not None and confidence > CONFIDENCES[0]:
                error = line[score]["error"]
                error = np.nan if error is None else error
                needed = stats.t.ppf(confidence, _DEGREES) * error
            keeps = confidence is None or (new > old and new - old > needed)
            before, after = line[score]["test"]
            gains.append(after - before if keeps else np.nan)
    return np.array(gains)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    leave_gpus_to_keras()
    results = Results(FLAGS.results)
    tables = read_tables(FLAGS.tables) if FLAGS.tables else bundled_sets()
    for number in range(FLAGS.resplits):
        for name, table in tables.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of few examples
                run_guard(resplit(name, *table, number), results)
    print(guard_table(results.path))


if __name__ == "__main__":
    define_flags()
    app.run(main)
