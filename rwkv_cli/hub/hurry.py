"""Ends what would never end: the client waits for each byte for a while, but for any number of
bytes. So a server that sends one more header now and then could hold it for days.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from urllib3 import PoolManager
    from urllib3.connection import HTTPConnection

Manager = TypeVar("Manager", bound="PoolManager")


@contextmanager
def deadline(seconds: float, end: Callable[[], None]) -> Iterator[threading.Event]:
    """While this lasts, call something once a time is over: an event that tells whether it is.

    Args:
        seconds: How long to wait.
        end: Called from another thread.
    """
    passed = threading.Event()

    def late() -> None:
        passed.set()
        end()

    timer = threading.Timer(seconds, late)
    timer.daemon = True
    timer.start()
    try:
        yield passed
    finally:
        timer.cancel()


def hurried(manager: Manager, seconds: float) -> Manager:
    """Let every answer begin in time: its status and all of its headers.

    Args:
        manager: Makes the connections; changed in place.
        seconds: How long status and headers may take.
    """
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Plain(HTTPConnectionPool):
        ConnectionCls = _hurried(HTTPConnectionPool.ConnectionCls, seconds)

    class Secure(HTTPSConnectionPool):
        ConnectionCls = _hurried(HTTPSConnectionPool.ConnectionCls, seconds)

    manager.pool_classes_by_scheme = {"http": Plain, "https": Secure}
    return manager


def _hurried(kind: type[Any], seconds: float) -> type[Any]:
    class Hurried(kind):  # type: ignore[misc]
        def getresponse(self) -> Any:
            """Read status and headers.

            Raises:
                TimeoutError: They take too long.
            """
            with deadline(seconds, lambda: _shut(self)) as passed:
                try:
                    return super().getresponse()
                finally:
                    # Headers that are cut off look like all of them.
                    if passed.is_set():
                        raise TimeoutError

    return Hurried


def _shut(connection: HTTPConnection) -> None:
    """Let a thread that reads from a connection fail; below TLS, which stays as it is."""
    if connection.sock is not None:
        with suppress(OSError):
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
