"""The places that a Ray cluster has for engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rwkv_cli.batch.ray_worker import Job
from rwkv_cli.engine.strategy import choose_strategy
from rwkv_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Place:
    """Room for an engine.

    Attributes:
        node: Id of the machine in the cluster.
        address: Its address in the network.
        number: Which of the engines of the machine.
        processors: What the engine is granted of it.
        cards: The same.
    """

    node: str
    address: str
    number: int
    processors: int
    cards: int

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.address}/{self.number}" if self.cards else self.address


def cards_wanted(job: Job) -> int | None:
    """Tell how many cards an engine takes: 0 for a CPU, None for one card where there are any.

    Raises:
        UsageError: It is to run on what Ray does not hand out.
    """
    placed = choose_strategy(job.strategy, job.device, job.dtype, job.engine, None, job.kernels)
    if placed.auto:
        return None
    devices = [segment.device for segment in placed.segments] or [placed.device]
    odd = [device for device in devices if device.partition(":")[0] not in ("cpu", "cuda")]
    if odd:
        raise UsageError(f"Ray hands out no {odd[0]}", hint="--device cuda or --device cpu")
    numbers = [int(one.partition(":")[2] or 0) for one in devices if one.startswith("cuda")]
    return 1 + max(numbers) if numbers else 0


def places(nodes: Sequence[Mapping[str, Any]], cards: int | None) -> list[Place]:
    """List the places for engines: one for each card, or for each so many, of a machine; without
    cards one for all processors of a machine.

    Args:
        nodes: What `ray.nodes()` tells.
        cards: As `cards_wanted` says. For None only machines with cards are taken, where there are
            any: cards and processors do not give the same bits.
    """
    alive = [node for node in nodes if node["Alive"]]
    if cards is None:
        cards = 1 if any(_has(node, "GPU") for node in alive) else 0
    found = []
    for node in alive:
        where, processors = str(node["NodeManagerAddress"]), _has(node, "CPU")
        count = _has(node, "GPU") // cards if cards else min(1, processors)
        share = 0 if not count else processors if not cards else processors // count
        found += [Place(str(node["NodeID"]), where, k, share, cards) for k in range(count)]
    return found


def _has(node: Mapping[str, Any], resource: str) -> int:
    return int(node["Resources"].get(resource, 0))
