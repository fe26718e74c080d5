"""Write docs/demo.md and its loss curve from the trained model: `python -m demo.report`.

The samples are the first ten seeds, whatever they give.
"""

from __future__ import annotations

import csv
from pathlib import Path

import rwkv_cli
from rwkv_cli.generation import Generation
from rwkv_cli.sampling import PRESETS
from rwkv_cli.text.templates import load_template
from rwkv_cli.traces import Randomness

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
STORIES = range(1, 6)
QUESTIONS = (
    "How do I download a model?",
    "What are you?",
    "How can I go on with my last chat?",
    "Tell me a story about a fox.",
    "What is the meaning of the French Revolution?",
)


def answer(model: rwkv_cli.Model, prompt: str, seed: int, *, chat: bool) -> tuple[str, str]:
    """Generate from a prompt with the demo's own settings: the text, and why it ended."""
    stops = load_template("demo").stops if chat else ()
    _, state = model.prefill(model.tokenizer.encode(prompt.encode()))
    generation = Generation(
        model, state, PRESETS["demo"], Randomness(seed), max_tokens=400, stops=stops
    )
    text = b"".join(event.data for event in generation).decode("utf-8", "replace")
    return text, generation.finish or ""


def curve() -> list[tuple[int, float]]:
    """Read the loss curve: tokens seen, mean loss of the 20 steps before."""
    with (DOCS / "demo-loss.csv").open(encoding="ascii", newline="") as file:
        return [(int(row["tokens"]), float(row["loss"])) for row in csv.DictReader(file)]


def chart(points: list[tuple[int, float]]) -> str:
    """Draw the curve as SVG."""
    width, height, left, top, bottom = 720, 320, 56, 20, 44
    most, highest = max(t for t, _ in points), 6.5

    def place(tokens: float, loss: float) -> str:
        x = left + (width - left - 20) * tokens / most
        y = top + (height - top - bottom) * (1 - loss / highest)
        return f"{x:.1f},{y:.1f}"

    line = " ".join(place(*point) for point in points)
    ticks = []
    for loss in range(7):
        x, y = place(0, loss).split(",")
        ticks.append(f'<path d="M{x} {y}H{width - 20}" stroke="#ddd"/>')
        ticks.append(f'<text x="{left - 10}" y="{float(y) + 4}" text-anchor="end">{loss}</text>')
    for million in range(most // 1_000_000 + 1):
        x, _ = place(1e6 * million, 0).split(",")
        ticks.append(
            f'<text x="{x}" y="{height - bottom + 18}" text-anchor="middle">{million}</text>'
        )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"
     font-family="sans-serif" font-size="12" fill="#333">
<rect width="{width}" height="{height}" fill="#fff"/>
{chr(10).join(ticks)}
<text x="{width / 2}" y="{height - 8}" text-anchor="middle">tokens, in millions</text>
<text x="14" y="{height / 2}" text-anchor="middle" transform="rotate(-90 14 {height / 2})"
>loss, nats per token</text>
<polyline points="{line}" fill="none" stroke="#c33" stroke-width="1.5"/>
</svg>
"""


def page(model: rwkv_cli.Model, points: list[tuple[int, float]]) -> str:
    """Write the document."""
    tokens, loss = points[-1]
    facts = f"{model.dims.layers} layers"
    lines = [INTRODUCTION.format(tokens=tokens / 1e6, loss=loss, facts=facts)]
    for seed in STORIES:
        text, finish = answer(model, "Once upon a time", seed, chat=False)
        lines.append(f"**Seed {seed}** ({finish})\n\n```text\nOnce upon a time{text}\n```\n")
    for seed, question in enumerate(QUESTIONS, 1):
        text, finish = answer(model, f"User: {question}\n\nAssistant:", seed, chat=True)
        lines.append(
            f"**Seed {seed}** ({finish})\n\n```text\nUser: {question}\n\nAssistant:{text}\n```\n"
        )
    return "\n".join(lines)


INTRODUCTION = """# The demo model

`demo.safetensors` is an RWKV-7 of 3.6 million parameters ({facts}, width 192, three heads, vocabulary 2,048, fp16)
that comes with the package, so that every command works on a fresh machine with no network. It writes short stories,
talks a little, and explains this tool. It knows nothing else, and says so.

Everything is made in this repository and by it:

| what | where |
|---|---|
| the text: plots and exchanges, and the grammar that fills them in | `demo/stories.txt`, `demo/chats.txt`, `demo/corpus.py` |
| the vocabulary: byte-level BPE, id 0 is the end of text | `demo/tokenizer.py` |
| the first parameters, after RWKV-LM's initialization | `demo/model.py` |
| the training, through the formulas that run the model | `demo/train.py` |
| this page | `demo/report.py` |

`make demo` trains it again: seed 7, 1,400 steps of 16 rows of 256 tokens, {tokens:.1f} million tokens, AdamW, the rate
rising to 0.003 in 40 steps and falling along half a cosine to 0.0001, float32, about an hour and ten minutes on one core of a
busy machine. Every row starts with a whole document, so that the zero state means a beginning. The recipe is exact; the
last bits depend on the machine and its libraries.

## Loss

The last mean is {loss:.3f} nats a token, over fresh text: no document is seen twice.

![loss curve](demo-loss.svg)

## Ten samples, not selected

With the demo's own settings (temperature 1, top-p 0.6): the first five seeds of a story, then one answer each.
"""


def main() -> None:
    """Write page and curve."""
    model, points = rwkv_cli.load("demo"), curve()
    (DOCS / "demo-loss.svg").write_text(chart(points), encoding="utf-8")
    (DOCS / "demo.md").write_text(page(model, points), encoding="utf-8")


if __name__ == "__main__":
    main()
