"""What is read of CSV and JSON, and what an error says."""

import json
import re

import pytest

from examples.table_rows import Input, check_rows, read_rows

MATRIX = {"features": Input("float32", (3,))}
COLUMNS = {
    "age": Input("int64", ()),
    "dose": Input("float32", (1,)),
    "job": Input("string", ()),
}
FITS = {"age": 3, "dose": 0.5, "job": "cook"}


@pytest.fixture
def read(tmp_path):
    """Rows of a text, in a file of that name."""

    def read(name, text):
        (tmp_path / name).write_text(text, "utf-8")
        return read_rows(tmp_path / name)

    return read


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "1,2,3\n4, 5.5 ,-6e-1\n"),
        ("a.CSV", "\ufeffred,green,blue\r\n1,2,3\r\n\r\n4,5.5,-0.6\r\n"),
        ("a.json", "[[1, 2, 3], [4, 5.5, -0.6]]"),
        ("a.json", '{"instances": [[1, 2, 3], [4, 5.5, -0.6]]}'),
        ("a.json", '[{"r": 1, "g": 2, "b": 3}, {"b": -0.6, "g": 5.5, "r": 4}]'),
        ("a.json", '[{"features": [1, 2, 3]}, {"features": [4, 5.5, -0.6]}]'),
    ],
)
def test_rows_of_one_input(read, name, text):
    rows = check_rows(read(name, text), MATRIX, name)
    assert rows == [{"features": [1, 2, 3]}, {"features": [4, 5.5, -0.6]}]
    assert all(type(x) is float for row in rows for x in row["features"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'job,age,dose\n"cook, head",3.0,.5\n'),
        ("a.json", json.dumps([{"age": 3, "dose": [0.5], "job": "cook, head"}])),
        ("a.json", json.dumps([{"age": 3.0, "dose": 0.5, "job": "cook, head"}])),
    ],
)
def test_rows_of_several_inputs(read, name, text):
    (row,) = check_rows(read(name, text), COLUMNS, name)
    assert row == {"age": 3, "dose": [0.5], "job": "cook, head"}
    assert type(row["age"]) is int


def test_a_whole_number_keeps_its_last_digit():
    number = 2**53 + 1
    one = {"x": Input("int64", ())}
    for given in (number, str(number)):
        assert check_rows([[given]], one, "a") == [{"x": number}]


def test_a_server_that_does_not_say_gets_numbers(read):
    rows = read("a.csv", "a,b\n1,2\n")
    assert check_rows(rows, None, "a.csv") == [[1, 2]]
    rows = [{"x": [1.5], "y": 2, "z": "text"}]
    assert check_rows(rows, None, "a.json") == rows
    for wrong in ([{"x": [float("nan")]}], [["x"]], [[float("inf")]], [{"x": "nan"}]):
        with pytest.raises(ValueError, match="expected a finite number"):
            check_rows(wrong, None, "a")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            [1, 2],
            "received 2 values; expected 3, as input 'features' is float32 [B, 3]",
        ),
        ([1, 2, 3, 4], "received 4 values; expected 3.*Remove the rest"),
        ([], "received 0 values; expected 3.*Add what is missing"),
        (["1", "x", "3"], "received 'x'; expected a finite number (float32). Correct"),
        (["1", "", "3"], "received ''; expected a finite number"),
        (["1", "nan", "3"], "received 'nan'; expected a finite number.*fill it in"),
        ([1, float("-inf"), 3], "received -inf; expected a finite number"),
        (["1", "1e39", "3"], "received '1e39'; expected a finite number (float32)"),
        ([1, 10**400, 3], "expected a finite number"),
        ([1, "1_0", 3], "received '1_0'; expected a finite number"),
        ([1, True, 3], "received True; expected a finite number"),
        ([1, None, 3], "received None; expected a finite number"),
        ([1, [2], 3], "received [2]; expected a finite number"),
        ({"a": 1}, "received 1 values; expected 3"),
    ],
)
def test_a_row_that_does_not_fit_one_input(row, words):
    with pytest.raises(ValueError, match=_pattern(f"a.csv, row 1.*{words}")):
        check_rows([row], MATRIX, "a.csv")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([3, 0.5, "cook"], "3 values without names; expected a value for each of"),
        ({"age": 3, "job": "cook"}, "expected ['age', 'dose', 'job'].*add ['dose']"),
        (FITS | {"id": 7}, "received the columns ['age',.*remove ['id']"),
        ({"Age": 3, "dose": 1, "job": ""}, "add ['age'] and remove ['Age']"),
        (FITS | {"age": 3.5}, "'age': received 3.5; expected a whole number"),
        (FITS | {"age": 2**63}, "expected a whole number from -9223372036854775808 to"),
        (FITS | {"age": "inf"}, "'age': received 'inf'; expected a whole number"),
        (FITS | {"job": 7}, "'job': received 7; expected a text"),
        (FITS | {"dose": [1, 2]}, "received 2 values; expected 1, as input 'dose'"),
    ],
)
def test_a_row_that_does_not_fit_several_inputs(row, words):
    with pytest.raises(ValueError, match=_pattern(f"a.json, row 2.*{words}")):
        check_rows([FITS, row], COLUMNS, "a.json")


def test_rows_that_are_not_alike():
    rows = [{"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2, "d": 3}]
    with pytest.raises(
        ValueError, match=r"row 2: received the columns \['a', 'b', 'd'"
    ):
        check_rows(rows, MATRIX, "a.json")
    with pytest.raises(ValueError, match=r"row 2: received a list; expected the col"):
        check_rows([rows[0], [1, 2, 3]], MATRIX, "a.json")


def test_an_input_that_takes_no_rows():
    for shape, dtype, words in (
        ((8, 8, 1), "uint8", r"'x' is uint8 \[B, 8, 8, 1\].*send an image"),
        ((), "bool", "'x' is bool; expected numbers or texts"),
    ):
        with pytest.raises(ValueError, match=words):
            check_rows([[1]], {"x": Input(dtype, shape)}, "a.csv")
    open_width = {"x": Input("float32", (None,))}
    assert check_rows([[1, 2]], open_width, "a.csv") == [{"x": [1, 2]}]
    assert str(open_width["x"]) == "float32 [B, any]"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "has no rows; expected at least one"),
        ("a.csv", b"age,dose\n", "has no rows"),
        ("a.json", b"[]", "has no rows"),
        ("a.csv", b"a,b\n1\n", "row 1: received 1 cells; expected 2, as in the header"),
        (
            "a.csv",
            b"a,a\n1,2\n",
            "has the column 'a' twice; expected each once. Rename",
        ),
        ("a.json", b"[1, 2]", "expected a list of rows.*Put brackets around"),
        ("a.json", b'{"a": 1}', "expected a list of rows"),
        ("a.json", b"[1", "is not JSON: .*Expected a list of rows"),
        ("a.json", b"[" * 100_000, "is not JSON"),
        ("a.csv", b"\xff\xfe1", "is not UTF-8 text; expected CSV or JSON. Save it as"),
        ("a.csv", b'"' + b"1" * 200_000, "is not CSV: "),
    ],
)
def test_a_file_that_is_no_table(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=_pattern(f"{name}.*{words}")):
        read_rows(tmp_path / name)


def _pattern(words):
    """Words with `.*` in them, as a pattern; the rest stands for itself."""
    return ".*".join(map(re.escape, words.split(".*")))
