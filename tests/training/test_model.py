"""Laws of the shipped demo model: what a newcomer sees first."""

from __future__ import annotations

import re

import pytest

import rwkv_cli
from rwkv_cli.generation import Generation
from rwkv_cli.sampling import PRESETS
from rwkv_cli.text.templates import load_template
from rwkv_cli.traces import Randomness


@pytest.fixture(scope="module")
def demo() -> rwkv_cli.Model:
    return rwkv_cli.load("demo")


def _generate(demo: rwkv_cli.Model, prompt: str, seed: int, stops: tuple[bytes, ...] = ()) -> str:
    _, state = demo.prefill(demo.tokenizer.encode(prompt.encode()))
    generation = Generation(
        demo, state, PRESETS["demo"], Randomness(seed), max_tokens=400, stops=stops
    )
    text = b"".join(event.data for event in generation).decode()
    assert generation.finish in ("end", "stop"), text
    return text


@pytest.mark.parametrize("seed", range(1, 7))
def test_a_story_keeps_its_hero_and_ends_with_a_sentence(demo: rwkv_cli.Model, seed: int) -> None:
    story = _generate(demo, "Once upon a time", seed)
    assert len(story.split()) > 60
    assert story.rstrip()[-1] in '.!"'
    hero = re.search(r"\b(?:named|was) ([A-Z][a-z]+)", story)
    assert hero
    assert story.count(hero[1]) >= 3


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How do I download a model?", "rwkv download"),
        ("how can i get a bigger model", "rwkv chat -m"),
        ("How do I quit?", "/exit"),
        ("How do I continue my last chat?", "rwkv chat --continue"),
        ("How can I stop an answer?", "Ctrl-C"),
        ("What are you?", "demo"),
        ("Who won the election?", "not know"),
    ],
)
def test_it_explains_the_tool_and_itself(demo: rwkv_cli.Model, question: str, answer: str) -> None:
    stops = load_template("demo").stops
    found = [
        _generate(demo, f"User: {question}\n\nAssistant:", seed, stops) for seed in range(1, 6)
    ]
    assert sum(answer in text for text in found) >= 4, found


def test_it_is_at_most_ten_megabytes(demo: rwkv_cli.Model) -> None:
    assert demo.path.stat().st_size <= 10_000_000
