"""The demo vocabulary: trains a small byte-level BPE on the corpus; knows no model.

Run `python demo/tokenizer.py` to write rwkv_cli/data/demo_tokenizer.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

if __package__ in (None, ""):  # run as a file: the folder above must be importable
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.corpus import documents

END_OF_TEXT = "<|endoftext|>"
VOCABULARY_SIZE = 2048
OUTPUT = Path(__file__).resolve().parents[1] / "rwkv_cli" / "data" / "demo_tokenizer.json"


def train(count: int, seed: int) -> str:
    """The tokenizer as JSON text, trained on the first `count` documents of the seed.

    Raises:
        ValueError: the end of text did not get id 0.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(islice(documents(seed), count), trainer=trainer, length=count)
    return _without_added_tokens(tokenizer.to_str())


def _without_added_tokens(text: str) -> str:
    """Keep the end of text at id 0 of the vocabulary, but let no user text become it.

    An added token is cut out of any text that holds its name, whatever the encode call says;
    without the entry those letters are encoded as letters, and only the trainer writes id 0.
    """
    table = json.loads(text)
    if table["model"]["vocab"].get(END_OF_TEXT) != 0:
        raise ValueError(f"{END_OF_TEXT} is not id 0 of the trained vocabulary")
    table["added_tokens"] = []
    return json.dumps(table, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    """Train and write the file."""
    parser = argparse.ArgumentParser(description="Train the vocabulary of the demo model.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    text = train(arguments.count, arguments.seed)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
