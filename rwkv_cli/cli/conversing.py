"""Beginning conversations: new ones, saved ones, copies; with the model they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwkv_cli.cli.loading import Loading, drawing, load, open_budget
from rwkv_cli.cli.settings import Settings
from rwkv_cli.engine.model import Model, Progress
from rwkv_cli.engine.state import Attachments
from rwkv_cli.engine.statefile import verify_state
from rwkv_cli.errors import UsageError
from rwkv_cli.hub.names import resolve
from rwkv_cli.places import chats_folder, models_folder, prefix_folder
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note
from rwkv_cli.session import Conversation, Log, Manner, MemoryLog, now
from rwkv_cli.session.retell import retold
from rwkv_cli.store.chatlog import ChatLog
from rwkv_cli.store.disk import Disk
from rwkv_cli.store.library import Library
from rwkv_cli.store.named import find_state
from rwkv_cli.store.prefix import PrefixCache
from rwkv_cli.store.readonly import ReadOnlyDisk
from rwkv_cli.store.records import Begin, check_identity
from rwkv_cli.text.templates import load_template
from rwkv_cli.traces import Randomness
from rwkv_cli.tree import Turn

if TYPE_CHECKING:
    from rwkv_cli.engine.state import State


def open_library(settings: Settings, *, untouched: bool = False) -> Library:
    """Give the conversations of this user, to be left as they are if so wanted."""
    disk = ReadOnlyDisk() if untouched else Disk()
    budget = open_budget(settings)
    return Library(chats_folder(), budget, disk=disk, warn=lambda text: note(f"rwkv: {safe(text)}"))


class Opening:
    """Begins conversations as the command line wants them.

    Args:
        settings: What is set.
        flags: What the command line says.
        library: All conversations.
        log: The one to begin or to go on with.
        loading: The model, on its way.

    Attributes:
        log: The one on the disk that is gone on with.
        is_resumed: Whether it was there before.
    """

    def __init__(
        self,
        settings: Settings,
        flags: dict[str, Any],
        library: Library,
        log: ChatLog,
        loading: Loading,
    ) -> None:
        self._settings, self._flags, self.library = settings, flags, library
        self.log, self.loading = log, loading
        self.is_resumed = log.begin is not None
        wanted = not (flags["no_save"] or flags["no_cache"])
        self.cache = PrefixCache(prefix_folder(), budget=open_budget(settings), enabled=wanted)

    @property
    def unsaved(self) -> bool:
        """Whether turns are only in memory though they should not be."""
        return not self._flags["no_save"] and bool(self.log.tree.turns) and self.log.unsaved > 0

    @property
    def saved_id(self) -> str:
        """Name of the conversation, once something of it is on the disk."""
        kept = not self._flags["no_save"] and self.log.tree.turns and not self.log.unsaved
        return self.log.id if kept else ""

    def conversation(self, *, quiet: bool) -> Conversation:
        """Wait for the model, then begin or go on.

        Raises:
            RwkvError: The model cannot be loaded, or is not the conversation's.
        """
        model = self.loading.result(quiet=quiet)
        begin = self.log.begin
        if begin is None:
            path = self._flags["state"]
            base = model.load_state(find_state(path)) if path else None
            return self._new(model, self._settings.system or "", base)
        if self._flags["rebuild"]:
            turns = self.log.tree.path()
            return self._retold(model, begin, turns, self.log.base(verify_state), None)
        return self.resumed(model, self.log)

    def resumed(self, model: Model, log: ChatLog) -> Conversation:
        """Go on with a saved conversation.

        Raises:
            MismatchError: It belongs to another model.
            StorageError: The disk refused to keep what was said before.
        """
        assert log.begin is not None
        check_identity(log.begin, model.identity)
        if not self._flags["no_save"]:
            log.save()  # a copy is only planned until here
            log.recover()
        conversation = self._conversation(model, log, log.begin, log.base(model.load_state))
        self._go_on_with(log)
        return conversation

    def anew(self, old: Conversation, system: str) -> Conversation:
        """Begin a new conversation with the same model and manner; with other random numbers, if
        nobody asked for these.

        Raises:
            StorageError: The disk refused to keep what was said before.
        """
        conversation = self._new(old.model, system, None)
        manner = old.manner
        if not manner.seeded:
            manner = replace(manner, randomness=Randomness(self._settings.seed_or_random()))
        conversation.manner = manner
        return conversation

    def copy(self, old: Conversation) -> Conversation:
        """Begin a conversation with a copy of the turns of another.

        Raises:
            StorageError: The disk refused.
        """
        source, begin = self.log, self.log.begin
        assert begin is not None
        forked = f"{source.id}@{old.tree.head}"
        log = self._plan(replace(begin, forked=forked, turns=tuple(old.turns)), old.base)
        log.save()
        log.adopt(source)
        self._go_on_with(log)
        old.move_to(log)
        return old

    def with_model(self, old: Conversation, name: str, progress: Progress) -> Conversation:
        """Go on in a copy with another model, which reads everything again.

        Raises:
            RwkvError: There is no such model, or it cannot be loaded, or not read this.
        """
        path = resolve(name, models_folder())
        model = load(path, replace(self._settings, model=str(path)), quiet=self._flags["quiet"])
        begin = self.log.begin
        assert begin is not None
        conversation = self._retold(model, begin, old.turns, old.base, progress)
        conversation.manner = old.manner
        return conversation

    def _retold(
        self,
        model: Model,
        begin: Begin,
        turns: list[Turn],
        base: State | None,
        progress: Progress | None,
    ) -> Conversation:
        """Copy a conversation for another model than its own."""
        same = begin.identity.tokenizer == model.identity.tokenizer
        if not same:
            template = load_template(begin.template)
            turns = list(retold(turns, model.tokenizer, template, begin.system))
        if base is not None:
            base = _read_again(model, base if same else None, progress)
        mine = self._begin(model, begin.system, based=base is not None)
        mine = replace(mine, template=begin.template, turns=tuple(turns))
        log = self._plan(mine, base)
        conversation = self._conversation(model, log, mine, base)
        conversation.prepare(progress)
        if not self._flags["no_save"]:
            log.save()
        self._go_on_with(log)
        return conversation

    def _go_on_with(self, log: ChatLog) -> None:
        """Leave the conversation there was for another.

        Raises:
            StorageError: Turns of it are in memory alone, and the disk still refuses.
        """
        if log is not self.log and self.unsaved:
            self.log.save()
        self.log = log

    def _new(self, model: Model, system: str, base: State | None) -> Conversation:
        begin = self._begin(model, system, based=base is not None)
        log = self._plan(begin, base)
        conversation = self._conversation(model, log, begin, base)
        self._go_on_with(log)
        return conversation

    def _begin(self, model: Model, system: str, *, based: bool) -> Begin:
        return Begin(
            id="",
            model_name=model.name,
            model_path=str(model.path),
            identity=model.identity,
            template=self._settings.template or model.template,
            system=system,
            based=based,
            created=now(),
        )

    def _plan(self, begin: Begin, base: State | None) -> ChatLog:
        """Plan a conversation of its own, in a place that is new unless the present one is."""
        log = self.log if self.log.begin is None else self.library.new()
        log.plan(replace(begin, id=log.id), base)
        return log

    def _conversation(
        self, model: Model, log: ChatLog, begin: Begin, base: State | None
    ) -> Conversation:
        template = load_template(self._settings.template or begin.template)
        template.turn("", self._settings.think)
        kept: Log = MemoryLog(log) if self._flags["no_save"] else log
        manner = self._manner(model, template.name, log, base)
        return Conversation(
            model, template, manner, kept, system=begin.system, base=base, read=self._read
        )

    def _read(
        self,
        model: Model,
        tokens: Iterable[Sequence[int]],
        state: State,
        progress: Progress | None,
    ) -> int:
        """Read the first prompt, which others may have begun with too."""
        return self.cache.read(model, tokens, state, (), progress).cached

    def _manner(self, model: Model, template: str, log: ChatLog, base: State | None) -> Manner:
        """Settle how answers are made; what was set on the command line overrules what was
        saved.
        """
        samplers = [turn.sampler for turn in log.tree.path() if turn.sampler]
        saved = base.attachments if base else None
        if samplers:
            saved = Attachments(sampler=samplers[-1])
        settings = self._settings
        sampling, randomness = drawing(settings, self._flags["ban"], model, saved, template)
        randomness = replace(randomness, stream=0)  # others told alternatives of one turn apart
        seeded = settings.seed is not None
        return Manner(
            sampling, randomness, settings.max_tokens or 4096, settings.think, seeded=seeded
        )


def _read_again(model: Model, base: State | None, progress: Progress | None) -> State:
    """Make the state that a conversation began from for another model.

    Raises:
        UsageError: Its tokens are not there, or not that model's.
    """
    if base is None or not base.position or base.tokens.forgotten:
        raise UsageError(
            "the conversation began from a saved state that another model cannot read again"
        )
    made = model.zero_state()
    model.advance_stream([base.tokens[:]], made, progress)
    return made


def model_of(log: ChatLog) -> Path | None:
    """Tell which weights file a saved conversation was held with."""
    return Path(log.begin.model_path) if log.begin else None
