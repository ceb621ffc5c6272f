"""Tables as plain text and as Markdown."""

from collections.abc import Sequence

from tabulate import DataRow, TableFormat, tabulate

# Without tabulate's padding, which a changed cell would change in all rows.
_MARKDOWN = TableFormat(
    lineabove=None, linebelow=None, linebetweenrows=None,
    linebelowheader=lambda widths, _: "|" + "---|" * len(widths),
    headerrow=DataRow("| ", " | ", " |"),
    datarow=DataRow("| ", " | ", " |"), padding=0, with_header_hide=None)


def _escaped(cell: str) -> str:
    """What would end a cell or a row, as in a path."""
    return cell.replace("|", "\\|").replace("\n", " ")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]
                   ) -> list[str]:
    """Lines: the header, the rule below it, a line for each row."""
    header, *rows = [[_escaped(cell) for cell in row]
                     for row in (header, *rows)]
    return tabulate(
        rows, header, _MARKDOWN, disable_numparse=True, stralign=None,
        preserve_whitespace=True).splitlines()


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]
                ) -> list[str]:
    """Lines: the header and a line for each row; numbers to the right."""
    alignment = ["left", *["right"] * (len(header) - 1)]
    # As a row: tabulate makes columns wider than their headers.
    return tabulate(
        [header, *rows], tablefmt="plain", disable_numparse=True,
        colalign=alignment, preserve_whitespace=True).splitlines()
