"""Rows of numbers out of a CSV or JSON file, checked against what a model takes.

Needs nothing but Python, as the client does over REST. A model takes its columns in one
of two ways:

    features [B, D]       in the order of the first row; names of columns are for
                          people then, and are not sent
    age [B], job [B, 1]   one column for each input, found by its name: in the header
                          of CSV, in the keys of JSON, in any order

The first line of CSV is a header where none of its cells is a number. JSON is a list of
rows, each a list of numbers or an object {name: value}, or {"instances": [...]}, as
TensorFlow Serving takes it. An input of several numbers beside others, `vector` [B, 3],
is a list there, and not to be had by CSV.
"""

import csv
import io
import json
import math
import pathlib
import sys
import typing

__all__ = ["Input", "check_rows", "read_rows"]

_LARGEST = {
    "float16": 65504.0,
    "bfloat16": 3.3895314e38,
    "float32": 3.4028235e38,
    "float64": sys.float_info.max,
}
_WHOLE = {f"uint{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)} | {
    f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)
}


class Input(typing.NamedTuple):
    """What a signature says of one input.

    Args:
        dtype: name such as "float32".
        shape: tuple, without the batch; None for a size that is open. None where the
            number of dimensions is open, too.
    """

    dtype: str
    shape: tuple[int | None, ...] | None

    @property
    def width(self) -> int | None:
        """Values of one row in a single line; None where that is open."""
        return (
            None if self.shape is None or None in self.shape else math.prod(self.shape)
        )

    def __str__(self) -> str:
        sizes = [
            "B",
            *("any" if size is None else str(size) for size in self.shape or ()),
        ]
        return self.dtype + (f" [{', '.join(sizes)}]" if self.shape is not None else "")


def read_rows(path):
    """The rows of a file, as they stand there.

    Args:
        path: of a file that ends in .csv or .json.

    Returns:
        rows: list of lists, or of dicts by the name of a column. Cells of CSV are
            strings.

    Raises:
        ValueError: The file has no rows, or is not what its name says.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} is not UTF-8 text; expected CSV or JSON. Save it as UTF-8."
        ) from None
    rows = (
        _of_csv(path, text) if path.suffix.lower() == ".csv" else _of_json(path, text)
    )
    if not rows:
        raise ValueError(f"{path} has no rows; expected at least one. Add it.")
    return rows


def check_rows(rows, inputs, origin):
    """The rows as a server takes them.

    Args:
        rows: of `read_rows`.
        inputs: {name: `Input`} of the signature; None where the server does not tell.
            Rows are then sent in their own form, all as numbers.
        origin: of the rows, such as the name of the file, for errors.

    Returns:
        rows: for each a dict {name: value} if there are `inputs`, else a list of
            numbers or such a dict.

    Raises:
        ValueError: A row does not fit: a column too few or too many, a name that is
            missing, a text for a number, NaN or infinity.
    """
    checked = []
    for number, row in enumerate(rows, start=1):
        where = f"{origin}, row {number}"
        if inputs is None:
            checked.append(_unknown(row, where))
        elif len(inputs) > 1 or (isinstance(row, dict) and row.keys() == inputs.keys()):
            checked.append(_by_name(row, inputs, where))
        else:
            ((name, one),) = inputs.items()
            cells = _in_order(row, rows[0], where)
            checked.append({name: _value(cells, name, one, where)})
    return checked


def _of_csv(path, text):
    """Lists, or dicts where the first line is a header."""
    try:
        lines = [
            row for row in csv.reader(io.StringIO(text)) if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise ValueError(
            f"{path} is not CSV: {error}. Expected rows of cells with commas between."
        ) from None
    if not lines or any(_is_number(cell) for cell in lines[0]):
        return lines
    header, *rows = ([cell.strip() for cell in line] for line in lines)
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise ValueError(
            f"{path}: the header has the column {twice!r} twice; expected each once. "
            f"Rename one."
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(
                f"{path}, row {number}: received {len(row)} cells; expected "
                f"{len(header)}, as in the header. Correct the row."
            )
    return [dict(zip(header, row, strict=True)) for row in rows]


def _of_json(path, text):
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not JSON: {error}. Expected a list of rows."
        ) from None
    if isinstance(rows, dict) and rows.keys() == {"instances"}:
        rows = rows["instances"]
    if not isinstance(rows, list) or not all(isinstance(r, list | dict) for r in rows):
        raise ValueError(
            f"{path}: expected a list of rows, [[1, 2], [3, 4]] or "
            f'[{{"age": 1, "job": 2}}]. Put brackets around a single row.'
        )
    return rows


def _in_order(row, first, where):
    """The values of a row, in the order of the columns of the first one."""
    if type(row) is not type(first) or (
        isinstance(row, dict) and row.keys() != first.keys()
    ):
        raise ValueError(
            f"{where}: received {_columns(row)}; expected {_columns(first)}, as in row "
            f"1. Give all rows the same columns."
        )
    return [row[name] for name in first] if isinstance(row, dict) else row


def _columns(row):
    return f"the columns {list(row)}" if isinstance(row, dict) else "a list"


def _by_name(row, inputs, where):
    """{name: value} of a row, for each of several inputs."""
    if not isinstance(row, dict):
        raise ValueError(
            f"{where}: received {len(row)} values without names; expected a value for "
            f"each of the inputs {sorted(inputs)}. Put their names into the first line "
            f"of CSV, or send objects of JSON."
        )
    missing, unknown = sorted(inputs.keys() - row), sorted(row.keys() - inputs)
    if missing or unknown:
        hints = [f"add {missing}"] * bool(missing)
        hints += [f"remove {unknown}"] * bool(unknown)
        raise ValueError(
            f"{where}: received the columns {sorted(row)}; expected {sorted(inputs)}. "
            f"To mend it, {' and '.join(hints)}."
        )
    return {name: _value(row[name], name, one, where) for name, one in inputs.items()}


def _value(cells, name, one, where):
    """What an input takes of a row: one value, or a list of them."""
    if one.shape is not None and len(one.shape) > 1:
        raise ValueError(
            f"{where}: input {name!r} is {one}; expected one that takes a row of "
            f"values, [B] or [B, D]. Name another --signature, or send an image."
        )
    cells = cells if isinstance(cells, list) else [cells]
    if one.width is not None and len(cells) != one.width:
        raise ValueError(
            f"{where}: received {len(cells)} values; expected {one.width}, as input "
            f"{name!r} is {one}. "
            + ("Add what is missing." if len(cells) < one.width else "Remove the rest.")
        )
    values = [_cell(cell, name, one.dtype, where) for cell in cells]
    return values[0] if one.shape == () else values


def _unknown(row, where):
    """A row for a server that does not say what it takes."""
    if isinstance(row, list):
        return [_cell(cell, "", "float32", where) for cell in row]
    if all(isinstance(cell, str) for cell in row.values()):  # of CSV
        return [_cell(cell, name, "float32", where) for name, cell in row.items()]
    for name, value in row.items():
        for cell in value if isinstance(value, list) else [value]:
            if isinstance(cell, float):
                _cell(cell, name, "float32", where)
    return row


def _cell(cell, name, dtype, where):
    """One value, as JSON is to have it."""
    if dtype == "string":
        if isinstance(cell, str):
            return cell
        expected = "a text"
    elif dtype in _WHOLE:
        least, most = _WHOLE[dtype]
        expected = f"a whole number from {least} to {most} ({dtype})"
        whole = _is_number(cell) and float(cell).is_integer()
        if whole and least <= _whole(cell) <= most:
            return _whole(cell)
    elif dtype in _LARGEST:
        expected = f"a finite number ({dtype})"
        if _is_number(cell) and abs(float(cell)) <= _LARGEST[dtype]:
            return float(cell)
    else:
        raise ValueError(
            f"{where}: input {name!r} is {dtype}; expected numbers or texts, which are "
            f"what this client sends of a table. Use TensorFlow Serving's API for it."
        )
    column = f", {name!r}" if name else ""
    raise ValueError(
        f"{where}{column}: received {cell!r}; expected {expected}. Correct it, or fill "
        f"it in as in the training data."
    )


def _is_number(cell):
    """Whether it reads as a number: True for NaN and infinity, False for a bool."""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return False
    try:
        float(cell)
    except (ValueError, OverflowError):
        return False
    return "_" not in str(cell)  # which Python's numbers may have


def _whole(cell):
    """An int to the last digit, also above 2**53."""
    try:
        return int(cell)
    except ValueError:  # "3.0"
        return int(float(cell))
