"""--engine ray: what the workers of a cluster are told of the settings of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rwkv_cli.engine.modelfile import DEMO
from rwkv_cli.errors import NotFoundError
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim
from rwkv_cli.store.named import find_state

if TYPE_CHECKING:
    from rwkv_cli.batch.ray_run import RayRunner
    from rwkv_cli.batch.ray_worker import Job
    from rwkv_cli.batch.running import Prefix
    from rwkv_cli.cli.settings import Settings


def ray_runner(
    settings: Settings,
    path: Path,
    *,
    address: str,
    slots: int | None,
    prefix: Prefix,
    state: str | None,
    expected: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> RayRunner:
    """Describe a run on a Ray cluster; its `start` joins it.

    Args:
        settings: Where the model runs on each machine.
        path: The weights file.
        address: "HOST:PORT" of the cluster, or "auto".
        slots: Rows in flight in each engine; None leaves it to each one's memory.
        prefix: What prompts have in common.
        state: The file of a saved state that rows go on from.
        expected: Parts of the model's identity that workers must have.
        quiet: Whether to say nothing of workers that come and go.
    """
    from rwkv_cli.batch.ray_run import RayRunner

    job = ray_job(settings, path, slots, prefix, state)
    say = _unsaid if quiet else _say
    return RayRunner(job, address=address, expected=expected, say=say, find_state=_state_file)


def ray_job(
    settings: Settings, path: Path, slots: int | None, prefix: Prefix, state: str | None
) -> Job:
    """Say what a worker loads, in names that mean the same in any folder."""
    from rwkv_cli.batch.ray_worker import Job

    return Job(
        None if path == DEMO else str(path.absolute()),
        strategy=settings.strategy,
        device=settings.device,
        dtype=settings.dtype,
        engine=settings.engine,
        kernels=settings.kernels,
        threads=settings.threads,
        vram=settings.vram_budget,
        ram=settings.ram_budget,
        tokenizer=_named(settings.tokenizer),
        loras=[(str(one.path.absolute()), one.alpha) for one in settings.loras()],
        slots=slots,
        state=state,
        prefix=list(prefix.tokens),
        prefix_state=prefix.state,
    )


def _named(tokenizer: str | None) -> str | None:
    """Name a tokenizer so that it means the same in another folder."""
    if tokenizer and Path(tokenizer).is_file():
        return str(Path(tokenizer).absolute())
    return tokenizer


def _state_file(name: str) -> str:
    """Name the file of a saved state so that it means the same in another folder.

    Raises:
        NotFoundError: There is none.
    """
    path = find_state(name)
    if not path.exists():  # said in the words of who cannot read it here, for rows are to be alike
        raise NotFoundError(f"no such file: {path}")
    return str(path.absolute())


def _say(text: str) -> None:
    note(dim(safe(text)))


def _unsaid(text: str) -> None:
    """Say nothing."""
