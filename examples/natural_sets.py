"""Tables and texts that are imbalanced as they are, and stratified splits of them."""

import dataclasses
import pathlib
import tarfile

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split

__all__ = [
    "WORDS",
    "Split",
    "bundled_sets",
    "read_reviews",
    "read_table",
    "read_tables",
    "review_splits",
    "split_of",
    "standardized",
]

WORDS = 2000  # in the vocabulary
_TOKENS = 400  # of each review
_MISSING = ("", "?", "<null>")


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Training and test data of one stratified split.

    Attributes:
        kind: "table", "words" or "tokens".
        name: of the set.
        number: of the split, which is also its seed.
        inputs: what the network takes `[N, D]`.
        labels: `[N]`, whole numbers from 0.
        test_inputs: `[M, D]`.
        test_labels: `[M]`.
    """

    kind: str
    name: str
    number: int
    inputs: np.ndarray
    labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray

    @property
    def counts(self):
        """Training examples per class `[C]`."""
        return np.bincount(self.labels)


def read_tables(tables):
    """{name: (columns, labels)} of a folder's tables."""
    paths = sorted(pathlib.Path(tables).glob("*.dat"))
    paths += sorted(pathlib.Path(tables).glob("*.csv"))
    if not paths:
        raise FileNotFoundError(f"There is no .dat or .csv file in {tables}.")
    return {path.stem: read_table(path) for path in sorted(paths)}


def read_table(path):
    """Reads a table whose last column is the class.

    Args:
        path: of a KEEL file, whose header lines begin with "@", or of a .csv file
            without a header.

    Returns:
        columns: list of arrays `[N]`, float64 with NaN for what is missing, or of str
            where a column holds anything else than numbers.
        labels: `[N]`, whole numbers from 0, in the order of the classes' names.

    Raises:
        ValueError: Rows differ in length, or there is none.
    """
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip().strip("'\"") for cell in line.split(",")]
        for line in lines
        if line.strip() and not line.startswith("@")
    ]
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"The rows of {path} differ in length, or there is none.")
    *columns, classes = zip(*rows, strict=True)
    return [_column(cells) for cells in columns], np.unique(
        classes, return_inverse=True
    )[1]


def _column(cells):
    try:
        return np.array([np.nan if c in _MISSING else float(c) for c in cells])
    except ValueError:
        return np.array(cells)


def bundled_sets():
    """scikit-learn's breast cancer, cut to 1 in 10, and wine, cut to 1 in 5.

    Returns:
        sets: {name: (columns, labels)}, as from `read_table`.
    """
    sets = {}
    for name, load, rare, ratio in (
        ("breast_cancer", load_breast_cancer, 0, 10),
        ("wine", load_wine, 2, 5),
    ):
        features, labels = load(return_X_y=True)
        rows = _cut(labels, rare, ratio, seed=0)
        sets[name] = list(features[rows].T), labels[rows]
    return sets


def _cut(labels, rare, ratio, seed):
    """Rows that leave of one class a `ratio`-th of the largest."""
    members = np.random.default_rng(seed).permutation(np.flatnonzero(labels == rare))
    kept = members[: np.bincount(labels).max() // ratio]
    return np.sort(np.concatenate([np.flatnonzero(labels != rare), kept]))


def read_reviews(path):
    """Reads the film reviews of Pang and Lee (2004).

    Args:
        path: of the .tar.gz archive.

    Returns:
        texts: list of str.
        labels: `[N]`, 0 for negative and 1 for positive.
    """
    texts, labels = [], []
    with tarfile.open(path) as archive:
        for member in archive:
            folder = pathlib.PurePath(member.name).parent.name
            if member.isfile() and folder in ("neg", "pos"):
                text = archive.extractfile(member).read()
                texts.append(text.decode("utf-8", "replace"))
                labels.append(int(folder == "pos"))
    return texts, np.array(labels)


def split_of(name, columns, labels, number):
    """A stratified split of a table: 70 % to train on, and the rest.

    Numbers are standardized, what is missing is the mean, and categories are one-hot.

    Returns:
        split: `Split`.
    """
    train, test = _stratified(labels, number)
    inputs = standardized(columns, train)
    parts = inputs[train], labels[train], inputs[test], labels[test]
    return Split("table", name, number, *parts)


def standardized(columns, train):
    """Float32 `[N, D]` of a table's columns, by the mean and scale of some rows."""
    inputs = []
    for column in columns:
        if column.dtype.kind == "f":
            known = column[train][~np.isnan(column[train])]
            scaled = (column - known.mean()) / (known.std() or 1.0)
            inputs.append(np.nan_to_num(scaled)[:, None])
        else:
            inputs.append(1.0 * (column[:, None] == np.unique(column[train])))
    return np.concatenate(inputs, axis=1).astype(np.float32)


def review_splits(texts, labels, number):
    """Yields splits of the reviews, one class cut to a tenth: words, then tokens."""
    for rare, name in enumerate(("few negative", "few positive")):
        rows = _cut(labels, rare, 10, seed=(number, rare))
        train, test = (rows[part] for part in _stratified(labels[rows], number))
        vectorizer = TfidfVectorizer(max_features=WORDS, sublinear_tf=True)
        words = vectorizer.fit_transform([texts[row] for row in train]).toarray()
        test_words = vectorizer.transform([texts[row] for row in test]).toarray()
        scale = np.float32(10)  # of texts with a length of 1 little is learned in time
        yield Split(
            *("words", name, number),
            *(words.astype(np.float32) * scale, labels[train]),
            *(test_words.astype(np.float32) * scale, labels[test]),
        )
        layer = keras.layers.TextVectorization(
            max_tokens=WORDS, output_sequence_length=_TOKENS
        )
        layer.adapt([texts[row] for row in train])
        yield Split(
            *("tokens", name, number),
            *(np.asarray(layer([texts[row] for row in train])), labels[train]),
            *(np.asarray(layer([texts[row] for row in test])), labels[test]),
        )


def _stratified(labels, number):
    rows = np.arange(labels.size)
    return train_test_split(rows, test_size=0.3, stratify=labels, random_state=number)
