"""Laws of the demo corpus and its vocabulary; knows nothing of the model trained on them."""

from __future__ import annotations

import json
import random
import re
from itertools import islice
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from demo import tokenizer as demo_tokenizer
from demo.chats import KINDS, Chats
from demo.corpus import HERE, documents
from demo.grammar import fill, read_sections
from demo.stories import FEWEST_WORDS, MOST_WORDS, Stories

COUNT = 3000
MOST_TOKENS = 600
# Words whose first sound is not that of their first letter.
AN_ANYWAY = {"hour", "rnn", "rwkv"}
OPENINGS = ("User: ", "System: ")


@pytest.fixture(scope="module")
def sample() -> list[str]:
    """A few thousand documents."""
    return list(islice(documents(seed=3), COUNT))


@pytest.fixture(scope="module")
def stories(sample: list[str]) -> list[str]:
    """The stories of the sample."""
    return [text for text in sample if not text.startswith(OPENINGS)]


@pytest.fixture(scope="module")
def chats(sample: list[str]) -> list[str]:
    """The chats of the sample."""
    return [text for text in sample if text.startswith(OPENINGS)]


@pytest.fixture(scope="module")
def vocabulary() -> Tokenizer:
    """The packaged vocabulary."""
    return Tokenizer.from_file(str(demo_tokenizer.OUTPUT))


def test_the_same_seed_gives_the_same_documents() -> None:
    assert list(islice(documents(5), 200)) == list(islice(documents(5), 200))


def test_another_seed_gives_other_documents() -> None:
    assert list(islice(documents(5), 20)) != list(islice(documents(6), 20))


def test_stories_are_a_little_more_than_half(sample: list[str], stories: list[str]) -> None:
    assert 0.50 < len(stories) / len(sample) < 0.60


def test_most_stories_begin_once_upon_a_time(stories: list[str]) -> None:
    assert sum(text.startswith("Once upon a time") for text in stories) > 0.6 * len(stories)


def test_stories_have_the_promised_length(stories: list[str]) -> None:
    lengths = [len(text.split()) for text in stories]
    assert min(lengths) >= FEWEST_WORDS
    assert max(lengths) <= MOST_WORDS


def test_chat_turns_alternate_after_an_optional_system_message(chats: list[str]) -> None:
    law = re.compile(r"(System )?(User Assistant ){1,4}")
    for text in chats:
        roles = "".join(message.partition(": ")[0] + " " for message in text.split("\n\n"))
        assert law.fullmatch(roles), text


def test_chat_messages_are_one_line_each_and_not_empty(chats: list[str]) -> None:
    for text in chats:
        for message in text.split("\n\n"):
            assert message.partition(": ")[2].strip(), text
            assert "\n" not in message, text


def test_text_is_ascii_and_has_no_leftover_of_a_template(sample: list[str]) -> None:
    for text in sample:
        assert text.isascii(), text
        assert not re.search(r"[\[\]{}~]|//|  | [.,?!]( |$)", text), text
        assert text == text.strip()


def test_articles_agree_with_the_next_word(sample: list[str]) -> None:
    for text in sample:
        for article, word in re.findall(r"\b([Aa]n?) ([A-Za-z]+)", text):
            wants_an = word.lower() in AN_ANYWAY or word[0].lower() in "aeiou"
            assert (article.lower() == "an") == wants_an, f"{article} {word}: {text}"


def test_every_sentence_of_a_story_begins_with_a_capital(stories: list[str]) -> None:
    for text in stories:
        assert not re.search(r"[.] [a-z]", text), text


def test_quotes_are_closed_in_every_paragraph(stories: list[str]) -> None:
    for text in stories:
        assert all(line.count('"') % 2 == 0 for line in text.splitlines()), text


def test_a_story_keeps_the_pronoun_of_a_lonely_hero() -> None:
    writer, rng = Stories(HERE / "stories.txt"), random.Random(1)
    for _ in range(200):
        text = writer.write(rng, "seed")
        first = text.partition("\n")[0]
        assert not ({"he", "she"} <= set(re.findall(r"\b(?:he|she)\b", first.lower()))), text


def test_every_plot_can_be_written() -> None:
    writer, rng = Stories(HERE / "stories.txt"), random.Random(2)
    assert len(writer.plots) >= 10
    for plot in writer.plots:
        for _ in range(20):
            assert writer.write(rng, plot)


def test_a_requested_story_is_about_its_subject() -> None:
    writer, rng = Stories(HERE / "stories.txt"), random.Random(4)
    for kind in ("fox", "owl", "robot", "girl"):
        assert f" {kind} " in writer.write_short(rng, kind)


def test_every_entry_of_the_table_is_asked_and_answered() -> None:
    table = HERE / "chats.txt"
    writer, rng = Chats(table, Stories(HERE / "stories.txt")), random.Random(5)
    asked = {name for kind in KINDS for name in writer.entries(kind)}
    spare = {"system", "add question", "add answer", "count question"}
    assert asked == set(read_sections(table)) - spare
    for name in asked - {"story question", "story any"}:
        assert all(writer.ask(name, rng)), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_turn_is_reachable(kind: str) -> None:
    writer, rng = Chats(HERE / "chats.txt", Stories(HERE / "stories.txt")), random.Random(6)
    assert all(writer.turn(rng, kind))


@pytest.mark.parametrize("entry", ["tool download", "tool quit", "tool stop", "self rwkv"])
def test_important_questions_are_asked_in_many_ways(entry: str) -> None:
    writer, rng = Chats(HERE / "chats.txt", Stories(HERE / "stories.txt")), random.Random(7)
    assert len({writer.ask(entry, rng)[0] for _ in range(1000)}) >= 25


def test_sums_are_right() -> None:
    writer, rng = Chats(HERE / "chats.txt", Stories(HERE / "stories.txt")), random.Random(8)
    for _ in range(300):
        answer = writer.turn(rng, "sum")[1]
        if match := re.fullmatch(r"(\d+) plus (\d+) is (\d+)\.", answer):
            assert int(match[1]) + int(match[2]) == int(match[3])


def test_a_template_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError):
        fill("a {thing}", {}, random.Random(0))


def test_a_table_with_a_section_twice_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.txt"
    table.write_text("== a\nx\n== a\ny\n", encoding="utf-8")
    with pytest.raises(ValueError, match="twice"):
        read_sections(table)


def test_no_document_is_longer_than_600_tokens(sample: list[str], vocabulary: Tokenizer) -> None:
    longest = max(len(encoding.ids) for encoding in vocabulary.encode_batch(sample))
    assert longest <= MOST_TOKENS


def test_plain_text_never_becomes_the_end_of_text(sample: list[str], vocabulary: Tokenizer) -> None:
    assert vocabulary.token_to_id(demo_tokenizer.END_OF_TEXT) == 0
    for text in (*sample[:300], demo_tokenizer.END_OF_TEXT, f"a{demo_tokenizer.END_OF_TEXT}b"):
        assert 0 not in vocabulary.encode(text).ids


def test_any_unicode_text_survives_a_round_trip(vocabulary: Tokenizer) -> None:
    rng = random.Random(9)
    ranges = (range(1, 128), range(128, 0xD800), range(0xE000, 0x110000))
    for _ in range(300):
        text = "".join(chr(rng.choice(rng.choice(ranges))) for _ in range(30))
        assert vocabulary.decode(vocabulary.encode(text).ids, skip_special_tokens=False) == text


def test_training_the_vocabulary_twice_gives_the_same_file() -> None:
    assert demo_tokenizer.train(300, seed=1) == demo_tokenizer.train(300, seed=1)


def test_the_packaged_vocabulary_has_2048_tokens(vocabulary: Tokenizer) -> None:
    table = json.loads(demo_tokenizer.OUTPUT.read_text(encoding="utf-8"))
    assert table["added_tokens"] == []
    assert sorted(vocabulary.get_vocab().values()) == list(range(2048))
