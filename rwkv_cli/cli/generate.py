"""`rwkv generate`: continue a text, answer a question about one, or answer rows of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rwkv_cli.cli.batchflags import RAY, batch_options
from rwkv_cli.cli.checks import check_flags
from rwkv_cli.cli.oneshot import OneShot
from rwkv_cli.cli.options import NUMBER, Command, common_options, model_options, sampling_options
from rwkv_cli.cli.prompt import Prompt, gather
from rwkv_cli.cli.settings import collect
from rwkv_cli.errors import UsageError
from rwkv_cli.render.streams import FileSink, Sink, stdout_sink


@click.command(
    cls=Command,
    epilog="Without --raw and --chat, the text is continued as it is; it is answered as a chat "
    "turn with -s, or when there are both a document (stdin, -f) and words. With -i, the rows of a "
    "file are the texts, and --template 'Translate: {text}', or @FILE, makes them of fields.",
)
@click.argument("words", nargs=-1, metavar="[PROMPT]...")
@click.option(
    "-f", "--file", "files", multiple=True, metavar="FILE", help="Read a file; '-' is stdin."
)
@click.option("--no-stdin", is_flag=True, help="Leave stdin alone, in loops that read it.")
@click.option("--null", is_flag=True, help="Prompts of -i, and answers of -k, end with NUL.")
@click.option("--chat", "mode", flag_value="chat", help="Answer as a chat turn.")
@click.option("--raw", "mode", flag_value="raw", help="Continue exactly the given text.")
@click.option("-s", "--system", metavar="TEXT", help="System text; implies --chat.")
@click.option("--think", metavar="MODE", help="Off, fast, short, on or long; for chat turns.")
@click.option(
    "-N",
    "--max-tokens",
    type=NUMBER,
    metavar="N",
    help="Longest answer, in tokens (512; chat 4096).",
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text.")
@click.option("--state", metavar="NAME|FILE", help="Go on from a saved state.")
@click.option("--no-cache", is_flag=True, help="Keep and use no states of prompts.")
@click.option("--save-state", metavar="FILE", help="Save the state at the end.")
@click.option(
    "--prompt-tokens", metavar="IDS", help="Read token ids such as 1,2,3 instead of text."
)
@click.option("-o", "--output", metavar="FILE", help="Write there instead of stdout.")
@click.option("-x", "--extract", is_flag=True, help="Only the first fenced block of code.")
@click.option("-k", "--samples", type=NUMBER, metavar="K", help="K answers from one reading.")
@click.option(
    "--logprobs", type=NUMBER, metavar="N", help="Log probabilities, and the N likeliest."
)
@click.option("--echo", is_flag=True, help="Write the prompt before the answer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with text and figures.")
@batch_options
@sampling_options
@model_options
@common_options
def generate(**flags: Any) -> None:
    """Continue a text, or answer a question about one.

    \b
    rwkv generate "Once upon a time"
    cat report.txt | rwkv generate "Summarize this in one sentence."
    rwkv generate -s "Answer in French." "Who are you?"
    rwkv generate -f book.txt --save-state book.rwkvstate -N 1
    rwkv generate --state book.rwkvstate --chat "Who is the hero?"
    rwkv generate -i rows.jsonl -o out.jsonl --template "Translate: {text}"
    """
    if flags["input"] is not None:
        from rwkv_cli.cli.batch import generate_rows

        generate_rows(flags)
        return
    if flags["engine"] == RAY:
        raise UsageError("a cluster answers rows; one prompt it does not", hint="add -i FILE")
    flags["samples"] = flags["samples"] or 1
    check_flags(flags)
    settings = collect(flags)
    prompt = _checked_prompt(flags)
    mode = flags["mode"] or _natural_mode(prompt, flags["system"])
    if mode == "raw" and flags["think"] is not None:
        raise UsageError("--think is for chat turns", hint="add --chat")
    # A closed stdout, or a file that cannot be written, is found before minutes are spent.
    sink: Sink = FileSink(Path(flags["output"])) if flags["output"] else stdout_sink()
    job = OneShot(flags, settings, prompt, mode, sink)
    try:
        job.run()
    finally:
        sink.close()
        job.cache.close()


def _checked_prompt(flags: dict[str, Any]) -> Prompt:
    """Find out what there is to read.

    Raises:
        UsageError: There is nothing to continue.
        NotFoundError: A file does not exist.
        RefusedError: It is a folder.
        StorageError: stdin cannot be read.
    """
    if flags["prompt_tokens"] is not None:
        return Prompt()
    prompt = gather(flags["words"], flags["files"], stdin=not flags["no_stdin"])
    if not prompt.words and not prompt.has_document and not flags["state"]:
        what = "there is no prompt" if prompt.words is None else "the prompt is empty"
        raise UsageError(what, hint='for example: rwkv generate "Once upon a time"')
    return prompt


def _natural_mode(prompt: Prompt, system: str | None) -> str:
    """Tell what is meant when neither --raw nor --chat says it."""
    both = prompt.has_document and prompt.words is not None
    return "chat" if both or system is not None else "raw"
