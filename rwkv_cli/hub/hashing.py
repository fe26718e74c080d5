"""Proving that a file's bytes are the promised ones, while they are still coming."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

_BLOCK = 4 << 20

Read = Callable[[int, int], bytes]  # offset and amount to bytes


@dataclass(frozen=True, slots=True)
class Promise:
    """What a file must be.

    Attributes:
        sha256: The digest of its bytes.
        blob: Git's name of it, where that is all that is known.
    """

    sha256: str | None = None
    blob: str | None = None

    @property
    def known(self) -> bool:
        """Whether anything was promised."""
        return bool(self.sha256 or self.blob)

    def kept_by(self, found: Promise) -> bool:
        """Tell whether the digests of a file are the promised ones."""
        if self.sha256:
            return self.sha256 == found.sha256
        return self.blob == found.blob if self.blob else True


NOTHING = Promise()


class Hasher:
    """Follows a file that grows from its beginning, in a thread of its own.

    Args:
        read: Reads the file.
        size: Bytes it will have; None when nobody knows, and then git's name of it is not found.
    """

    def __init__(self, read: Read, size: int | None) -> None:
        self._read, self._at = read, 0
        self._sha256 = hashlib.sha256()
        # Git names things by SHA-1; nothing is kept safe by it here that SHA-256 could.
        self._sha1 = hashlib.sha1(usedforsecurity=False) if _is_small(size) else None
        if self._sha1:
            self._sha1.update(f"blob {size}\0".encode())
        self._front, self._last = 0, False
        self._changed = threading.Condition()
        self._failed: OSError | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def advance(self, front: int) -> None:
        """Say how many bytes are there, from the beginning on."""
        with self._changed:
            self._front = max(self._front, front)
            self._changed.notify()

    def stop(self) -> None:
        """End without a result."""
        with self._changed:
            self._front, self._last = 0, True
            self._changed.notify()
        self._thread.join()

    def finish(self, size: int, tick: Callable[[int], None]) -> Promise:
        """Wait until all bytes were seen.

        Args:
            size: How many there are.
            tick: Told now and then how many were seen.

        Raises:
            OSError: The file cannot be read.
        """
        with self._changed:
            self._front, self._last = size, True
            self._changed.notify()
        while self._thread.is_alive():
            self._thread.join(0.1)
            tick(self._at)
        if self._failed is not None:
            raise self._failed
        return Promise(self._sha256.hexdigest(), self._sha1.hexdigest() if self._sha1 else None)

    def _follow(self) -> None:
        try:
            while (amount := self._next()) > 0:
                block = self._read(self._at, amount)
                if not block:
                    raise OSError("the file ends early")
                self._sha256.update(block)
                if self._sha1:
                    self._sha1.update(block)
                self._at += len(block)
        except OSError as error:
            self._failed = error

    def _next(self) -> int:
        """Wait until there is something to read: how much; 0 at the end."""
        with self._changed:
            while not self._last and self._front - self._at < _BLOCK:
                self._changed.wait()
            return min(_BLOCK, max(0, self._front - self._at))


def _is_small(size: int | None) -> bool:
    return size is not None and size < 64 << 20
