"""--engine ray: what the workers of a cluster are told of the settings of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rwkv_cli.engine.modelfile import DEMO
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim

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
    slots: int,
    prefix: Prefix,
    expected: Mapping[str, str] | None = None,
) -> RayRunner:
    """Describe a run on a Ray cluster; its `start` joins it.

    Args:
        settings: Where the model runs on each machine. Their engine is not looked at.
        path: The weights file.
        address: "HOST:PORT" of the cluster, or "auto".
        slots: Rows in flight in each engine.
        prefix: What prompts have in common.
        expected: Parts of the model's identity that workers must have.
    """
    from rwkv_cli.batch.ray_run import RayRunner

    job = ray_job(settings, path, slots, prefix)
    return RayRunner(job, address=address, expected=expected, say=_say)


def ray_job(settings: Settings, path: Path, slots: int, prefix: Prefix) -> Job:
    """Say what a worker loads, in names that mean the same in any folder."""
    from rwkv_cli.batch.ray_worker import Job

    return Job(
        None if path == DEMO else str(path.absolute()),
        strategy=settings.strategy,
        device=settings.device,
        dtype=settings.dtype,
        kernels=settings.kernels,
        threads=settings.threads,
        vram=settings.vram_budget,
        ram=settings.ram_budget,
        tokenizer=_named(settings.tokenizer),
        loras=[(str(one.path.absolute()), one.alpha) for one in settings.loras()],
        slots=slots,
        prefix=list(prefix.tokens),
        prefix_state=prefix.state,
    )


def _named(tokenizer: str | None) -> str | None:
    """Name a tokenizer so that it means the same in another folder."""
    if tokenizer and Path(tokenizer).is_file():
        return str(Path(tokenizer).absolute())
    return tokenizer


def _say(text: str) -> None:
    note(dim(safe(text)))
