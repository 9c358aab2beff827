"""How the query of a request says that its file is read: marks and encoding. Knows nothing of tables."""

from __future__ import annotations

from collections.abc import Mapping

from ml.errors import TableError
from ml.tables.encoding import as_text, encoding_named
from ml.tables.marks import Marks, marks_named
from web.problems import Problem

_UTF_8 = (b"", b"utf-8", b"utf8", b"us-ascii")


def check_names(query: Mapping[str, str], *known: str) -> None:
    """Refuse a query that has other parameters: one that is misspelt would change nothing.

    Raises:
        Problem: 400, naming the first one.
    """
    if other := next((name for name in query if name not in known), None):
        raise Problem(400, f"parameter {as_text(other[:80])!r} is not known; known are {', '.join(known)}")


def marks_in(query: Mapping[str, str]) -> Marks | None:
    """Return the marks that a query names for the numbers of its table.

    Raises:
        Problem: 400, there are no such marks.
    """
    try:
        return marks_named(query.get("decimal"), query.get("thousands"))
    except TableError as error:
        raise Problem(400, str(error)) from error


def encoding_in(query: Mapping[str, str], charset: bytes = b"") -> str:
    """Return the encoding that a query names for its table, or else the charset of its content type; empty for none.

    Raises:
        Problem: 400, there is no such encoding; 415, no such charset.
    """
    name = query.get("encoding", "")
    try:
        # A table that is called UTF-8 may be in another encoding all the same: that is the default of many programs.
        return encoding_named(name) or ("" if charset.lower() in _UTF_8 else encoding_named(charset.decode("latin-1")))
    except TableError as error:
        raise Problem(400 if name else 415, str(error)) from error
