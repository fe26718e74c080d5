"""A process without room for a file says so, and does not blame the file."""

from __future__ import annotations

import errno
import mmap
from pathlib import Path

import pytest

from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.errors import LimitError


def test_a_file_for_which_there_is_no_memory_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    path = tmp_path / "m.pth"
    path.write_bytes(b"PK")
    monkeypatch.setattr(mmap, "mmap", full)
    with pytest.raises(LimitError, match="no memory left") as caught:
        open_checkpoint(path)
    assert caught.value.exit_code == 8
