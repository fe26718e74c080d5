"""`rwkv generate` with one prompt: reads it, and gives out the answer as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rwkv_cli.cli.checks import token_ids
from rwkv_cli.cli.loading import choose_model, drawing, interruptible, load, open_budget
from rwkv_cli.cli.prompt import Prompt, chat_text, raw_text
from rwkv_cli.cli.report import Run, as_json, report, report_one, report_several, several_as_json
from rwkv_cli.cli.settings import Settings
from rwkv_cli.errors import UsageError
from rwkv_cli.places import prefix_folder
from rwkv_cli.render.progress import Progress
from rwkv_cli.render.streams import STDOUT, Sink, TerminalSink, is_terminal, note
from rwkv_cli.render.style import hint
from rwkv_cli.store.named import find_state
from rwkv_cli.store.prefix import PrefixCache
from rwkv_cli.text.fenced import first_block
from rwkv_cli.text.templates import beginning, load_template

if TYPE_CHECKING:
    from rwkv_cli.engine.model import Model
    from rwkv_cli.engine.state import Attachments, State
    from rwkv_cli.generation import Generation
    from rwkv_cli.sampling import Sampling
    from rwkv_cli.traces import Randomness

LENGTHS = {"raw": 512, "chat": 4096}  # longest answer in tokens, unless -N says otherwise
_SEPARATOR = 8  # tokens at the end of a state that can hold what stands between two turns


class OneShot:
    """One prompt and its answer, or several."""

    def __init__(
        self, flags: dict[str, Any], settings: Settings, prompt: Prompt, mode: str, sink: Sink
    ) -> None:
        self.flags, self.settings, self.prompt, self.mode = flags, settings, prompt, mode
        self.sink, self.quiet, self.json = sink, flags["quiet"], flags["as_json"]
        self.samples: int = flags["samples"]
        # given out when it is whole
        self.at_once = flags["as_json"] or flags["extract"]
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
        if self.samples > 1:
            self._several(model, state)
            return
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
        interrupts.raise_if_any()

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

    def _several(self, model: Model, state: State) -> None:
        """Give several answers, generated together from the one reading of the prompt."""
        from rwkv_cli.scheduler import Job, Listed, Scheduler, Work

        start, read = time.monotonic(), state.attachments
        _, first = self._drawing(model, read)
        streams = range(first.stream, first.stream + self.samples)
        places = [replace(first, stream=stream) for stream in streams]
        begins = [partial(self._generation, model, place=place) for place in places]
        job = Job(None, lambda: state, tuple, begins)
        scheduler, works = Scheduler(model, self.samples), list[Work]()
        progress = Progress("writing the answers", "tokens", None, enabled=not self.quiet)
        try:
            with interruptible(scheduler) as interrupts:
                for over in scheduler.run(Listed([job])):
                    works += over
                    progress.update(scheduler.generated)
        finally:
            progress.finish()
        self.figures.decode_s = time.monotonic() - start
        for work in works:
            if work.error is not None:
                raise work.error
            answers = [(m.generation, bytes(m.text)) for m in work.answers]
            self._give_several(model, answers)
            if not self.quiet:
                report_several(self.figures, [generation.count for generation, _ in answers])
        self.sink.close()
        interrupts.raise_if_any()

    def _give_several(self, model: Model, answers: list[tuple[Generation, bytes]]) -> None:
        """Write answers one after another: a newline ends each, or a NUL with --null."""
        chat = self.mode == "chat"
        texts = [text.lstrip() if chat else text for _, text in answers]
        if self.json:
            rows = [
                (generation, text) for (generation, _), text in zip(answers, texts, strict=True)
            ]
            told = several_as_json(self.figures, model, rows, extract=self.flags["extract"])
            self.sink.write(told.encode() + b"\n")
            return
        for number, ((generation, _), text) in enumerate(zip(answers, texts, strict=True), 1):
            if not self.quiet:
                report_one(number, generation)
            shown = self._extracted(text) if self.flags["extract"] else text
            end = b"\0" if self.flags["null"] else b"" if shown.endswith(b"\n") else b"\n"
            self.sink.write(shown + end)

    def _drawing(self, model: Model, attachments: Attachments) -> tuple[Sampling, Randomness]:
        """Settle how tokens are drawn; a saved state brings its own settings, which flags
        overrule.
        """
        template = load_template(self.settings.template or model.template)
        return drawing(self.settings, self.flags["ban"], model, attachments, template.name)

    def _generation(
        self, model: Model, state: State, place: Randomness | None = None
    ) -> Generation:
        """Begin an answer."""
        from rwkv_cli.generation import Generation

        sampling, first = self._drawing(model, state.attachments)
        template = load_template(self.settings.template or model.template)
        stops = [text.encode("utf-8", "surrogateescape") for text in self.flags["stop"]]
        if self.mode == "chat":
            stops += template.stops
        return Generation(
            model,
            state,
            sampling,
            place or first,
            max_tokens=self.settings.max_tokens or LENGTHS[self.mode],
            stops=stops,
            logprobs=self.flags["logprobs"],
        )

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
        return self._extracted(text)

    def _extracted(self, text: bytes) -> bytes:
        """Give the code of an answer; all of it, with a word about that, where there is none."""
        code = first_block(text)
        if code is None and not self.quiet:
            note("rwkv: the answer has no fenced code; this is all of it")
        return text if code is None else code

    def _give(self, data: bytes) -> None:
        if self.at_once:
            self.text += data
        else:
            self.sink.write(data)
