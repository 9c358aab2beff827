"""Odd tables for every channel that scores a file, and what must come out of each."""

from __future__ import annotations

import io
import zipfile
from contextlib import closing

from hypothesis import strategies as st

from ml.model.loaded import LoadedModel
from ml.scoring.source import Source
from ml.scoring.text import score

HEADER = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)"
GOOD = "5.6,2.7,4.2,1.3"
SLICE_BYTES = 65_536


def _with_marks(table: str, separator: str, mark: str = ".") -> str:
    return table.replace(",", separator).replace(".", mark)


_QUOTED_HEADER = ", ".join(f'"{name}"' for name in HEADER.split(","))
_TEXTS = {
    "commas": f"{HEADER}\n{GOOD}\n",
    "a mark in front, no end of line": f"\ufeff{HEADER}\r\n{GOOD}",
    "returns alone": f"{HEADER}\r{GOOD}\r\r{GOOD}\r",
    "semicolons and decimal commas": _with_marks(f"{HEADER},note\n{GOOD},=1\n", ";", ","),
    "tabs, and a comma in a name": f'"a,b"\t{_with_marks(HEADER, chr(9))}\nx\t{_with_marks(GOOD, chr(9))}\n',
    "quotes": f'"note\n1",{HEADER}\n"a ""b"", c\r\nd",{GOOD}\n"x"y,{GOOD}\n5" pipe,{GOOD}\n,"5.6"," 2.7 ",4.2,1.3\n',
    "numbers as people type them": f"{HEADER}\n+5.6,.5,5.,1e-3\n\u22121,-0,007,1E0\n5.6\u00a0,2.7,\t4.2,1.3\n",
    "bad rows": (
        f"note,{HEADER}\nx,,2,3,4\nx,a,b,c,d\nx,1,2,3\n\nx,1,2,3,4,5,=6\nx,1_0,nan,inf,0x1\nx,-1,1e39,9e999,1\n"
        f'x,{"9" * 65},{"x" * 500},"\'",""""\n \nx,{GOOD}\n'
    ),
    "columns of the same names": f"{HEADER},predicted_label,prediction_error,prediction_error_2\n{GOOD},a,b,c\n",
    "formulas": f'{HEADER},=a,b\n{GOOD},@x,"1;=2"\n{GOOD},"\n+",-5.6\n{GOOD},-,"\t-1+1"\n{GOOD},＝1,\u200b=1\n',
    "odd cells": f'{HEADER},=a,b\n{GOOD},- ,a\rb\n{GOOD},"a\rb","\r"\n{GOOD},\0,"\0=1"\n{GOOD},"- ",""""\n',
    "only a header": HEADER,
    "wide letters": f"日本,{HEADER}\n" + f"日本語𝄞é,{GOOD}\n" * 5_000,
    "a quoted cell across slices": f'{HEADER},x\n{GOOD},"{"é, " * 40_000}"\n{GOOD},y\n',
    "a doubled quote, then the end of a slice": f'{HEADER},x\n{GOOD},"a"", b\n{"x" * SLICE_BYTES}"\n{GOOD},y\n',
    "a line that says the separator": f"sep=;\r\n{_with_marks(HEADER, ';')}\r\n{_with_marks(GOOD, ';', ',')}\r\n",
    "comments and a title": f"# from a device\n\nMeasurements\n{HEADER}\n{GOOD}\n#,1,2,3\n",
    "a header in a comment": f"# by hand\n# {HEADER}\n{GOOD}\n",
    "row names without a name": _with_marks(_QUOTED_HEADER, " ").replace("  ", " ")
    + "\n"
    + "".join(f'"row {n}" {_with_marks(GOOD, " ")}\n' for n in range(5_000)),
    "white space": f"sepal_length  sepal_width petal_length\tpetal_width note\n {_with_marks(GOOD, '   ')} =1\n5 5\n",
    "vertical bars": _with_marks(f"{HEADER}\n{GOOD}\n", "|"),
    "quotes after spaces": f'"note", {_QUOTED_HEADER}\n"a, b", {GOOD}\n=1, "5.6", 2, 3, 4\n',
    "separators at the end of lines": f"{HEADER},,\n{GOOD},,\n{GOOD},,\n",
    "more separators in the rows": f"{HEADER}\n{GOOD},,\n{GOOD},,\n{GOOD}\n",
    "lines of separators": f"{HEADER}\n,,,\n{GOOD}\n,,,\n\n,,,\n{GOOD}\n,,,\n ,,,\n\n,,,",
    "only bad rows": f"{HEADER}\n" + "a,b,c,d\n" * 300,
}
TABLES = {name: text.encode() for name, text in _TEXTS.items()} | {
    "bytes that are no text": f"{HEADER},n\udce9\n{GOOD},\udcff\n\udcfe,1,1,1,2\n".encode(errors="surrogateescape"),
    "bytes that are no text, after rows without": f"{HEADER},n\n".encode()
    + f"{GOOD},a\n".encode() * 9_000
    + f"?,1,1,1,é\n{GOOD},é\n{GOOD},é\n".encode("latin-1") * 3_000,
    "UTF-16": f"\ufeff日本,{HEADER}\n".encode("utf-16-le") + f"日本𝄞é,{GOOD}\n".encode("utf-16-le") * 5_000,
    "UTF-16 the other way": f"\ufeff{HEADER},n\r\n{GOOD},é\r\n".encode("utf-16-be"),
    "UTF-16 without a mark, and half a letter": f"{HEADER},n\n{GOOD},".encode("utf-16-le") + b"\x00\xd8,\x00\n\x00x",
    "another encoding": f"año,{HEADER}\n".encode() + f"niño \u20ac,{GOOD}\n".encode("cp1252") * 4_000,
}

# Tables in which anything may stand anywhere, in rows of any length; a quote may stay open.
_CELLS = st.one_of(
    st.sampled_from(
        ["- ", "\r", "\0", "a\rb", '"', '""', '"a"', '"x\r\ny"', "=1", "-", "\t1", "'=1", "1,5", "é", "\udcff"]
    ),
    st.text(st.sampled_from("\",;\t\r\n\0=-+@ 1.xé'\u200b\uff1d\udce9"), max_size=6),
)
_ROWS = st.one_of(
    st.builds("{},{},{}".format, _CELLS, st.just(GOOD), _CELLS),
    st.lists(_CELLS, max_size=8).map(",".join),
)


def _table(rows: list[str], first: str, end: str) -> bytes:
    return end.join([f"{first}a,{HEADER},=b", *rows]).encode(errors="surrogateescape")


odd_tables = st.builds(
    _table, st.lists(_ROWS, max_size=8), st.sampled_from(["", "\ufeff"]), st.sampled_from(["\n", "\r\n", "\r"])
)


def guarded(model: LoadedModel, content: bytes) -> bytes:
    """Return the table that `python -m ml score --guarded` makes."""
    sink = io.StringIO(newline="")
    with closing(Source(io.BufferedReader(io.BytesIO(content)))) as source:
        score(model, source, sink, on_bad=lambda _bad: None, guarded=True)
    return sink.getvalue().encode()


def zipped(method: int = zipfile.ZIP_DEFLATED, /, **members: str | bytes) -> bytes:
    """Return a zip file of files, by their names."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()
