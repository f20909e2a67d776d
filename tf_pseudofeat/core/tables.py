"""Text and tables for the terminal and for notebooks."""

import dataclasses
import html

__all__ = ["Page", "Table", "data_frame"]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a header.

    Args:
        header: name of each column.
        rows: lists of strings, one for each column.
        left: number of leading columns that are left-aligned; the others are
            right-aligned.
        rule: whether to print a line of dashes under the header.
    """

    header: tuple[str, ...]
    rows: list
    left: int = 1
    rule: bool = False

    def __str__(self):
        rows = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if place < self.left else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        if self.rule:
            lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(lines)

    def to_html(self):
        """The table as HTML; every cell is escaped."""
        head = "".join(self._cell("th", *cell) for cell in enumerate(self.header))
        body = "".join(
            f"<tr>{''.join(self._cell('td', *cell) for cell in enumerate(row))}</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _cell(self, tag, place, text):
        side = "left" if place < self.left else "right"
        return f'<{tag} style="text-align:{side}">{html.escape(text)}</{tag}>'


def data_frame(columns, index, index_name):
    """Creates a pandas DataFrame, for the methods `to_frame`.

    Args:
        columns: {name: list of N values}.
        index: list of N labels.
        index_name: name of the index.

    Raises:
        ImportError: If pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("`to_frame` needs pandas: pip install pandas.") from error
    return pandas.DataFrame(columns, index=pandas.Index(index, name=index_name))


class Page:
    """An object that prints as paragraphs and tables, and renders in a notebook.

    Subclasses implement `_parts()`, which returns a list of strings and `Table`
    objects.
    """

    def _parts(self):
        raise NotImplementedError

    def __str__(self):
        return "\n\n".join(map(str, self._parts()))

    def _repr_html_(self):
        return "\n".join(
            part.to_html()
            if isinstance(part, Table)
            else f'<p style="white-space:pre-wrap">{html.escape(part)}</p>'
            for part in self._parts()
        )

    def _repr_pretty_(self, printer, cycle):
        """Prints in IPython's terminal as `print` does, without the fields."""
        printer.text(str(self))
