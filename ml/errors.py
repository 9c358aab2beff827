"""The errors of `ml`.

MLError
├── ForestError       arrays that are not a forest
├── ModelFileError    a file that cannot be written, read or served, or does not answer as its library does
├── TableError        a table, or what is said of it, that cannot be used
└── InvalidSample     a sample with errors, feature by feature  (ml/model/sample.py)
"""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN_CHARACTERS = 60


class MLError(Exception):
    """Base of the tree. The message is one sentence for the person who gave the input."""


class TableError(MLError):
    """The table, or an option that says something of it, cannot be read, trained on, scored or written.

    Attributes:
        details: further sentences, such as one for each of several columns.
        remedies: what would help: when, in words, and the options of the command line.
    """

    def __init__(
        self, message: str, *, details: Sequence[str] = (), remedies: Sequence[tuple[str, Sequence[str]]] = ()
    ) -> None:
        super().__init__(message)
        self.details = tuple(details)
        self.remedies = tuple(remedies)

    def of(self, name: object) -> TableError:
        """Return the same error with the name of its table in front."""
        return TableError(f"{name}: {self}", details=self.details, remedies=self.remedies)


class ForestError(MLError):
    """The arrays are not a forest of decision trees."""


class ModelFileError(MLError):
    """The file cannot be served: damaged, crafted, of a newer format, or its answers are not those of its library."""


def in_quotes(text: str) -> str:
    """Return untrusted text as a message shows it: within quotes, and not too much of it."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def shown(value: object) -> str:
    """Return an untrusted value short and on one line, for a message."""
    text = " ".join(str(value).split())[:200]
    return text if text.isprintable() else ascii(text)
