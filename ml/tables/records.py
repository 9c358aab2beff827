"""JSON records become a table: an array of objects, or one object a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ml.errors import TableError, in_quotes
from ml.tables.columns import Columns, text_of
from ml.tables.rows import Block
from ml.tables.table import Bounds, Table


def read_records(first: str, texts: Iterator[str], bounds: Bounds) -> Table:
    """Return the table of records; its columns are the members of all of them, in the order in which they come.

    Args:
        first: the start of the text, which has more than a mark of order.
        texts: what follows.

    Raises:
        TableError: this is no JSON of records; they have objects or arrays in them; there are too many.
    """
    text = "".join([first.removeprefix("\ufeff"), *texts])
    try:
        if text.lstrip().startswith("["):
            records = msgspec.json.decode(text, type=list[dict[str, Any]])
        else:
            records = msgspec.json.Decoder(dict[str, Any]).decode_lines(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise TableError(f"the JSON is no array of objects, and not one object a line: {error}") from error
    header = [*dict.fromkeys(name for record in records for name in record)]
    columns = Columns(header, bounds, line="record")
    if len(records) * len(header) > bounds.max_cells:
        raise TableError(f"more than {bounds.max_cells} cells")
    for number, record in enumerate(records, 1):
        columns.take(Block([[_cell(record.get(name), name, number) for name in header]], [number], None))
    return columns.table([f"{len(records)} JSON records"], has_types=True)


def _cell(value: object, name: str, number: int) -> str:
    if isinstance(value, dict | list):
        raise TableError(f"record {number}, {in_quotes(name)}: {in_quotes(str(value))} is no value of a cell")
    return str(value).lower() if isinstance(value, bool) else text_of(value)
