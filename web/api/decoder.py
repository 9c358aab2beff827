"""The JSON texts of programs become requests and samples, or problems that say what is wrong with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ml.model.values import Repeated
from web.api.messages import PredictRequest, StreamRequest
from web.problems import Problem

# Commas that an id or unknown features may add to those between values.
SPARE_COMMAS = 10_000
# The longest reason in an error: it may name a member, and so be as long as the request.
MAX_REASON_CHARACTERS = 200

Request = TypeVar("Request", bound=PredictRequest)


class _Identified(msgspec.Struct):
    id: Raw | UnsetType = UNSET


_request_decoder = msgspec.json.Decoder(PredictRequest)
_stream_decoder = msgspec.json.Decoder(StreamRequest)
_sample_decoder = msgspec.json.Decoder(dict[str, object] | list[object])


def decode_request(content: bytes | str, *, max_values: int) -> PredictRequest:
    """Return the request in a JSON text.

    Args:
        max_values: how many values the largest request has. Twice as many commas are too many, even when each number
            is text with a decimal comma; they are counted before they become objects of 50 bytes each.

    Raises:
        Problem: 400 when it is not JSON, 413 when it has far too many values, 422 when it is no request.
    """
    return _decode(_request_decoder, content, max_values)


def decode_frame(text: str, *, max_values: int) -> StreamRequest:
    """Return the request in a text frame of the stream; arguments and errors are those of `decode_request`."""
    return _decode(_stream_decoder, text, max_values)


def _decode(decoder: msgspec.json.Decoder[Request], content: bytes | str, max_values: int) -> Request:
    commas = content.count(",") if isinstance(content, str) else content.count(b",")
    if commas > 2 * max_values + SPARE_COMMAS:
        raise Problem(413, f"more than {max_values} values in one request")
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        raise Problem(422, f"the request has the wrong form: {str(error)[:MAX_REASON_CHARACTERS]}") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        if not content.strip():
            raise Problem(400, 'the request is empty: send JSON with a "sample" or "samples"') from None
        raise Problem(400, f"the request is not JSON: {error}") from error
    except RecursionError as error:
        raise Problem(400, "the request is nested too deeply") from error


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
        decoded: Mapping[str, object] | Sequence[object] = _sample_decoder.decode(encoded)
        # Each member has a colon: as many as members are left, none was repeated.
        if isinstance(decoded, list) or bytes(encoded).count(b":") == len(decoded):
            return decoded
    except (msgspec.ValidationError, RecursionError):
        pass  # either another JSON value, or one with a number that no float64 can hold, such as 1e999
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Problem(400, f"the request is not JSON: {error}") from error
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
