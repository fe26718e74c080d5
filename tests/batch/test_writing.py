"""A line is JSON that every reader takes, and the same for the same row."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from batch.outputs import fails, line

from rwkv_cli.batch.row import Answer, Row, RowError, Sample, TokenScore
from rwkv_cli.batch.writing import HEADS, RESULTS, kept_name, line_maker

ODD = (
    "\ud800", "a\udfffb", "\ud83d\ude00", "\u2028\u2029\x85", "\0\x1b\x7f", "\ufeff", '"\\/',
    "\r\n", "日本", "\U0010ffff",
)  # fmt: skip
SCORES = (
    TokenScore(7, b"He", -0.25, ((7, b"He", -0.25), (9, b"\xe2\x82", -1.5))),
    TokenScore(9, b"\xe2\x82", -1.5),
)


def strictly(data: bytes) -> Any:
    """Read a line as a reader that allows nothing beyond the standard does."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    text = data.decode("utf-8", "strict")
    assert text.endswith("}\n")
    assert len(text.splitlines()) == 1
    value = json.loads(text, parse_constant=refuse, object_pairs_hook=_once)
    json.dumps(value, ensure_ascii=False).encode("utf-8", "strict")  # no half of a pair is in it
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), "a name is there twice"
    return found


def jsonl(fields: dict[str, Any], answer: Answer | None = None) -> Any:
    given = answer or Answer(3, 42, 5, (Sample(b"hello", "stop", 2),))
    return strictly(line_maker("jsonl", "")(Row(3, fields), given))


def openai(fields: dict[str, Any], answer: Answer) -> Any:
    return strictly(line_maker("openai", "rwkv-demo")(Row(12, fields), answer))


def test_a_line_has_the_fields_of_the_row_and_the_results() -> None:
    assert list(jsonl({"prompt": "Say", "id": 7}).items()) == [
        ("index", 3),
        ("prompt", "Say"),
        ("id", 7),
        ("text", "hello"),
        ("finish_reason", "stop"),
        ("usage", {"prompt_tokens": 5, "completion_tokens": 2}),
        ("seed", 42),
    ]


def test_fields_with_the_name_of_a_result_are_kept_under_another() -> None:
    fields = {name: f"mine {name}" for name in (*RESULTS, "input_text", "input_input_text")}
    for answer in (None, Answer(3, 42, error=RowError("bad_value", "no"))):
        found = jsonl(fields, answer)
        for name in fields:
            assert found[kept_name(name, fields)] == f"mine {name}"
        assert found["input_text"] == "mine input_text"
    assert kept_name("text", {"text": 1, "input_text": 2}) == "input_input_text"


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_odd_characters_stay_in_one_line_of_utf8(odd: str) -> None:
    found = jsonl({odd: odd, "deep": [{"a": [odd]}]})
    whole = odd.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert found[whole] == whole
    assert found["deep"] == [{"a": [whole]}]
    failed = Answer(12, 0, error=RowError("bad_json", f"at {odd}"))
    assert openai({"custom_id": odd}, failed)["custom_id"] == whole
    match = HEADS["openai"].match(line_maker("openai", "")(Row(12, {"custom_id": odd}), failed))
    assert match
    assert match[2] == b"null"


def test_numbers_come_out_as_they_were() -> None:
    text = '{"a":1,"b":1.0,"c":-0.0,"d":12345678901234567890123,"e":0.1,"f":1e+300,"g":[true,null]}'
    found = line_maker("jsonl", "")(Row(0, json.loads(text)), Answer(0, 1, 0, ()))
    assert text[1:-1].encode() in found


def test_numbers_that_json_does_not_have_become_null() -> None:
    found = jsonl({"a": math.inf, "b": [{"c": -math.inf}, math.nan], "d": 1.5})
    assert (found["a"], found["b"], found["d"]) == (None, [{"c": None}, None], 1.5)


def test_bytes_that_are_no_text_are_replaced() -> None:
    answer = Answer(3, 1, 1, (Sample(b"a\xff\xe2\x82", "length", 1),))
    assert jsonl({}, answer)["text"] == "a\ufffd\ufffd"


def test_many_samples_are_a_list() -> None:
    answer = Answer(3, 1, 4, (Sample(b"a", "end", 1), Sample(b"b", "length", 3, ())))
    found = jsonl({"prompt": "x"}, answer)
    assert found["samples"] == [
        {"text": "a", "finish_reason": "end"},
        {"text": "b", "finish_reason": "length", "logprobs": []},
    ]
    assert found["usage"] == {"prompt_tokens": 4, "completion_tokens": 4}
    assert "text" not in found


def test_a_row_that_failed_says_so_at_once() -> None:
    error = RowError("missing_field", "there is no field text")
    for row, answer in (
        (Row(3, {"id": 1}), Answer(3, 0, error=error)),
        (Row(3, {}, error), Answer(3, 0)),
    ):
        found = strictly(line_maker("jsonl", "")(row, answer))
        assert list(found) == ["index", "error", *row.fields]
        assert found["error"] == {"code": "missing_field", "message": "there is no field text"}


def test_log_probabilities_are_told_token_by_token() -> None:
    found = jsonl({}, Answer(3, 1, 1, (Sample(b"He", "end", 2, SCORES),)))
    assert found["logprobs"] == [
        {
            "token": "He", "id": 7, "logprob": -0.25,
            "top": [
                {"token": "He", "id": 7, "logprob": -0.25},
                {"token": "\ufffd", "id": 9, "logprob": -1.5},
            ],
        },
        {"token": "\ufffd", "id": 9, "logprob": -1.5, "top": []},
    ]  # fmt: skip
    cold = Answer(3, 1, 1, (Sample(b"", "end", 1, (TokenScore(1, b"", -math.inf),)),))
    assert jsonl({}, cold)["logprobs"][0]["logprob"] is None


def test_a_chat_gets_openais_line() -> None:
    samples = (Sample(b"Hi", "end", 1, SCORES), Sample(b"Ho", "length", 2))
    fields = {"custom_id": "a", "url": "/v1/chat/completions", "body": {"messages": []}}
    found = openai(fields, Answer(12, 42, 5, samples))
    assert list(found) == ["id", "custom_id", "response", "error"]
    assert (found["id"], found["custom_id"], found["error"]) == ("row-12", "a", None)
    assert (found["response"]["status_code"], found["response"]["request_id"]) == (200, "row-12")
    body = found["response"]["body"]
    assert (body["object"], body["created"], body["model"]) == ("chat.completion", 0, "rwkv-demo")
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    first, second = body["choices"]
    assert first["message"] == {"role": "assistant", "content": "Hi"}
    assert (first["finish_reason"], second["finish_reason"]) == ("stop", "length")
    assert (second["index"], second["logprobs"]) == (1, None)
    told = first["logprobs"]["content"]
    assert told[0]["top_logprobs"][1] == {
        "token": "\ufffd", "logprob": -1.5, "bytes": [0xE2, 0x82],
    }  # fmt: skip
    assert told[1]["top_logprobs"] == []


def test_a_text_gets_openais_line() -> None:
    fields = {"custom_id": "a", "body": {"prompt": "Once"}}
    found = openai(fields, Answer(12, 42, 5, (Sample(b"He\xe2\x82", "stop", 2, SCORES),)))
    body = found["response"]["body"]
    assert body["object"] == "text_completion"
    (choice,) = body["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("He\ufffd", "stop")
    assert choice["logprobs"] == {
        "tokens": ["He", "\ufffd"],
        "token_logprobs": [-0.25, -1.5],
        "top_logprobs": [{"He": -0.25, "\ufffd": -1.5}, {}],
        "text_offset": [0, 2],
    }


def test_a_failed_row_gets_openais_line() -> None:
    error = RowError("bad_value", "temperature is 99")
    for asked, told in (("a", "a"), (None, None), (7, "7")):
        found = openai({"custom_id": asked}, Answer(12, 42, error=error))
        assert found == {
            "id": "row-12",
            "custom_id": told,
            "response": None,
            "error": {"code": "bad_value", "message": "temperature is 99"},
        }


@pytest.mark.parametrize("layout", HEADS)
def test_a_line_tells_by_its_beginning_which_row_it_is_and_whether_it_failed(layout: str) -> None:
    for index in (0, 3, 10, 123_456_789):
        found = HEADS[layout].match(line(index, layout))
        assert found
        assert int(found[1]) == index
        assert (found[2] is not None) == fails(index)
