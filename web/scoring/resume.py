"""Where a file goes on that was sent in part: the text that WS /score gives to its client, and takes back."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ml.errors import TableError
from ml.scoring.layout import Place
from ml.tables.encoding import encoding_named
from web.problems import Problem

# A table has at most 10,000 columns, whose numbers have at most four digits.
MAX_CHARACTERS = 2**16


class Resume(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a file goes on.

    Attributes:
        read: the byte of its text, counted from 0, at which the row of `place` starts.
        encoding: that was found out; empty while it is not known.
        is_gzip: whether the text is packed: then the whole file is sent again, and what was read is passed over.
    """

    read: Annotated[int, Meta(ge=0, le=2**53)]
    place: Place
    encoding: Annotated[str, Meta(max_length=20)]
    is_gzip: bool = False


def resume_of(text: str) -> Resume:
    """Return what a client has sent to resume a file.

    Raises:
        Problem: 400, it resumes none.
    """
    try:
        if len(text) > MAX_CHARACTERS:
            raise TableError("the text that resumes a file is too long")
        resume = msgspec.json.decode(text, type=Resume)
        encoding_named(resume.encoding)
        return resume
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TableError) as error:
        raise Problem(400, "the text resumes no file: send the resume of the last rows as it came") from error
