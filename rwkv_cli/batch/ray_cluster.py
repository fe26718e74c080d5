"""Joining a Ray cluster that is there already, if it asks everyone for a token."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
from types import ModuleType

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


def join(address: str) -> ModuleType:
    """Join a cluster.

    Args:
        address: "HOST:PORT", or "auto" for the one that this machine belongs to.

    Returns:
        The module `ray`, connected.

    Raises:
        UsageError: Ray is not installed, or of a version that is not known here; or the cluster, or
            this process, does without a token.
        NotFoundError: There is no cluster at that address.
        StorageError: It cannot be joined.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs the package ray", hint=_EXTRA) from error
    connected: ModuleType = ray
    logging.getLogger("ray").setLevel(logging.ERROR)  # it greets, and warns of what is meant
    try:
        _require_token()
        where = _found(address)
        _hush()
    except ImportError as error:  # it is asked for what only its own modules know
        what = f"Ray {ray.__version__} does not say whether it asks for a token"
        raise UsageError(what, hint=f"{_EXTRA} -c constraints.txt") from error
    _require_lock(where)
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
    quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
    # Ctrl-C is for us, who then wait for the answer: it would end this one, which would look as if
    # nothing was there.
    return subprocess.Popen(  # noqa: S603
        command, stdin=quiet, stdout=pipe, stderr=quiet, text=True, start_new_session=True
    )


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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
