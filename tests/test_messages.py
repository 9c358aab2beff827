"""The JSON that programs send and get, decoded and encoded by hand-tuned code: held to the standard library's."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from ml.model.loaded import LoadedModel
from ml.model.values import Repeated
from tests.conftest import for_each
from web.api import decoder
from web.api.encoder import Encoder, encoder_of
from web.problems import Problem

ROW = [5.6, 2.7, 4.2, 1.3]
IDS = ["1", "-1.50", "1e3", '"a"', '"\\u00e9 \\n"', '"é"', "null", "true", "[1, {}]", '{"a" : [1,2]}', "1" * 400, '""']


def problem_of(content: bytes | str) -> Problem:
    decode: Any = decoder.decode_frame if isinstance(content, str) else decoder.decode_request
    with pytest.raises(Problem) as caught:
        decode(content, max_values=1_000)
    return caught.value


@pytest.mark.parametrize("content", ['{"id": 7, "sample": [1, 2]}', '{"sample":[1, 2],"id":7}'])
def test_a_frame_keeps_its_sample_and_its_id_as_they_were_written(content: str) -> None:
    request = decoder.decode_frame(content, max_values=1_000)

    assert bytes(request.sample) == b"[1, 2]"  # type: ignore[arg-type]  # a Raw, which is a buffer
    assert bytes(request.id) == b"7"  # type: ignore[arg-type]  # a Raw, which is a buffer
    assert request.samples is UNSET


@for_each(
    "content", ["", " ", "x", "{", "{'sample': 1}", '{"sample": NaN}', '{"sample": 1,}', "{} {}", '{"sample": 01}',
                '{"sample": "\t"}', '{"sample": "\\x"}', "\ufeff{}", "\ud800"],
)  # fmt: skip
def test_what_is_not_json_is_told_so(content: str) -> None:
    assert problem_of(content).details.status == 400


@pytest.mark.parametrize("content", [b"\xff", b'{"sample": "\xff"', '{"sample": []}'.encode("utf-16")])
def test_bytes_that_are_not_utf_8_are_not_json(content: bytes) -> None:
    assert problem_of(content).details.status == 400


@pytest.mark.parametrize(
    "content", ["[]", "1", "null", '"x"', '{"samples": {}}', '{"samples": 1}', '{"samples": null}']
)
def test_another_json_value_than_a_request_has_the_wrong_form(content: str) -> None:
    assert problem_of(content).details.status == 422


@pytest.mark.parametrize("content", ['{"sample": [1, 2], "explian": true}', '{"explian": null}'])
def test_an_unknown_member_is_an_error_that_names_it(content: str) -> None:
    problem = problem_of(content)

    assert problem.details.status == 422
    assert problem.details.detail == "the request has the wrong form: Object contains unknown field `explian`"


REPEATED = ['"sample": [1], "sample": [2]', '"samples": [[1]], "samples": []', '"sample": [1], "s\\u0061mple": [2]',
            '"sample": [1], "explain": true, "explain": false']  # fmt: skip
TRICKY = ['"sample": {"sample": 1, "samples": 2, "\\u0061\\"": ":"}',
          '"samples": [{"sample": "\\""}, ["sample", "\\\\"]]',
          '"sample": {"explain": "explain"}, "explain": true']  # fmt: skip


@pytest.mark.parametrize("members", REPEATED)
def test_a_member_that_is_there_twice_is_an_error(members: str) -> None:
    for content in ("{" + members + "}", ('{"id": "a", ' + members + "}"), ("{" + members + "}").encode()):
        assert problem_of(content).details.detail == "the request has a member twice"


@pytest.mark.parametrize("members", TRICKY)
def test_names_of_members_inside_a_sample_are_no_members(members: str) -> None:
    request = decoder.decode_request(("{" + members + "}").encode(), max_values=1_000)
    frame = decoder.decode_frame('{"id": {"sample": "\\""}, ' + members + "}", max_values=1_000)

    assert (frame.sample, frame.samples, frame.explain) == (request.sample, request.samples, request.explain)


@pytest.mark.parametrize("content", ['{"sample": %s}', '{"other": %s}', '{"id": %s}', '{"samples": [%s]}', "%s"])
def test_deep_nesting_is_refused(content: str) -> None:
    # From Python 3.14 on not a count of levels is the limit, but the stack.
    assert problem_of(content % ("[" * 1_000_000 + "]" * 1_000_000)).details.status in (400, 422)


@for_each("encoded", IDS)
def test_the_id_of_a_request_of_the_wrong_form_is_found(encoded: str) -> None:
    found = decoder.id_of(f'{{"samples": 1, "id": {encoded}}}')

    assert bytes(found) == encoded.encode()  # type: ignore[arg-type]  # a Raw, which is a buffer


@pytest.mark.parametrize("content", ["", "{", "[]", "1", "{}", "\ud800", '{"id":', "[" * 100_000])
def test_what_has_no_id_has_none(content: str) -> None:
    assert decoder.id_of(content) is UNSET


@pytest.mark.parametrize(
    ("encoded", "sample"),
    [
        ("[1, 2.5]", [1, 2.5]),
        ('{"a": 1, "b": "2,5"}', {"a": 1, "b": "2,5"}),
        ('{"a": "1:2", "b": ":"}', {"a": "1:2", "b": ":"}),
        ("[1e999, -1e999]", [float("inf"), float("-inf")]),
        ("[" + "9" * 400 + "]", [10**400 - 1]),
        ("[" + "9" * 5_000 + "]", [float("inf")]),
        ('{"a": 1e999, "b": [null, true]}', {"a": float("inf"), "b": [None, True]}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_sample_is_decoded_also_with_numbers_that_no_float_can_hold(encoded: str, sample: object) -> None:
    assert decoder.decode_sample(Raw(encoded.encode())) == sample


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ('{"a": 1, "b": 3, "a": 2.5}', "2.5"),
        ('{"a": "x", "b": 3, "a": "y:"}', "y:"),
        ('{"\\u0061": 1, "b": 3, "a": null}', "null"),
        ('{"a": 1, "b": 3, "a": [2, {"a": 1, "a": 2}]}', ""),
        ('{"a": 1, "b": 3, "a": 1e999}', "Infinity"),
    ],
)
def test_a_member_that_a_sample_has_several_times_is_marked_as_such(encoded: str, text: str) -> None:
    sample = decoder.decode_sample(Raw(encoded.encode()))

    assert sample == {"a": text, "b": 3}
    assert {name: type(value) for name, value in sample.items()}["a"] is Repeated


@pytest.mark.parametrize("content", ["", " \n", b"", b"\n"])
def test_an_empty_request_is_told_what_is_missing(content: bytes | str) -> None:
    problem = problem_of(content)

    assert (problem.details.status, problem.details.detail) == (
        400, 'the request is empty: send JSON with a "sample" or "samples"',
    )  # fmt: skip


def test_only_a_frame_of_the_stream_has_an_id() -> None:
    problem = problem_of(b'{"id": 1, "sample": []}')

    assert problem.details.detail == "the request has the wrong form: Object contains unknown field `id`"


@pytest.mark.parametrize("encoded", ["1", "null", '"x"', "true", "1e999", "9" * 5_000], ids=lambda text: text[:10])
def test_a_sample_is_an_object_or_an_array(encoded: str) -> None:
    with pytest.raises(Problem) as caught:
        decoder.decode_sample(Raw(encoded.encode()))

    assert caught.value.details.status == 422


def test_a_deeply_nested_sample_is_refused() -> None:
    with pytest.raises(Problem) as caught:
        decoder.decode_sample(Raw(b"[" * 100_000 + b"]" * 100_000))

    assert caught.value.details.status == 400


@pytest.mark.parametrize("encoded", [b'["\xff"]', b'{"\xff": 1}', b'["\xed\xa0\x80"]'])
def test_a_sample_that_is_not_utf_8_is_refused(encoded: bytes) -> None:
    with pytest.raises(Problem):
        decoder.decode_sample(Raw(encoded))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(sample=st.lists(JSON, max_size=5) | st.dictionaries(st.text(), JSON, max_size=5))
def test_a_sample_is_decoded_as_the_standard_library_does(sample: Any) -> None:
    # Through the standard library's text, with escapes, and through UTF-8 as it is.
    for encoded in (json.dumps(sample), json.dumps(sample, ensure_ascii=False)):
        assert decoder.decode_sample(Raw(encoded.encode())) == json.loads(encoded)


def test_an_answer_is_the_json_of_its_parts(model: LoadedModel) -> None:
    row = [-0.0, 2.7, 100.5, 1e-300]
    prediction, notes = model.predict(row), model.validator.notes(row)

    answer = encoder_of(model).answer(row, prediction, notes)

    assert json.loads(answer) == {
        "model": {"name": "iris", "version": model.version},
        "sample": dict(zip([feature.key for feature in model.features], row, strict=True)),
        "label": prediction.label,
        "probabilities": dict(zip(model.labels, prediction.probabilities, strict=True)),
        "notes": [{"feature": n.feature, "code": n.code, "message": n.message} for n in notes],
    }
    assert [note.feature for note in notes] == ["sepal_length", "petal_length", "petal_width"]


@for_each("encoded", IDS)
def test_a_frame_echoes_any_id_as_it_was_written(model: LoadedModel, encoded: str) -> None:
    frame = encoder_of(model).frame(Raw(encoded.encode()), model.predict(ROW))

    assert f'"id":{encoded},' in frame
    assert json.loads(frame)["id"] == json.loads(encoded)


def test_a_frame_without_an_id_gets_none(model: LoadedModel) -> None:
    prediction = model.predict(ROW)

    frame = encoder_of(model).frame(UNSET, prediction)

    assert json.loads(frame) == {
        "type": "prediction",
        "label": prediction.label,
        "probabilities": dict(zip(model.labels, prediction.probabilities, strict=True)),
        "version": model.version,
    }


def test_a_batch_is_the_json_of_its_items(model: LoadedModel) -> None:
    encoder = encoder_of(model)
    rows = [ROW, [99.0, 2.7, 4.2, 1.3]]

    encoded = encoder.batch([encoder.batch_item(model.predict(row), model.validator.notes(row)) for row in rows])

    answer = json.loads(encoded)
    assert answer["model"] == {"name": "iris", "version": model.version}
    assert [item["label"] for item in answer["predictions"]] == [model.predict(row).label for row in rows]
    assert [len(item["notes"]) for item in answer["predictions"]] == [0, 1]
    assert json.loads(encoder.batch([]))["predictions"] == []


def test_every_probability_keeps_all_its_bits(model: LoadedModel) -> None:
    encoder = Encoder(model)
    prediction = model.predict([6.0, 2.8, 5.0, 1.65])
    assert 0 < max(prediction.probabilities) < 1, "a row with an answer that is not certain"

    decoded = msgspec.json.decode(encoder.answer([6.0, 2.8, 5.0, 1.65], prediction, ()))

    assert tuple(decoded["probabilities"].values()) == prediction.probabilities


def test_a_model_has_one_encoder(model: LoadedModel) -> None:
    assert encoder_of(model) is encoder_of(model)
