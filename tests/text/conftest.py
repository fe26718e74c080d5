"""Texts in many scripts, the reference tokenizer, and a small BPE tokenizer made on the spot."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from rwkv_cli.native.library import is_available
from rwkv_cli.text.tokenizer import Tokenizer
from rwkv_cli.text.world import FILE_NAME, WorldTokenizer, open_world

_SENTENCES = (
    "The rain had stopped, and the street smelled of wet stone; 3.14 isn't 22/7.",  # Latin
    "Žluťoučký kůň příšerně úpěl ďábelské ódy. Größe, naïveté, smørrebrød.",  # Latin, accented
    "Дождь закончился, и на улице пахло мокрым камнем.",  # Cyrillic
    "Η βροχή σταμάτησε και ο δρόμος μύριζε βρεγμένη πέτρα.",  # Greek
    "توقف المطر وفاحت رائحة الحجر المبلل في الشارع.",  # Arabic
    "הגשם פסק והרחוב הריח כאבן רטובה.",  # Hebrew
    "बारिश रुक गई थी और गली में गीले पत्थर की गंध थी।",  # Devanagari
    "বৃষ্টি থেমে গেছে, রাস্তায় ভেজা পাথরের গন্ধ।",  # Bengali
    "மழை நின்றது, தெருவில் ஈரமான கல்லின் மணம்.",  # Tamil
    "వర్షం ఆగిపోయింది, వీధిలో తడి రాయి వాసన.",  # Telugu
    "മഴ നിന്നു, തെരുവിൽ നനഞ്ഞ കല്ലിന്റെ മണം.",  # Malayalam
    "ฝนหยุดแล้ว และถนนมีกลิ่นหินเปียก",  # Thai
    "ຝົນເຊົາແລ້ວ ຖະໜົນມີກິ່ນຫີນປຽກ",  # Lao
    "မိုးတိတ်သွားပြီ လမ်းမှာ ကျောက်စိုနံ့ရတယ်။",  # Myanmar
    "ភ្លៀងបានឈប់ ហើយផ្លូវមានក្លិនថ្មសើម។",  # Khmer
    "წვიმა შეწყდა და ქუჩას სველი ქვის სუნი ჰქონდა.",  # Georgian
    "Անձրևը դադարեց, և փողոցից թաց քարի հոտ էր գալիս։",  # Armenian
    "ዝናቡ ቆመ፣ መንገዱም የእርጥብ ድንጋይ ሽታ ነበረው።",  # Ethiopic
    "雨停了，街道上有湿石头的味道。「你好」，她说。",  # Han
    "雨がやんで、通りは濡れた石のにおいがした。スペースＸ",  # Kana
    "비가 그치고 거리에서는 젖은 돌 냄새가 났다.",  # Hangul
    "ᠪᠣᠷᠣᠭᠠ ᠵᠣᠭᠰᠣᠪᠠ᠃ ཆར་པ་ཆད་སོང་།",  # Mongolian, Tibetan
    "👩‍👩‍👧 🏳️‍🌈 ∀x∈ℝ: ⌈x⌉ = −⌊−x⌋ 𝔄𝔅 🜁",  # emoji, mathematics, beyond the first plane
    "def f(x):\n    return {'a': [x] * 3}\t# 0x1F\r\n\r\n\n\n    \x00\x01\x7f\x85\u2028",  # code
)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own; a library that lies in the user's is found before."""
    is_available()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RWKV_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def sentences() -> tuple[str, ...]:
    """A sentence in each of many scripts."""
    return _SENTENCES


@pytest.fixture(scope="session")
def random_text() -> Callable[[random.Random], str]:
    """A maker of texts: words of the sentences, any characters, runs of white space."""
    words = [word for sentence in _SENTENCES for word in sentence.split()]

    def make(rng: random.Random) -> str:
        parts = []
        for _ in range(rng.randrange(1, 30)):
            kind = rng.randrange(5)
            if kind == 0:
                parts.append(rng.choice(" \n\t\r\u00a0\u3000") * rng.randrange(1, 40))
            elif kind == 1:
                points = (rng.randrange(0x110000) for _ in range(rng.randrange(4)))
                parts.append("".join(chr(p) for p in points if not 0xD800 <= p < 0xE000))
            elif kind == 2:
                parts.append(rng.choice("!-=#.0123456789" + "éa\u0301ñ") * rng.randrange(1, 20))
            else:
                parts.append(" " * rng.randrange(2) + rng.choice(words))
        return "".join(parts)

    return make


@pytest.fixture(scope="session")
def random_bytes(random_text: Callable[[random.Random], str]) -> Callable[[random.Random], bytes]:
    """A maker of bytes: texts with bytes changed, lost and added."""

    def make(rng: random.Random) -> bytes:
        data = bytearray(random_text(rng).encode())
        for _ in range(rng.randrange(4)):
            place = rng.randrange(len(data) + 1)
            data[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
        return bytes(data)

    return make


@pytest.fixture(scope="session")
def split_anyhow() -> Callable[[random.Random, bytes], Iterator[bytes]]:
    """A maker of chunks of any sizes, empty ones among them."""

    def split(rng: random.Random, data: bytes) -> Iterator[bytes]:
        largest = rng.choice((1, 7, 300, 5000))
        position = 0
        while position < len(data):
            size = rng.randint(0, largest)
            yield data[position : position + size]
            position += size

    return split


@pytest.fixture(scope="session")
def decode() -> Callable[[Tokenizer, list[int]], bytes]:
    """The bytes of tokens, joined."""
    return lambda tokenizer, tokens: b"".join(map(tokenizer.token_bytes, tokens))


@pytest.fixture(scope="session")
def world() -> WorldTokenizer:
    """The World tokenizer."""
    return open_world()


@pytest.fixture(scope="session")
def world_path() -> Path:
    """The World vocabulary as the package brings it."""
    spec = find_spec("pyrwkv_tokenizer")
    if spec is None or spec.origin is None:
        pytest.skip("the package pyrwkv-tokenizer is not installed")
    return Path(spec.origin).with_name(FILE_NAME)


@pytest.fixture(scope="session")
def reference_encode(world_path: Path) -> Callable[[bytes], list[int]]:
    """The reference package's World encoder."""
    reference = pytest.importorskip("rwkv.rwkv_tokenizer", reason="the package rwkv is the oracle")
    encode: Callable[[bytes], list[int]] = reference.TRIE_TOKENIZER(str(world_path)).encodeBytes
    return encode


@pytest.fixture(scope="session")
def small_bpe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer file like the demo's: byte-level BPE, id 0 the end of text."""
    tokenizers = import_module("tokenizers")
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        show_progress=False,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    library.train_from_iterator(_SENTENCES * 3, trainer)
    path = tmp_path_factory.mktemp("tokenizers") / "small.json"
    library.save(str(path))
    return path
