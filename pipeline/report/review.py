"""Labels that may be wrong, as a file that a spreadsheet opens without doing what a cell says."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from pipeline.report.scored import Item

# A cell that begins with one of these is a formula to Excel, LibreOffice or Google Sheets.
# Source: OWASP, CSV Injection.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four: full width


def review(items: Sequence[Item]) -> bytes:
    """Return a CSV file with a row an item: id, title, tags, given and predicted path, probability, part."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["item_id", "title", "tags", "given_path", "predicted_path", "probability", "part"])
    for item in items:
        cells = (item.item_id, item.title, item.tags, item.given, item.predicted)
        writer.writerow([*map(neutral, cells), f"{item.probability:.4f}", item.part])
    return text.getvalue().encode("utf-8-sig")  # with the mark by which Excel knows UTF-8


def neutral(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: an apostrophe before what would begin one.

    >>> neutral("=HYPERLINK(1)"), neutral("Alien"), neutral(" @x")
    ("'=HYPERLINK(1)", 'Alien', "' @x")
    """
    return f"'{text}" if text.startswith(FORMULAS) or text.lstrip().startswith(FORMULAS) else text
