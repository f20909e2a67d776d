"""Tests for tables.py: what prints lines up, what renders is escaped."""

import html.parser
import sys
import types

import pytest

from tf_pseudofeat.core.tables import Page, Table, data_frame

TABLE = Table(("class", "n", "recall"), [("ok", "1,200", "98.7"), ["fraud*", "3", "-"]])


def test_columns_line_up():
    assert str(TABLE).splitlines() == [
        "class       n  recall",
        "ok      1,200    98.7",
        "fraud*      3       -",
    ]


def test_more_columns_stand_to_the_left_over_a_rule():
    table = Table(TABLE.header, TABLE.rows, left=3, rule=True)
    assert str(table).splitlines() == [
        "class   n      recall",
        "------  -----  ------",
        "ok      1,200  98.7",  # and no blanks at the end
        "fraud*  3      -",
    ]


def test_a_table_without_rows_is_its_header():
    assert str(Table(("a", "b"), [])) == "a  b"
    assert "<tbody></tbody>" in Table(("a", "b"), []).to_html()


def test_a_row_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="shorter|longer"):
        str(Table(("a", "b"), [("1",)]))


class Cells(html.parser.HTMLParser):
    """Collects the texts and the tags of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def read(text):
    cells = Cells()
    cells.feed(text)
    return cells


def test_cells_are_set_as_in_print_and_escaped():
    table = Table(("<b>", "n"), [("<script>alert(1)</script>", '"&"')])
    cells = read(table.to_html())
    assert cells.texts == ["<b>", "n", "<script>alert(1)</script>", '"&"']
    assert set(cells.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert table.to_html().count("text-align:left") == 2
    assert table.to_html().count("text-align:right") == 2


class Two(Page):
    def _parts(self):
        return ["One line,\nand <b>another</b>.", TABLE]


def test_a_page_prints_its_parts_with_a_line_between():
    assert str(Two()) == f"One line,\nand <b>another</b>.\n\n{TABLE}"


def test_a_page_renders_its_parts():
    rendered = Two()._repr_html_()
    assert rendered.endswith(TABLE.to_html())
    cells = read(rendered)
    assert cells.tags[:2] == ["p", "table"]
    assert cells.texts[0] == "One line,\nand <b>another</b>."
    assert 'style="white-space:pre-wrap"' in rendered  # or lines would run together


def test_a_terminal_of_ipython_shows_what_print_shows():
    shown = []
    Two()._repr_pretty_(types.SimpleNamespace(text=shown.append), cycle=False)
    assert shown == [str(Two())]


def test_a_page_without_parts_is_no_page():
    with pytest.raises(NotImplementedError):
        str(Page())


def test_a_frame_has_named_rows_and_needs_pandas(monkeypatch):
    frame = data_frame({"n": [1200, 3]}, ["ok", "fraud"], "class")
    assert frame.index.name == "class" and frame.loc["fraud", "n"] == 3
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        data_frame({"n": [1200, 3]}, ["ok", "fraud"], "class")
