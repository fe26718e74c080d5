"""Rows answered together are the rows answered alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from oracle.models import needs_native, tiny_model
from oracle.weights import VERSIONS

from rwkv_cli.batch.row import Answer, Request, RowError
from rwkv_cli.batch.running import Prefix, Runner
from rwkv_cli.engine.model import Model
from rwkv_cli.errors import StorageError
from rwkv_cli.generation import Generation
from rwkv_cli.sampling import Sampling
from rwkv_cli.traces import Randomness

SAMPLING = Sampling(1.0, 0.9, presence=0.3, frequency=0.2)


def requests(count: int, **changes: object) -> list[Request]:
    drawn = random.Random(count)
    rows = []
    for index in range(count):
        prompt = bytes(drawn.randrange(1, 256) for _ in range(drawn.choice([1, 3, 30, 160])))
        wishes = {"max_tokens": drawn.choice([1, 5, 12]), "stops": (b"\x07", b"aa"), **changes}
        rows.append(Request(index, prompt, SAMPLING, seed=1000 + index, **wishes))  # type: ignore[arg-type]
    return rows


def alone(model: Model, request: Request, stream: int = 0) -> bytes:
    _, state = model.prefill(model.tokenizer.encode(request.prompt))
    place = Randomness(request.seed, stream)
    length, stops = request.max_tokens, request.stops
    made = Generation(model, state, request.sampling, place, max_tokens=length, stops=stops)
    return b"".join(event.data for event in made)


@needs_native
@pytest.mark.parametrize("version", VERSIONS)
def test_a_row_is_bit_for_bit_what_a_run_of_its_own_gives(version: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path, version, engine="native")
    asked = requests(10, samples=2)
    answers = list(Runner(model, slots=6).run(asked))
    assert sorted(answer.index for answer in answers) == list(range(10))
    for answer in answers:
        request = asked[answer.index]
        texts = [sample.text for sample in answer.samples]
        assert texts == [alone(model, request, stream) for stream in range(2)]
        assert answer.prompt_tokens == len(request.prompt)


def test_on_torch_a_row_alone_in_its_batch_is_what_a_run_of_its_own_gives(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "v7", engine="torch")
    asked = requests(6)
    for answer in Runner(model, slots=1).run(asked):
        assert answer.samples[0].text == alone(model, asked[answer.index])


def test_a_prompt_of_no_tokens_is_an_error_of_its_row_alone(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "v7", engine="torch")
    asked = [
        Request(i, prompt, SAMPLING, i, max_tokens=2) for i, prompt in enumerate((b"\0", b"a"))
    ]
    first, second = sorted(Runner(model, slots=2).run(asked), key=lambda answer: answer.index)
    assert first.error == RowError("empty_prompt", "the prompt is empty")
    assert second.samples[0].text == alone(model, asked[1])


@needs_native
@pytest.mark.parametrize("slots", [1, 2, 9, 64])
def test_a_shared_prefix_changes_nothing_but_the_time(slots: int, tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "v7", engine="native")
    shared = bytes(range(1, 200))
    asked = [
        Request(i, shared + bytes([1 + i]) * (i % 3), SAMPLING, i, max_tokens=4) for i in range(9)
    ]
    other = Request(9, b"another beginning", SAMPLING, 9, max_tokens=4)
    prefix = Prefix(model.tokenizer.encode(shared))
    runner = Runner(model, slots=slots, prefix=prefix)
    answers = {answer.index: answer for answer in runner.run([*asked, other])}
    assert runner.from_prefix == 6, "a prompt that ends where the prefix does needs its logits"
    for request in (*asked, other):
        answer = answers[request.index]
        assert answer.samples[0].text == alone(model, request)
        assert answer.prompt_tokens == len(request.prompt)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return tiny_model(tmp_path, "v7")


def test_what_has_an_answer_passes_by(model: Model) -> None:
    bad = [Answer(i, 0, error=RowError("bad_json", "no")) for i in range(500, 1200)]
    answers = list(Runner(model, slots=2).run([*bad[:400], *requests(3), *bad[400:]]))
    assert len(answers) == 703
    assert [a for a in answers if a.error] == bad


def test_scores_cover_the_text_and_are_those_of_the_model(model: Model) -> None:
    [request] = requests(1, logprobs=3, max_tokens=12)
    [answer] = Runner(model, slots=1).run([request])
    [sample] = answer.samples
    assert sample.scores is not None
    assert b"".join(score.data for score in sample.scores).startswith(sample.text)
    assert all(len(score.top) == 3 and score.logprob <= 0 for score in sample.scores)
    for score in sample.scores:
        likeliest = [logprob for _, _, logprob in score.top]
        assert likeliest == sorted(likeliest, reverse=True)
        assert score.logprob <= likeliest[0]


def test_an_input_that_breaks_off_is_told_after_what_it_gave(model: Model) -> None:
    def broken() -> Iterator[Request]:
        yield from requests(3)
        raise StorageError("cannot read the input")

    answers = Runner(model, slots=2).run(broken())
    assert [next(answers).index for _ in range(3)]
    with pytest.raises(StorageError, match="cannot read the input"):
        next(answers)


def test_a_silent_input_holds_up_no_row_and_no_interrupt(model: Model) -> None:
    silent = threading.Event()

    def slow() -> Iterator[Request]:
        yield from requests(2)
        silent.wait(30)

    runner = Runner(model, slots=4)
    ticks = 0

    def tick(read: int, generated: int) -> None:
        nonlocal ticks
        ticks += read + generated > 0
        if ticks > 6:
            runner.interrupt()

    try:
        assert len(list(runner.run(slow(), tick))) == 2
    finally:
        silent.set()


def test_a_state_that_is_not_there_is_the_error_of_its_row(model: Model) -> None:
    first, second = requests(2)
    lost = Request(5, b"x", SAMPLING, 5, 3, state="nowhere.rwkvstate")
    answers = {a.index: a for a in Runner(model, slots=3).run([first, lost, second])}
    assert answers[5].error is not None
    assert "nowhere" in answers[5].error.message
    assert answers[0].error is None
    assert answers[1].error is None


def test_a_saved_state_is_where_a_row_goes_on(model: Model, tmp_path: Path) -> None:
    _, state = model.prefill(list(b"all that came before"))
    state.save(tmp_path / "before.rwkvstate")
    request = Request(0, b" and after", SAMPLING, 7, 6, state=str(tmp_path / "before.rwkvstate"))
    [answer] = Runner(model, slots=1).run([request])
    _, whole = model.prefill(list(b" and after"), state)
    made = Generation(model, whole, SAMPLING, Randomness(7), max_tokens=6)
    assert answer.samples[0].text == b"".join(event.data for event in made)
