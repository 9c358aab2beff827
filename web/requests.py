"""Parsing of request headers and queries: content type, negotiation, conditions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote_plus

import msgspec
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from ml.model.values import Repeated
from web.problems import Problem

Representation = Literal["page", "fragment", "json"]

MAX_QUERY_FIELDS = 20_000
# Browsers send some 150 bytes of preferences. Lists are cached with their results, so longer ones would fill memory.
MAX_LIST_BYTES = 1_000
_JSON_BLANKS = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_STARTS = b"{[" + _BYTE_ORDER_MARK[:1] + _JSON_BLANKS
_json_decoder = msgspec.json.Decoder(msgspec.Raw)  # checks, and makes no objects
_END_BYTES = 12
# A shorter frame is one line of nothing but numbers: of other text this short, too much could be numbers.
_LEAST_CSV_BYTES = 16
_TABLE_BLANKS = {9: " ", 10: " ", 13: " "}  # tab, line feed, carriage return
_NUMBER_CELL = re.compile(r"[ \"']*[+-]?[0-9]++(?:[.,][0-9]++)?(?:[eE][+-]?[0-9]++)?[ \"']*")
_JSON_TYPES = ("application/json", "application/problem+json")


def query_of(scope: Scope) -> dict[str, str]:
    """Return the query's fields; of several with one name, the last, as `Repeated`.

    The standard library's parser takes 5 us for four fields, a third of a whole answer; this one takes 2.

    Raises:
        Problem: 400, there are more than `MAX_QUERY_FIELDS`.
    """
    return fields_of_text(scope["query_string"].decode("latin-1"))


def fields_of_text(query: str) -> dict[str, str]:
    """Return the fields of a query in percent-encoding, as `query_of` does."""
    if not query:
        return {}
    parts = query.split("&")
    if len(parts) > MAX_QUERY_FIELDS:
        raise Problem(400, f"the query has more than {MAX_QUERY_FIELDS} fields")
    pairs = [part.partition("=") for part in parts if part]
    if "%" in query or "+" in query:
        pairs = [(unquote_plus(key), "", unquote_plus(value)) for key, _, value in pairs]
    fields = {key: value for key, _, value in pairs}
    return fields if len(fields) == len(pairs) else fields_of([(key, value) for key, _, value in pairs])


def fields_of(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return fields by name; of several with one name, the last, as `Repeated`."""
    counts = Counter(key for key, _ in pairs)
    return {key: Repeated(value) if counts[key] > 1 else value for key, value in pairs}


def header_of(scope: Scope, name: bytes) -> bytes:
    """Return the value of a request's first header of this name, in lower case; empty when there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


async def body_of(receive: Receive) -> bytes:
    """Return the body of a request, which comes in one piece if it is short: Starlette takes 4 us for that.

    Raises:
        ClientDisconnect: the client has left.
    """
    pieces: list[bytes] = []
    while (message := await receive())["type"] == "http.request":
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)
    raise ClientDisconnect


def content_type_of(scope: Scope) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the media type of the body in lower case, and its parameters."""
    header = header_of(scope, b"content-type")
    if b";" not in header:  # as most do not have parameters
        return header.strip().lower(), {}
    media_type, parameters = parse_options_header(header.decode("latin-1"))
    return media_type.lower(), parameters


def text_kind(content: bytes | memoryview, n_features: int) -> Literal["JSON", "CSV", ""]:
    """Return the kind of text that was sent as binary numbers; empty if they are numbers."""
    if is_json(content):
        return "JSON"
    return "CSV" if _is_csv(content, n_features) else ""


def is_json(content: bytes | memoryview) -> bool:
    """Return whether bytes sent as binary numbers are JSON text: one object or array, or one in each line.

    NaN and Infinity, which some libraries write, count as JSON. Numbers are never taken for text in practice: the last
    of such float32 numbers would be positive and either below 5e-19 or beyond 5e17 (it ends in a bracket or a blank),
    and of the 2**32 frames of a single number 455 are JSON; each further number makes it less likely.
    """
    if not content or content[0] not in _JSON_STARTS:
        return False
    text = bytes(content).removeprefix(_BYTE_ORDER_MARK).strip(_JSON_BLANKS)
    if text[:1] + text[-1:] not in (b"{}", b"[]"):
        return False
    text = text.replace(b"NaN", b"0").replace(b"Infinity", b"0")
    for decode in (_json_decoder.decode, _json_decoder.decode_lines):
        try:
            decode(text)
        except msgspec.DecodeError:
            continue
        except RecursionError:
            pass  # nothing else has so many brackets
        return True
    return False


def _is_csv(content: bytes | memoryview, n_features: int) -> bool:
    """Return whether bytes sent as binary numbers are rows of a table, the last of them with enough numbers.

    Numbers are never taken for text in practice: all of their bytes would have to be readable, and a digit to stand
    between two separators for each feature.
    """
    # A digit ends it, or blanks and a quote behind one; of numbers, few end in so many bytes of ASCII.
    if not bytes(content[-_END_BYTES:]).isascii():
        return False
    try:
        text = str(content, "utf-8").strip()
    except UnicodeError:
        return False
    lines = text.splitlines() or [""]
    cells = lines[-1].split(next((mark for mark in ";\t, " if mark in lines[-1]), ","))
    numbers = sum(map(bool, map(_NUMBER_CELL.fullmatch, cells)))
    if len(content) < _LEAST_CSV_BYTES and not (len(lines) == 1 and 1 < len(cells) == numbers == n_features):
        return False
    return numbers >= n_features and text.translate(_TABLE_BLANKS).isprintable()


def preferred_representation(scope: Scope, *, default: Representation) -> Representation:
    """Return the representation of the response: the fragment for htmx, for others the one that `Accept` prefers."""
    accept = b""
    for name, value in scope["headers"]:
        if name == b"hx-request" and value == b"true":
            return "fragment"
        if name == b"accept":
            accept = accept + b"," + value if accept else value
    return _negotiate(bounded(accept), default) if accept else default


def bounded(items: bytes) -> bytes:
    """Return the whole items among the first `MAX_LIST_BYTES` of a header that is a list with commas."""
    return items if len(items) <= MAX_LIST_BYTES else items[:MAX_LIST_BYTES].rpartition(b",")[0]


def qualities(preferences: bytes) -> dict[str, float]:
    """Return the items of a header in lower case, each with its quality from 0 to 1 (RFC 9110, section 12.4.2).

    Args:
        preferences: the value of Accept, Accept-Encoding or Accept-Language, as `bounded` returns it.
    """
    found: dict[str, float] = {}
    for item in preferences.decode("latin-1").lower().split(","):
        name, *parameters = item.split(";")
        pairs = (parameter.partition("=") for parameter in parameters)
        found[name.strip()] = next((_quality(value) for key, _, value in pairs if key.strip() == "q"), 1.0)
    return found


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return min(quality, 1.0) if quality > 0 else 0.0  # NaN is not above 0


def is_known(scope: Scope, entity_tag: bytes) -> bool:
    """Return whether the client has the representation with this tag already (RFC 9110, section 13.1.2)."""
    for name, value in scope["headers"]:
        if name == b"if-none-match":
            # The comparison is the weak one: proxies that compress make a tag weak.
            return value.strip() == b"*" or entity_tag in (tag.strip().removeprefix(b"W/") for tag in value.split(b","))
    return False


@lru_cache(256)
def _negotiate(accept: bytes, default: Representation) -> Representation:
    quality = qualities(accept)
    # The most specific range counts (RFC 9110, section 12.5.1).
    others = quality.get("*/*", 0.0)
    html = quality.get("text/html", quality.get("text/*", others))
    named = [quality[name] for name in _JSON_TYPES if name in quality]
    json = max(named, default=quality.get("application/*", others))
    if html == json:  # of two with the same quality, the one that is named
        html, json = (quality.get("text/html", 0) > 0, max(named, default=0) > 0)
    return default if html == json else "json" if json > html else "page"
