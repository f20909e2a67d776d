"""Steps 2 and 3 in parts that any engine can run: Dask, Ray, Spark, a job array.

A part is some of the rows, under an id. `extract_part` runs in a worker, writes the
features and moments of its part to a folder that all workers share, and returns what it
wrote. `merge_parts` joins such results in any order and grouping, and `finish_parts`
makes the folder a set of features with one file of moments.

    extracted = [extract_part(part, rows, "served/1", "features", 10) for ...]
    finish_parts("features", functools.reduce(merge_parts, extracted), num_parts)

A worker may be killed at any time, and a part may be tried several times, also at the
same time: each attempt writes files with unique names, only the files of an attempt
that returned count, and those of one attempt per part. The order of the rows and the
moments follow from the parts alone: they are the same in each run, to the bit if the
features are.
"""

import dataclasses
import itertools
import numbers
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from tf_pseudofeat.core.files import UNFINISHED, open_plain
from tf_pseudofeat.core.validation import is_infinite, whole_number
from tf_pseudofeat.engines.part_rows import RowDigest, batches_of_rows
from tf_pseudofeat.engines.served_features import (
    cached_model,
    endpoint_specs,
    features_of_inputs,
)
from tf_pseudofeat.extraction.shard_folder import check_no_index, shared_folder
from tf_pseudofeat.extraction.shard_index import shard_files, sorted_shards
from tf_pseudofeat.extraction.shard_reader import indexed_shards
from tf_pseudofeat.extraction.shard_writer import ShardWriter, write_index
from tf_pseudofeat.gaussians.moments import ClassMoments, zero_moments
from tf_pseudofeat.gaussians.moments_estimation import moments_of_batches
from tf_pseudofeat.gaussians.moments_file import (
    load_moments,
    read_moments,
    save_moments,
)
from tf_pseudofeat.gaussians.moments_merge import merge_moments
from tf_pseudofeat.gaussians.rank import check_rank

__all__ = ["ExtractedPart", "extract_part", "finish_parts", "merge_parts"]

MOMENTS = "moments.npz"
_PART = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_ATTEMPT = rf"{_PART.pattern}-[0-9a-f]{{32}}"
_MOMENTS_FILE = re.compile(rf"(?:{re.escape(UNFINISHED)})?moments-({_ATTEMPT})\.npz")
_SHARD = re.compile(rf"({_ATTEMPT})-\d{{5,}}")


@dataclasses.dataclass(frozen=True)
class ExtractedPart:
    """What one attempt at a part wrote. It is small, and can be pickled.

    Attributes:
        part: id of the part, as text; whole numbers have eight digits.
        attempt: the id with a unique suffix, the prefix of the names of its files.
        shards: names of its shards; empty for a part without rows.
        num_rows: number of its rows.
        digest: checksum of its inputs and labels in any order, by which attempts at the
            same part are recognized.
    """

    part: str
    attempt: str
    shards: tuple[str, ...]
    num_rows: int
    digest: int


Extracted = ExtractedPart | Mapping[str, ExtractedPart]


def extract_part(
    part: int | str,
    rows: Iterable[tuple[Any, Any]],
    served: str | os.PathLike,
    folder: str | os.PathLike,
    num_classes: int,
    kind: str = "full",
    rank: int | None = None,
    *,
    batch_size: int = 256,
    rows_per_shard: int | None = None,
) -> ExtractedPart:
    """Extracts the features and moments of one part of the data, in a worker.

    The SavedModel is loaded once per process. An attempt that fails removes its files;
    those of a process that was killed are removed by `finish_parts`.

    Args:
        part: id of this part: a whole number from 0, or letters, digits, `_`, `-`, `.`.
        rows: `(input, label)`, the same examples in every attempt at the part; or
            batches of them, `(inputs [B, ...], labels [B])`. Which of both follows from
            the shapes of the endpoint. A model with several inputs takes dicts by name.
        served: folder of a SavedModel with the endpoint `features`, as
            `export_classifier(model, path, layer_name=...)` writes it; `gs://` as well.
        folder: folder that all workers share, local or on a network file system. A
            bucket must be mounted, since `load_features` maps the files into memory.
        num_classes: C.
        kind: "full", "tied", "diag" or "low_rank", see `ClassMoments`.
        rank: of "low_rank", see `moments_of`.
        batch_size: batch size of the trunk for single rows.
        rows_per_shard: see `ShardWriter`.

    Returns:
        extracted: `ExtractedPart`, for `merge_parts`.

    Raises:
        OSError: If there is no SavedModel at `served`, or `folder` cannot be written
            to.
        TypeError: If `rows` is not iterable, or `part` or a path has another type.
        ValueError: If another argument is invalid or the folder already holds a set,
            before any row is read; or if rows do not fit the endpoint, a label is out
            of range, or features are NaN or infinite.

    Examples:
        >>> part = extract_part(0, zip(images, labels), "served/1", "parts", 10)
        >>> part.num_rows == len(labels)
        True
    """
    part = _part_id(part)
    num_classes = whole_number("num_classes", num_classes)
    zero_moments(1, 1, kind)  # checks the kind
    check_rank(kind, rank)
    batch_size = whole_number("batch_size", batch_size)
    if not isinstance(rows, Iterable) or isinstance(rows, str | bytes | Mapping):
        raise TypeError(
            f"`rows` must be an iterable of (input, label); received {rows!r:.200}."
        )
    if is_infinite(rows):
        raise ValueError(
            "`rows` is infinite (`repeat()`?); pass it without `repeat()`, or "
            "`rows.take(n)`."
        )
    folder = shared_folder(folder)
    check_no_index(folder)
    model = cached_model(served)
    attempt = f"{part}-{uuid.uuid4().hex}"
    digest = RowDigest()
    with ShardWriter(folder, rows_per_shard, attempt) as writer:
        batches = _written(rows, model, batch_size, writer, digest)
        first = next(batches, None)
        if first is not None:
            batches = itertools.chain([first], batches)
            moments = moments_of_batches(batches, num_classes, kind, rank)
            save_moments(moments, _moments_path(folder, attempt))
    shards = tuple(writer.shards)
    return ExtractedPart(part, attempt, shards, digest.num_rows, digest.value)


def merge_parts(first: Extracted, second: Extracted) -> dict[str, ExtractedPart]:
    """Joins results of `extract_part`: commutative, associative and idempotent.

    Of several attempts at the same part one is kept, whatever the order. Moments are
    not merged here but in `finish_parts`, so what engines exchange stays small.

    Args:
        first: `ExtractedPart`, or what `merge_parts` returned; {} for no part.
        second: likewise.

    Returns:
        merged: {id: `ExtractedPart`}.

    Raises:
        TypeError: If one of them is something else.
        ValueError: If attempts at the same part had different examples.

    Examples:
        >>> parts = [
        ...     extract_part(number, rows, "served/1", "parts", 10)
        ...     for number, rows in enumerate([zip(images, labels), []])
        ... ]
        >>> len(merge_parts(merge_parts(parts[0], parts[1]), parts[1]))
        2
    """
    merged = dict(_by_id(first))
    for part, found in _by_id(second).items():
        known = merged.setdefault(part, found)
        if (known.num_rows, known.digest) != (found.num_rows, found.digest):
            raise ValueError(
                f"Part {part!r} was extracted from different examples: one attempt had "
                f"{known.num_rows} rows, another {found.num_rows}, or other ones. Give "
                f"each part an id of its own, and read the same rows in every attempt: "
                f"without shuffling, or with a fixed seed."
            )
        merged[part] = min(known, found, key=lambda extracted: extracted.attempt)
    return merged


def finish_parts(
    folder: str | os.PathLike, merged: Extracted, num_parts: int
) -> ClassMoments:
    """Makes the folder a set of features, with the moments of all rows.

    Writes `moments.npz` for `load_moments` and the index for `load_features`, and
    removes the files of attempts that do not count. The last step, on one machine; it
    holds the moments of two parts in memory. It may be repeated, also after it was
    killed.

    Args:
        folder: `folder` of `extract_part`.
        merged: what `merge_parts` returned for all parts.
        num_parts: number of parts that were to be extracted.

    Returns:
        moments: `ClassMoments`.

    Raises:
        TypeError: If `merged` or `folder` has another type.
        ValueError: If parts are missing, no part has rows, files are missing, or the
            folder holds another set.
        OSError: If a file cannot be read or written.

    Examples:
        >>> part = extract_part(0, zip(images, labels), "served/1", "parts", 10)
        >>> finish_parts("parts", part, num_parts=1).feature_size
        32
        >>> features, labels = load_features("parts")
    """
    folder = shared_folder(folder)
    merged = _by_id(merged)
    _check_complete(merged, whole_number("num_parts", num_parts))
    parts = [merged[part] for part in sorted(merged) if merged[part].num_rows]
    shards = sorted_shards(name for part in parts for name in part.shards)
    path = folder / MOMENTS
    if indexed_shards(folder) == shards and path.exists():  # finished before
        moments = load_moments(path)
    else:
        check_no_index(folder)
        moments = _merged_moments(folder, parts)
        save_moments(moments, path)
        write_index(folder, shards)
    _remove_others(folder, {part.attempt for part in parts})
    return moments


def _part_id(part):
    if isinstance(part, numbers.Integral) and not isinstance(part, bool) and part >= 0:
        return f"{part:08d}"
    if isinstance(part, str) and _PART.fullmatch(part):
        return part
    error = ValueError if isinstance(part, str | numbers.Integral) else TypeError
    raise error(
        f"`part` must be a whole number from 0, or up to 100 letters, digits, '_', '-' "
        f"and '.'; received {part!r:.200}."
    )


def _moments_path(folder, attempt):
    return folder / f"moments-{attempt}.npz"


def _written(rows, model, batch_size, writer, digest):
    """Yields batches `(features, labels)` after they were added to the writer."""
    for inputs, labels in batches_of_rows(rows, endpoint_specs(model), batch_size):
        features = features_of_inputs(model, inputs)
        digest.add(inputs, labels)
        writer.add(features, labels)
        yield features, labels


# Results.


def _by_id(extracted):
    if isinstance(extracted, ExtractedPart):
        return {extracted.part: extracted}
    is_mapping = isinstance(extracted, Mapping)
    if not is_mapping or not all(
        isinstance(found, ExtractedPart) and found.part == part
        for part, found in extracted.items()
    ):
        raise TypeError(
            f"Expected results of `extract_part` or `merge_parts`; received a "
            f"{type(extracted).__name__}. Use functools.reduce(merge_parts, results)."
        )
    return extracted


def _check_complete(merged, num_parts):
    if len(merged) != num_parts:
        expected = [_part_id(number) for number in range(num_parts)]
        are_numbers = merged.keys() <= set(expected)
        missing = [part for part in expected if part not in merged] * are_numbers
        raise ValueError(
            f"{num_parts} parts were expected; received {len(merged)}"
            + (f", without {', '.join(missing[:9])}" if missing else "")
            + ". Extract the missing ones, or pass the right `num_parts`."
        )
    if not any(part.num_rows for part in merged.values()):
        raise ValueError(f"None of the {num_parts} parts has rows: there is no set.")


def _merged_moments(folder, parts):
    """Merges the moments of parts in their order."""
    total = None
    for part in parts:
        path = _moments_path(folder, part.attempt)
        try:
            with open_plain(path) as file:
                moments = read_moments(file, path)
        except FileNotFoundError as error:
            raise ValueError(
                f"{path} is missing: part {part.part!r} was written to another folder, "
                f"or its files were removed. Pass the folder of `extract_part`, which "
                f"all workers must share, or extract the part again."
            ) from error
        total = moments if total is None else merge_moments(total, moments)
    return total


def _remove_others(folder, attempts):
    """Removes files of attempts that do not count, and the moments of single parts."""
    for path, _, shard in list(shard_files(folder)):
        match = _SHARD.fullmatch(shard)
        if match and (match[1] not in attempts or path.name.startswith(UNFINISHED)):
            path.unlink(missing_ok=True)
    for path in list(folder.iterdir()):
        if _MOMENTS_FILE.fullmatch(path.name):
            path.unlink(missing_ok=True)
