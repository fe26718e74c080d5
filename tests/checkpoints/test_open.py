"""Whatever lies at a path, it is either opened or refused with a sentence that names it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.errors import NotFoundError, RefusedError
from tests.checkpoints.files import refusal, refusal_of

MEBIBYTE = 1 << 20


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path / "none" / "m.pth", tmp_path / "a\0b"):
        with pytest.raises(NotFoundError):
            open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (bytes(1000), "begins with zeros only"),
        (b"\n<!DOCTYPE html><html>", "looks like a web page"),
        (b"<html>", "looks like a web page"),
        (b'<?xml version="1.0"?><Error>', "looks like a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "is a Git LFS pointer"),
        (b"\x80\x04]\x94.", "is a bare Python pickle"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "saved by torch before 1.6"),
        (b"pickle\0".ljust(257, b"\0") + b"ustar\x0000", "is a tar archive"),
        (b"PK\x05\x06" + bytes(18), "is an empty ZIP archive"),
        (b"\x1f\x8b\x08", "is a packed archive"),
        (b"GGUF\x03\0\0\0", "the header at byte 8 needs 8 bytes"),
        (b"FUGG\0\0\0\x03", "is a GGUF file for big-endian machines"),
        (b'{"metadata": {}, "weight_map": {}}', "is a list of shards"),
        (b'{"model_type": "rwkv"}', "looks like JSON text"),
        (b"\x93NUMPY\x01\0", "is a numpy array"),
        (b"hello", "in none of the known formats"),
        (b"P", "in none of the known formats"),
        (b"PK\x03\x04", "is cut short: 4 bytes"),
        (b"fmgg", "is cut short"),
        (b"\x40\0\0\0\0\0\0\0{", "the header at byte 8 needs 64 bytes, the file has 9"),
    ],
)
def test_other_files_are_named_for_what_they_are(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    assert reason in refusal(tmp_path / "model.pth", content)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
def test_things_that_are_no_files_are_refused_at_once(tmp_path: Path) -> None:
    fifo, loop, sock = tmp_path / "fifo", tmp_path / "loop", tmp_path / "sock"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(sock))
        assert "named pipe" in refusal_of(fifo)
        assert "is a folder without config.json" in refusal_of(tmp_path)
        assert "device" in refusal_of(Path("/dev/zero"))
        assert "cannot be opened" in refusal_of(loop)
        assert "cannot be opened" in refusal_of(sock)


def test_errors_carry_the_exit_code_of_a_refused_file(tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_bytes(b"hello")
    with pytest.raises(RefusedError) as caught:
        open_checkpoint(tmp_path / "m.pth")
    assert caught.value.exit_code == 6


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Two tensors of 32 MiB, all ones."""
    path = tmp_path / "large.safetensors"
    ones = torch.ones(32 * MEBIBYTE, dtype=torch.uint8)
    save_file({"a": ones, "b": ones.clone()}, path)
    return path


def test_writing_to_a_tensor_never_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(4)}, path)
    before = path.read_bytes()
    with open_checkpoint(path) as checkpoint, warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = torch.frombuffer(checkpoint.tensors["a"].data, dtype=torch.float32)
        tensor += 1
        assert tensor.tolist() == [1, 1, 1, 1]
    assert path.read_bytes() == before


def test_arrays_outlive_the_checkpoint_they_come_from(large: Path) -> None:
    with open_checkpoint(large) as checkpoint:
        tensor = torch.frombuffer(checkpoint.tensors["a"].data, dtype=torch.uint8)
    assert checkpoint.tensors == {}
    assert int(tensor.sum()) == 32 * MEBIBYTE


def test_closing_twice_and_releasing_after_it_do_no_harm(large: Path) -> None:
    checkpoint = open_checkpoint(large)
    tensor = checkpoint.tensors["a"]
    checkpoint.close()
    checkpoint.close()
    checkpoint.release(tensor)
    assert tensor.data[-1] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_released_tensors_leave_memory_and_can_be_read_again(large: Path) -> None:
    with open_checkpoint(large) as checkpoint:
        before = resident_bytes()
        for tensor in checkpoint.tensors.values():
            assert sum(tensor.data[::1024]) == 32 * MEBIBYTE // 1024
            assert resident_bytes() > before + 24 * MEBIBYTE
            checkpoint.release(tensor)
            assert resident_bytes() < before + 4 * MEBIBYTE
            assert tensor.data[12345] == 1


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="needs sparse files and Linux' accounting")
def test_a_file_larger_than_memory_can_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "huge.bin"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert "begins with zeros only" in refusal_of(path)


def test_opening_loads_neither_torch_nor_numpy(large: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from rwkv_cli.checkpoints.open import open_checkpoint\n"
        "open_checkpoint(Path(sys.argv[1]))\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, large],
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0
