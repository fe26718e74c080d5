"""From rows to requests: what is read is what `rwkv generate` reads, and what cannot be meant is
said.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from rwkv_cli.batch.asking import Asking, Defaults, row_seed
from rwkv_cli.batch.row import Request, Row, RowError
from rwkv_cli.batch.template import Template
from rwkv_cli.cli.prompt import Prompt, chat_text, raw_text
from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.sampling import PRESETS, Sampling
from rwkv_cli.text.templates import beginning, load_template

FORMS = ["world", "g1", "raven", "pile", "demo"]
TEXTS = [
    "hi", " hi\n", "a\r\n\r\n\r\nb", "a\n\nUser: b\n\nAssistant: c", "é\U0001f600\0", "\t.", "{a}",
    "x\n\nBob: y", "x\n\n\n\nQ & A\n\nQuestion:\nz", "</think>\n\n",
]  # fmt: skip


def ask(
    fields: dict[str, Any], *, kind: str = "jsonl", form: str = "g1", ending: Any = None, **how: Any
) -> Request | RowError:
    defaults = Defaults(PRESETS["g1"], 7, load_template(form), **how)
    more = {"ending": ending} if ending else {}
    return Asking(defaults, kind, vocab=100, **more)(Row(3, fields))


def asked(fields: dict[str, Any], **how: Any) -> Request:
    found = ask(fields, **how)
    assert isinstance(found, Request), found
    return found


def refused(fields: dict[str, Any], **how: Any) -> tuple[str, str]:
    found = ask(fields, **how)
    assert isinstance(found, RowError), found
    assert len(found.message) < 300
    return found.code, found.message


def say(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


@pytest.mark.parametrize("text", TEXTS)
def test_a_raw_row_reads_what_generate_raw_reads(text: str) -> None:
    expected = b"".join(raw_text(Prompt(text)))
    for key in ("prompt", "text"):
        request = asked({key: text}, mode="raw")
        assert request.prompt == expected
        assert (request.max_tokens, request.stops, request.chat) == (512, (), False)
    assert asked({"prompt": text}).prompt == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_chat_row_reads_what_generate_chat_reads(text: str, form: str) -> None:
    template = load_template(form)
    for think in (None, *template.think_modes):
        for system in (None, "", "Be brief.\n\n", text):
            for before in (None, b"", b"x\n", b"x\n\n", b"x"):
                start = beginning(template, before) + template.system(system or "")
                expected = b"".join(chat_text(Prompt(text), template, start, think))
                how = {"mode": "chat", "form": form, "system": system, "think": think}
                if before is not None:
                    how |= {"state": "s", "ending": {"s": before}.get}
                request = asked({"prompt": text}, **how)
                assert request.prompt == expected
                assert (request.max_tokens, request.chat) == (4096, True)
                assert request.stops == template.stops


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", TEXTS)
def test_messages_of_one_turn_are_a_chat_row(text: str, form: str) -> None:
    one = asked({"messages": [say("user", text)]}, form=form, system="S")
    assert one == asked({"prompt": text}, form=form, system="S", mode="chat")
    own = asked({"messages": [say("developer", "S"), say("user", text)]}, form=form, system="T")
    assert own == one == asked({"prompt": text, "system": "S"}, form=form)


@pytest.mark.parametrize("form", FORMS)
def test_a_conversation_is_written_as_the_session_writes_it(form: str) -> None:
    template = load_template(form)
    said = [say("system", "S"), say("user", "one"), say("assistant", " two "), say("user", "3")]
    said += [say("assistant", "4"), say("user", "three")]
    lead = "" if form == "pile" else " "
    expected = template.opening() + template.system("S") + template.turn("one") + f"{lead}two"
    expected += template.separator() + template.turn("3") + f"{lead}4"
    expected += template.separator() + template.turn("three")
    assert asked({"messages": said}, form=form).prompt.decode() == expected
    begun = asked({"messages": [*said, say("assistant", "four ")]}, form=form)
    assert begun.prompt.decode() == expected + f"{lead}four"
    assert begun == asked({"messages": said, "prefill": "four\n"}, form=form)
    # Its white space is part of the answer, and it ends where a chat turn ends.
    assert (begun.chat, begun.stops, begun.max_tokens) == (False, template.stops, 4096)


def test_messages_of_one_role_in_a_row_are_one_and_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    several = [say("system", "S"), say("developer", "T"), say("user", "a"), say("user", parts)]
    one = [say("system", "S\nT"), say("user", "a\nbc")]
    assert asked({"messages": several}) == asked({"messages": one})


def test_no_message_can_pass_for_a_turn(tries: int) -> None:
    rng = random.Random(1)
    words = ["\n", "\r\n", "\n\n", " ", "User:", "Assistant:", "System:", "a", "\t", "\r"]
    roles = ["user", "assistant", "user", "assistant", "user"]
    for _ in range(tries):
        texts = ["x" + "".join(rng.choices(words, k=rng.randrange(8))) for _ in range(7)]
        said = [say(role, text) for role, text in zip(roles, texts, strict=False)]
        row = {"messages": [say("system", texts[5]), *said], "prefill": texts[6]}
        prompt = asked(row, form="world").prompt
        assert prompt.count(b"\n\n") == 6
        assert not prompt[-1:].isspace()


@pytest.mark.parametrize(
    ("messages", "code", "word"),
    [
        ("hi", "bad_value", "must be a list"),
        ([], "empty_prompt", "no message"),
        ([say("system", "S")], "empty_prompt", "no message"),
        ([say("user", "  \n")], "empty_prompt", "empty"),
        ([say("assistant", "a")], "bad_value", "the user's"),
        ([say("assistant", "a"), say("user", "b")], "bad_value", "the user's"),
        ([say("user", "a"), say("system", "b")], "bad_value", "system message"),
        ([say("user", "a"), 5], "bad_value", "message 2 is a number"),
        ([say("tool", "a")], "bad_value", "role is 'tool'"),
        ([{"content": "a"}], "bad_value", "role is null"),
        ([say("user", None)], "bad_value", "content is null"),
        ([say("user", [{"type": "image_url"}])], "unsupported", "parts of type text"),
        ([say("user", [{"type": "text"}])], "bad_value", "text is null"),
        ([say("user", "a") | {"tool_calls": [1]}], "unsupported", "tool_calls"),
    ],
)
def test_messages_that_no_chat_has_are_refused(messages: object, code: str, word: str) -> None:
    found = refused({"messages": messages})
    assert found[0] == code
    assert word in found[1]


@pytest.mark.parametrize(
    ("fields", "how", "code", "word"),
    [
        ({}, {}, "missing_field", "missing field 'prompt' (row has: no fields)"),
        ({"id": 1, "txt": "a"}, {}, "missing_field", "(row has: id, txt)"),
        ({"prompt": None}, {}, "missing_field", "'prompt'"),
        ({"prompt": "a", "text": "b"}, {}, "bad_value", "prompt and text"),
        ({"prompt": 5}, {}, "bad_value", "prompt is a number"),
        ({"text": ["a"]}, {}, "bad_value", "text is a list"),
        ({"prompt": ""}, {}, "empty_prompt", "empty"),
        ({"prompt": ""}, {"mode": "chat"}, "empty_prompt", "empty"),
        ({"prompt": " \n"}, {"mode": "chat"}, "empty_prompt", "empty"),
        ({"messages": [say("user", "a")]}, {"mode": "raw"}, "bad_value", "raw"),
        ({"prompt": "a", "system": "b"}, {"mode": "raw"}, "bad_value", "system"),
        ({"prompt": "a", "think": "on"}, {}, "bad_value", "think"),
        ({"prompt": "a", "think": "hard"}, {"mode": "chat"}, "bad_value", "hard"),
        ({"prompt": "a", "prefill": "b"}, {"mode": "chat", "think": "on"}, "bad_value", "think"),
        ({"messages": [say("system", "a")], "system": "b"}, {}, "empty_prompt", ""),
        (
            {"messages": [say("system", "a"), say("user", "b")], "system": "c"},
            {},
            "bad_value",
            "system contradicts",
        ),
        ({"a": 1}, {"template": Template("{b}")}, "missing_field", "(row has: a)"),
        ({"a": ""}, {"template": Template("{a}")}, "empty_prompt", ""),
    ],
)
def test_a_row_that_asks_nothing_or_two_things_is_refused(
    fields: dict[str, Any], how: dict[str, Any], code: str, word: str
) -> None:
    found = refused(fields, **how)
    assert found[0] == code
    assert word in found[1]


SETTINGS: list[tuple[str, object, str, object]] = [
    ("temperature", 0, "temperature", 0),
    ("top_p", 0.5, "top_p", 0.5),
    ("top_k", 40, "top_k", 40),
    ("min_p", 0.1, "min_p", 0.1),
    ("presence", -1, "presence", -1),
    ("presence_penalty", 1.5, "presence", 1.5),
    ("frequency", 1, "frequency", 1),
    ("frequency_penalty", 0.25, "frequency", 0.25),
    ("penalty_decay", 0.5, "penalty_decay", 0.5),
    ("sampler_order", "openai", "order", "openai"),
    ("logit_bias", {"5": -100, "3": 0, "9": -100}, "banned", (5, 9)),
]
REQUESTS: list[tuple[str, object, str, object]] = [
    ("max_tokens", 9, "max_tokens", 9),
    ("max_completion_tokens", 9, "max_tokens", 9),
    ("stop", "END", "stops", (b"END",)),
    ("stop", ["é", "b"], "stops", ("é".encode(), b"b")),
    ("stop", [], "stops", ()),
    ("seed", 2**53 - 1, "seed", 2**53 - 1),
    ("n", 5, "samples", 5),
    ("n", 5.0, "samples", 5),
    ("logprobs", 0, "logprobs", 0),
    ("logprobs", True, "logprobs", 0),
    ("logprobs", False, "logprobs", None),
    ("logprobs", 20, "logprobs", 20),
    ("state", "book", "state", "book"),
]


@pytest.mark.parametrize(("key", "value", "name", "meant"), SETTINGS)
def test_a_row_overrides_how_tokens_are_drawn(
    key: str, value: object, name: str, meant: object
) -> None:
    request = asked({"prompt": "a", key: value})
    assert request.sampling == PRESETS["g1"].with_changes(**{name: meant})
    assert request.prompt == b"a"


@pytest.mark.parametrize(("key", "value", "name", "meant"), REQUESTS)
def test_a_row_overrides_what_is_asked(key: str, value: object, name: str, meant: object) -> None:
    how = {"stops": (b"x",), "max_tokens": 3, "samples": 2, "logprobs": 1}
    request = asked({"prompt": "a", key: value}, **how)
    assert getattr(request, name) == meant
    others = {"max_tokens": 3, "stops": (b"x",), "samples": 2, "logprobs": 1, "state": None}
    for other in others.keys() - {name}:
        assert getattr(request, other) == others[other]


@pytest.mark.parametrize("key", sorted({key for key, *_ in SETTINGS + REQUESTS}))
def test_null_sets_nothing_and_so_do_fields_that_a_template_names(key: str) -> None:
    assert asked({"prompt": "a", key: None}) == asked({"prompt": "a"})
    plain = asked({key: "x"}, template=Template(f"{{{key}}}"))
    assert plain == asked({"prompt": "x"})
    assert asked({"prompt": "x", key: [{}]}, overrides=False) == plain


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", -0.1), ("temperature", 11), ("temperature", "1"), ("temperature", True),
        ("temperature", [1]), ("temperature", 10**400), ("top_p", 1.1), ("top_k", 1.5),
        ("top_k", -1), ("min_p", 2), ("presence", 11), ("penalty_decay", 1.01),
        ("sampler_order", "x"), ("sampler_order", 1), ("max_tokens", 0), ("max_tokens", "many"),
        ("max_tokens", 1.5), ("max_tokens", 2**40 + 1),
        ("stop", ""), ("stop", ["a", ""]), ("stop", [1]), ("stop", {}),
        ("seed", -1), ("seed", 2**53), ("seed", 0.5), ("n", 0), ("n", 1001), ("logprobs", 21),
        ("logprobs", -1), ("system", 1), ("prefill", 1), ("think", 1), ("state", 1),
        ("state", ""), ("state", "a\0"),
        ("logit_bias", []), ("logit_bias", {"5": 1}), ("logit_bias", {"a": -100}),
        ("logit_bias", {"100": -100}), ("logit_bias", {"-1": -100}), ("logit_bias", {"5": "a"}),
        ("logit_bias", {"9999999999": -100}),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_meant_is_an_error_that_names_the_key(
    key: str, value: object
) -> None:
    code, message = refused({"prompt": "a", key: value})
    assert code == "bad_value"
    assert message.startswith(key)


def test_one_thing_said_twice_must_be_the_same() -> None:
    same = {"prompt": "a", "max_tokens": 5, "max_completion_tokens": 5}
    assert asked(same).max_tokens == 5
    code, message = refused(same | {"max_tokens": 6})
    assert (code, message) == ("bad_value", "max_completion_tokens contradicts max_tokens")


def test_cells_of_a_table_may_be_numbers_and_empty_ones_set_nothing() -> None:
    cells = {"prompt": "a", "temperature": "0.5", "top_k": "3", "seed": "", "stop": "5", "n": ""}
    request = asked(cells, kind="csv")
    assert request.sampling == PRESETS["g1"].with_changes(temperature=0.5, top_k=3)
    assert request.stops == (b"5",)
    assert request.seed == row_seed(7, 3)
    for value in ("x", "nan", "inf", "-1"):
        assert refused({"prompt": "a", "temperature": value}, kind="csv")[0] == "bad_value"


def test_what_the_flags_ban_stays_banned() -> None:
    defaults = Defaults(Sampling(banned=(7, 2)), 0, load_template("world"))
    request = Asking(defaults)(Row(0, {"prompt": "a", "logit_bias": {"3": -100}}))
    assert isinstance(request, Request)
    assert request.sampling.banned == (2, 3, 7)


def test_a_row_that_could_not_be_read_stays_an_error() -> None:
    error = RowError("bad_json", "it is no JSON")
    asking = Asking(Defaults(Sampling(), 0, load_template("world")))
    assert asking(Row(0, error=error)) is error


def test_a_row_with_a_state_has_no_system_text_but_its_own_and_may_say_nothing_more() -> None:
    endings = {"book": b"end.\n"}.get
    row = {"prompt": "q", "state": "book"}
    assert asked(row, mode="chat", system="S", ending=endings, form="world").prompt == (
        b"\nUser: q\n\nAssistant:"
    )
    assert asked(row | {"system": "T"}, system="S", ending=endings).prompt == (
        b"\nSystem: T\n\nUser: q\n\nAssistant:"
    )
    assert asked({"prompt": "", "state": "book"}).prompt == b""

    def missing(name: str) -> bytes:
        raise NotFoundError(f"no such file: {name}")

    found = refused(row, mode="chat", ending=missing)
    assert found == ("bad_value", "no such file: book")


def test_the_seed_of_a_row_is_told_by_the_run_and_its_place() -> None:
    assert row_seed(0, 0) == 508_604_106_994_858
    assert row_seed(2**64 - 1, 2**40) < 2**53
    seeds = {row_seed(base, index) for base in range(50) for index in range(50)}
    assert len(seeds) == 2500


def test_defaults_that_cannot_work_are_refused_before_any_row() -> None:
    with pytest.raises(UsageError, match="think"):
        ask({"prompt": "a"}, mode="chat", think="hard")
    with pytest.raises(UsageError, match="template"):
        ask({}, kind="openai", template=Template("{a}"))


def body(**fields: object) -> dict[str, object]:
    return {"custom_id": "a", "body": fields}


def test_a_request_to_openai_is_the_row_that_says_the_same() -> None:
    said = [say("user", "q")]
    chat = body(model="m", user="u", messages=said, temperature=0.5, max_completion_tokens=7)
    chat["body"] |= {"logprobs": True, "top_logprobs": 3, "tools": [], "n": 2}  # type: ignore[operator]
    same = asked({"messages": said, "temperature": 0.5, "max_tokens": 7, "logprobs": 3, "n": 2})
    assert asked(chat, kind="openai") == same
    for more in (
        {"url": "/v1/chat/completions", "method": "POST"},
        {"url": "/v4/chat/completions/"},
    ):
        assert asked(chat | more, kind="openai") == same
    text = body(prompt="p", stop=["x"], echo=False, suffix=None, logit_bias=None)
    assert asked(text, kind="openai", mode="chat") == asked({"prompt": "p", "stop": "x"})
    own = body(prompt="p", temperature=0.5)
    assert asked(own, kind="openai", overrides=False).sampling.temperature == 0.5


@pytest.mark.parametrize(
    ("line", "code", "word"),
    [
        ({"body": {"prompt": "a"}}, "bad_value", "custom_id is null"),
        ({"custom_id": 5, "body": {"prompt": "a"}}, "bad_value", "custom_id is a number"),
        ({"custom_id": "a"}, "bad_value", "body is null"),
        ({"custom_id": "a", "body": []}, "bad_value", "body is a list"),
        (body(prompt="a") | {"method": "GET"}, "bad_value", "method"),
        (body(prompt="a") | {"url": 5}, "bad_value", "url is a number"),
        (body(prompt="a") | {"url": "/v1/embeddings"}, "unsupported", "/v1/embeddings"),
        (body(prompt="a") | {"url": "/v1/chat/completions"}, "missing_field", "'messages'"),
        (body(), "missing_field", "'messages'"),
        (body(prompt="a", messages=[say("user", "b")]), "unsupported", "messages"),
        (body(prompt=["a", "b"]), "bad_value", "prompt is a list"),
        (body(prompt="a", repetition_penalty=1.1), "unsupported", "repetition_penalty"),
        (body(prompt="a", echo=True), "unsupported", "echo"),
        (body(prompt="a", best_of=3), "unsupported", "best_of"),
        (body(messages=[], tools=[{}]), "unsupported", "tools"),
        (
            body(messages=[], response_format={"type": "json_object"}),
            "unsupported",
            "response_format",
        ),
        (body(messages=[say("user", "a")], top_logprobs=3), "bad_value", "top_logprobs"),
        (
            body(messages=[say("user", "a")], logprobs=True, top_logprobs=21),
            "bad_value",
            "between 0 and 20",
        ),
        (body(messages=[say("user", "a")], temperature="hot"), "bad_value", "temperature"),
        (body(messages=[say("user", "a")], text="a"), "unsupported", "text"),
    ],
)
def test_a_request_to_openai_that_is_not_to_be_had_says_why(
    line: dict[str, Any], code: str, word: str
) -> None:
    found = refused(line, kind="openai")
    assert found[0] == code
    assert word in found[1]
