"""`rwkv generate`: continue a text, or answer a question about one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rwkv_cli.cli.app import Interrupted, Terminated
from rwkv_cli.cli.checks import check_flags, token_ids
from rwkv_cli.cli.loading import choose_model, drawing, interruptible, load, open_budget
from rwkv_cli.cli.options import NUMBER, Command, common_options, model_options, sampling_options
from rwkv_cli.cli.prompt import Prompt, beginning, chat_text, gather, raw_text
from rwkv_cli.cli.report import Run, as_json, report
from rwkv_cli.cli.settings import Settings, collect
from rwkv_cli.errors import UsageError
from rwkv_cli.places import prefix_folder
from rwkv_cli.render.progress import Progress
from rwkv_cli.render.streams import (
    STDOUT,
    FileSink,
    Sink,
    TerminalSink,
    is_terminal,
    note,
    stdout_sink,
)
from rwkv_cli.render.style import hint
from rwkv_cli.store.named import find_state
from rwkv_cli.store.prefix import PrefixCache
from rwkv_cli.text.fenced import first_block
from rwkv_cli.text.templates import load_template

if TYPE_CHECKING:
    from rwkv_cli.engine.model import Model
    from rwkv_cli.engine.state import State
    from rwkv_cli.generation import Generation

_LENGTH = {"raw": 512, "chat": 4096}  # longest answer in tokens, unless -N says otherwise
_SEPARATOR = 8  # tokens at the end of a state that can hold what stands between two turns


@click.command(
    cls=Command,
    epilog="Without --raw and --chat, the text is continued as it is; it is answered as a chat "
    "turn with -s, or when there are both a document (stdin, -f) and words.",
)
@click.argument("words", nargs=-1, metavar="[PROMPT]...")
@click.option(
    "-f", "--file", "files", multiple=True, metavar="FILE", help="Read a file; '-' is stdin."
)
@click.option("--no-stdin", is_flag=True, help="Leave stdin alone, in loops that read it.")
@click.option("--null", is_flag=True, help="With -i: prompts end with NUL, not with lines.")
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
@click.option("--echo", is_flag=True, help="Write the prompt before the answer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with text and figures.")
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
    """
    settings = collect(flags)
    check_flags(flags)
    prompt = _checked_prompt(flags)
    mode = flags["mode"] or _natural_mode(prompt, flags["system"])
    if mode == "raw" and flags["think"] is not None:
        raise UsageError("--think is for chat turns", hint="add --chat")
    # A closed stdout, or a file that cannot be written, is found before minutes are spent.
    sink: Sink = FileSink(Path(flags["output"])) if flags["output"] else stdout_sink()
    job = _Job(flags, settings, prompt, mode, sink)
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


class _Job:
    """One run of the command."""

    def __init__(
        self, flags: dict[str, Any], settings: Settings, prompt: Prompt, mode: str, sink: Sink
    ) -> None:
        self.flags, self.settings, self.prompt, self.mode = flags, settings, prompt, mode
        self.sink, self.quiet, self.json = sink, flags["quiet"], flags["as_json"]
        self.at_once = flags["as_json"] or flags["extract"]  # given out when it is whole
        self.text = bytearray()
        wanted = not (flags["no_cache"] or flags["state"])
        self.cache = PrefixCache(prefix_folder(), budget=open_budget(settings), enabled=wanted)
        self.figures = Run(mode)
        self.began = time.monotonic()

    def run(self) -> None:
        """Load, read, generate, save, report."""
        model = load(choose_model(self.settings, quiet=self.quiet), self.settings, quiet=self.quiet)
        self.figures.load_s = time.monotonic() - self.began
        path = self.flags["state"]
        state = model.load_state(find_state(path)) if path else model.zero_state()
        self._read(model, state)
        generation = self._generation(model, state)
        with interruptible(generation) as interrupts:
            self._stream(generation)
        if self.at_once:
            self.sink.write(self._whole(model, generation))
        self.sink.close()
        if self.flags["save_state"]:
            generation.state.save(self.flags["save_state"])
        if not self.quiet:
            report(self.figures, generation, verbose=self.flags["verbose"])
        if interrupts.terminated:
            raise Terminated
        if interrupts.count:
            raise Interrupted

    def _read(self, model: Model, state: State) -> None:
        """Read the prompt, of any length, in constant memory.

        Raises:
            UsageError: There is nothing to read and nothing to go on from.
        """
        start = time.monotonic()
        progress = Progress("reading the prompt", "tokens", None, enabled=not self.quiet)
        self._bytes_read, self._expected, self._seams = 0, 0, list[int]()

        def update(count: int) -> None:
            progress.expect(self._expected)
            progress.update(count)

        tokens = self._counted(self._tokens(model, state))
        try:
            reading = self.cache.read(model, tokens, state, self._seams, update)
        finally:
            progress.finish()
        count = reading.total
        if count:
            state.attachments = replace(state.attachments, tail=b"")
        if state.logits is None:
            raise UsageError("the prompt is empty")
        self.figures.prompt_tokens = count
        self.figures.cached_tokens = reading.cached
        self.figures.prefill_s = time.monotonic() - start

    def _counted(self, pieces: Iterator[list[int]]) -> Iterator[list[int]]:
        for piece in pieces:
            self._expected += len(piece)
            yield piece

    def _seam(self) -> None:
        """A part of the text ends here: others may go on differently."""
        self._seams.append(self._bytes_read)

    def _tokens(self, model: Model, state: State) -> Iterator[list[int]]:
        """Give what is to be read, as tokens."""
        if self.flags["prompt_tokens"] is not None:
            ids = token_ids(self.flags["prompt_tokens"])
            self._echo(b"".join(map(model.tokenizer.token_bytes, ids)))
            yield ids
            return
        yield from model.tokenizer.encode_stream(self._pieces(model, state))

    def _pieces(self, model: Model, state: State) -> Iterator[bytes]:
        """Give what is to be read, as text, echoing it on the way."""
        text = raw_text(self.prompt, self._seam)
        if self.mode == "chat" and (self.prompt.has_document or self.prompt.words is not None):
            template = load_template(self.settings.template or model.template)
            last = b"".join(map(model.tokenizer.token_bytes, state.tokens[-_SEPARATOR:]))
            start = beginning(template, last if state.position else None)
            # With a saved state, only a flag means a system text: that of the settings was read.
            system = self.flags["system"] if state.position else self.settings.system
            start += template.system(system or "")
            text = chat_text(self.prompt, template, start, self.settings.think, self._seam)
            self._seams.append(len(start.encode("utf-8", "surrogateescape")))
        elif not self.flags["echo"] and not self.quiet:
            self._show_words()
        for piece in text:
            self._bytes_read += len(piece)
            self._echo(piece)
            yield piece

    def _show_words(self) -> None:
        """Let a person read the whole text where it is shown; nothing of this is the product."""
        if not self.flags["output"] and is_terminal(STDOUT) and not self.at_once:
            words = self.prompt.words or ""
            hint(words)
            if isinstance(self.sink, TerminalSink):
                self.sink.after(words)

    def _echo(self, data: bytes) -> None:
        if self.flags["echo"]:
            self._give(data)

    def _generation(self, model: Model, state: State) -> Generation:
        """Settle how tokens are drawn; a saved state brings its own settings, which flags
        overrule.
        """
        from rwkv_cli.generation import Generation

        settings, template = self.settings, load_template(self.settings.template or model.template)
        sampling, randomness = drawing(
            settings, self.flags["ban"], model, state.attachments, template.name
        )
        stops = [text.encode("utf-8", "surrogateescape") for text in self.flags["stop"]]
        if self.mode == "chat":
            stops += template.stops
        length = settings.max_tokens or _LENGTH[self.mode]
        return Generation(model, state, sampling, randomness, max_tokens=length, stops=stops)

    def _stream(self, generation: Generation) -> None:
        """Give out the answer as it comes; that of a chat turn begins with its first word."""
        start = time.monotonic()
        self._give(b"")
        leading = self.mode == "chat" and not self.flags["echo"]
        for event in generation:
            if self.figures.first_s is None:
                self.figures.first_s = time.monotonic() - self.began
            data = event.data.lstrip() if leading else event.data
            leading = leading and not data
            self._give(data)
        self.figures.decode_s = time.monotonic() - start

    def _whole(self, model: Model, generation: Generation) -> bytes:
        """Give what is only known when the answer has ended: an object, or its code."""
        text, extract = bytes(self.text), self.flags["extract"]
        if self.json:
            answer = as_json(self.figures, model, generation, text, extract=extract)
            return answer.encode() + b"\n"
        code = first_block(text)
        if code is None and not self.quiet:
            note("rwkv: the answer has no fenced code; this is all of it")
        return text if code is None else code

    def _give(self, data: bytes) -> None:
        if self.at_once:
            self.text += data
        else:
            self.sink.write(data)
