"""A Ray cluster that is there already: joining it, if it asks everyone for a token, and the places
it has for engines.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from rwkv_cli.batch.ray_worker import Job
from rwkv_cli.engine.strategy import choose_strategy
from rwkv_cli.errors import NotFoundError, StorageError, UsageError

_EXTRA = "pip install 'rwkv-cli[ray]'"
_START = "RAY_AUTH_MODE=token ray start --head --include-dashboard=false"

# Asks for something with a token or without one, in a process of its own since Ray settles for one
# mode in each. A cluster that answers a stranger would answer anyone.
_ASK = """
import os, sys
os.environ["RAY_AUTH_MODE"] = sys.argv[2]
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).internal_kv_keys(b"rwkv", None, timeout=10)
except AuthenticationError:
    print("refused")
else:
    print("answered")
"""
_ASK_SECONDS = 60.0
_REACH_SECONDS = 10.0


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


def join(address: str) -> ModuleType:
    """Join a cluster.

    Args:
        address: "HOST:PORT", or "auto" for the one that this machine belongs to.

    Returns:
        The module `ray`, connected.

    Raises:
        UsageError: Ray is not installed; or the cluster, or this process, does without a token.
        NotFoundError: There is no cluster at that address.
        StorageError: It cannot be joined.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs the package ray", hint=_EXTRA) from error
    connected: ModuleType = ray
    logging.getLogger("ray").setLevel(logging.ERROR)  # it greets, and warns of what is meant
    _require_token()
    where = _found(address)
    _require_lock(where)
    _hush()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
        signal.signal(signal.SIGTERM, handler)  # Ray sets its own, which prints and exits
    except Exception as error:
        what = f"the Ray cluster at {where} cannot be joined: {_first_line(error)}"
        raise StorageError(what, hint=f"ray status --address {where}") from error
    return connected


def _require_token() -> None:
    """Refuse to go on without a token; one that lies where Ray looks for it is used.

    Raises:
        UsageError: There is none, or tokens are switched off.
    """
    from ray._private.authentication.authentication_token_setup import (
        maybe_enable_token_auth_if_token_available,
    )
    from ray._raylet import (
        AuthenticationMode,
        AuthenticationTokenLoader,
        get_authentication_mode,
    )

    if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        raise UsageError(
            "there is no token for the Ray cluster, and without one anybody in its network could "
            "run programs on its machines",
            hint="copy ~/.ray/auth_token from its first machine, or: ray get-auth-token --generate",
        )
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    if get_authentication_mode() != AuthenticationMode.TOKEN:
        raise UsageError(
            "Ray's token authentication is switched off, so anybody in the network of the cluster "
            "could run programs on its machines",
            hint="RAY_AUTH_MODE=token rwkv generate ...",
        )


def _found(address: str) -> str:
    """Give the address of a running cluster as HOST:PORT.

    Raises:
        UsageError: It is of a kind that is not served.
        NotFoundError: There is none.
    """
    from ray._private.services import canonicalize_bootstrap_address

    if "://" in address:
        raise UsageError(
            f"--ray-address is {address}; the command must run on a machine of the cluster",
            hint="--ray-address auto, or HOST:PORT",
        )
    try:
        found = canonicalize_bootstrap_address(address)
    except ConnectionError:
        found = None
    except Exception as error:
        what = f"--ray-address is {address!r}; it must be auto or HOST:PORT"
        raise UsageError(what) from error
    if found is None:
        raise NotFoundError("no Ray cluster runs on this machine", hint=_START)
    return str(found)


def _require_lock(address: str) -> None:
    """Refuse a cluster that answers who has no token, or that does not answer us.

    Raises:
        UsageError: It does, or it does not.
        NotFoundError: Nothing is there.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()
    except OSError as error:
        raise NotFoundError(f"no Ray cluster answers at {address}", hint=_START) from error
    stranger, friend = _asking(address, "disabled"), _asking(address, "token")
    if _heard(stranger) == "answered":
        _heard(friend)
        raise UsageError(
            f"the Ray cluster at {address} asks nobody for a token: anybody in its network can "
            "run programs on its machines",
            hint=f"stop it, and start it with: {_START}",
        )
    heard = _heard(friend)
    if heard == "refused":
        raise UsageError(
            f"the Ray cluster at {address} does not know the token of this machine",
            hint="copy ~/.ray/auth_token from its first machine",
        )
    if heard != "answered":
        raise NotFoundError(f"no Ray cluster answers at {address}", hint=_START)


def _asking(address: str, mode: str) -> subprocess.Popen[str]:
    """Begin to ask a cluster for something."""
    command = [sys.executable, "-c", _ASK, address, mode]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True)  # noqa: S603


def _heard(asking: subprocess.Popen[str]) -> str:
    """Give what a cluster said: "answered", "refused", or nothing."""
    try:
        return asking.communicate(timeout=_ASK_SECONDS)[0].strip()
    except subprocess.TimeoutExpired:
        asking.kill()
        asking.communicate()
        return ""


def _hush() -> None:
    """Keep Ray from printing to stdout, which is the product's: it tells there of every process
    that ends, and no setting of its own changes that.
    """
    import ray._private.worker as driver

    def unprinted(data: object, ignore_prefix: bool) -> None:
        """Say nothing: deaths of our workers are told by us, and others are no matter of ours."""

    driver.print_to_stdstream = unprinted


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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
