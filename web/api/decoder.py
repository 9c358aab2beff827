"""The JSON texts of programs become requests and samples, or problems that say what is wrong with them."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ml.model.values import Repeated
from web.api.messages import PredictRequest, StreamRequest
from web.problems import Problem

# Commas that an id or unknown features may add to those between values.
SPARE_COMMAS = 10_000
_COLON = b":"[0]
# The longest reason in an error: it may name a member, and so be as long as the request.
MAX_REASON_CHARACTERS = 200


class _Identified(msgspec.Struct):
    id: Raw | UnsetType = UNSET


_request_decoder = msgspec.json.Decoder(PredictRequest)
_stream_decoder = msgspec.json.Decoder(StreamRequest)
_sample_decoder = msgspec.json.Decoder(dict[str, object] | list[object])


def decode_request(content: bytes, *, max_values: int) -> PredictRequest:
    """Return the request in the JSON body of a POST.

    Args:
        max_values: how many values the largest request has. Twice as many commas are too many, even when each number
            is text with a decimal comma; they are counted before they become objects of 50 bytes each.

    Raises:
        Problem: 400 when it is not JSON, 413 when it has far too many values, 422 when it is no request.
    """
    most = 2 * max_values + SPARE_COMMAS
    if len(content) > most and content.count(b",") > most:
        raise _too_many(max_values)
    try:
        request = _request_decoder.decode(content)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _problem_of(content, error) from error
    if content.count(b'"sample') > 1 or b"\\" in content or request.explain is not UNSET:
        _refuse_repeated(content, request)
    return request


def decode_frame(text: str, *, max_values: int) -> StreamRequest:
    """Return the request in a text frame of the stream; arguments and errors are those of `decode_request`."""
    most = 2 * max_values + SPARE_COMMAS
    if len(text) > most and text.count(",") > most:  # a short text is not searched at all
        raise _too_many(max_values)
    try:
        request = _stream_decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _problem_of(text, error) from error
    # A second id is looked for only then: it does no harm, and a search takes a hundredth of a reply.
    if text.count('"sample') > 1 or "\\" in text or request.explain is not UNSET:
        _refuse_repeated(text.encode(), request)
    return request


def _refuse_repeated(content: bytes, request: PredictRequest) -> None:
    """Refuse a request that names a member twice, of which msgspec takes the last one.

    Besides the values of the members that it took there are the quotes of their names, unless there were others.

    Raises:
        Problem: 422, it does.
    """
    given = [value for value in msgspec.structs.astuple(request) if value is not UNSET]
    values = itertools.chain.from_iterable(value if isinstance(value, list) else [value] for value in given)
    if content.count(b'"') > 2 * len(given) + sum(bytes(value).count(b'"') for value in values if type(value) is Raw):
        raise Problem(422, "the request has a member twice")


def _too_many(max_values: int) -> Problem:
    return Problem(413, f"more than {max_values} values in one request")


def _problem_of(content: bytes | str, error: Exception) -> Problem:
    """Return the problem with a text that is no request."""
    if isinstance(error, msgspec.ValidationError):
        return Problem(422, f"the request has the wrong form: {str(error)[:MAX_REASON_CHARACTERS]}")
    if isinstance(error, RecursionError):
        return Problem(400, "the request is nested too deeply")
    if not content.strip():
        return Problem(400, 'the request is empty: send JSON with a "sample" or "samples"')
    return Problem(400, f"the request is not JSON: {error}")


def id_of(content: str | bytes) -> Raw | UnsetType:
    """Return the id of a frame that has the wrong form, so that its sender can identify it."""
    try:
        return msgspec.json.decode(content, type=_Identified).id
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return UNSET


def decode_sample(encoded: Raw) -> Mapping[str, object] | Sequence[object]:
    """Return one sample of a request; a member that it has several times is `Repeated`.

    Raises:
        Problem: 422 when it is neither an object nor an array.
    """
    try:
        decoded: dict[str, object] | list[object] = _sample_decoder.decode(encoded)
    except (msgspec.ValidationError, RecursionError):
        return _decode_slowly(encoded)  # another JSON value, or a number that no float64 can hold, such as 1e999
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Problem(400, f"the request is not JSON: {error}") from error
    # Each member has a colon: if as many members are left, none was repeated.
    if type(decoded) is list or bytes(encoded).count(_COLON) == len(decoded):
        return decoded
    again = _decode_slowly(encoded)
    assert isinstance(decoded, dict)
    assert isinstance(again, dict)
    return decoded | {name: value for name, value in again.items() if type(value) is Repeated}


def _decode_slowly(encoded: Raw) -> dict[str, object] | list[object]:
    try:
        sample: object = json.loads(bytes(encoded), parse_int=float, object_pairs_hook=_members)
    except (RecursionError, UnicodeError) as error:
        raise Problem(400, "the request is nested too deeply, or not UTF-8") from error
    if not isinstance(sample, dict | list):
        raise Problem(422, "a sample is an object by feature key, or an array in the order of the features")
    return sample


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        members |= {name: Repeated(_text(members[name])) for name, count in counts.items() if count > 1}
    return members


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if isinstance(value, list | dict) else json.dumps(value)
