"""A pickle is read, never run: whatever it asks for, nothing happens but a refusal."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rwkv_cli.checkpoints.open import open_checkpoint
from tests.checkpoints.files import pth_bytes, refusal, refusal_of
from tests.checkpoints.tripwire import no_side_effects

PROTO = b"\x80\x02"
# torch._utils._rebuild_tensor_v2, and a storage of two float32 called "0".
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ"
ORDERED = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    width = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes((width,)) + value.to_bytes(width, "little", signed=True)


def tensor(
    offset: bytes = b"K\0",
    shape: bytes = b"K\x02\x85",
    strides: bytes = b"K\x01\x85",
    storage: bytes = STORAGE,
) -> bytes:
    return REBUILD + b"(" + storage + offset + shape + strides + b"\x89" + ORDERED + b"tR"


def table(value: bytes, name: str = "a") -> bytes:
    return PROTO + b"}" + text(name) + value + b"s."


def refused(path: Path, program: bytes) -> str:
    path = path / "m.pth"
    refusal(path, b"PK\3\4 warm up")  # imports the readers before anything is watched
    path.write_bytes(pth_bytes(program, {"0": bytes(8)}))
    with no_side_effects():
        return refusal_of(path)


def test_the_hand_written_tensor_is_sound(tmp_path: Path) -> None:
    """Otherwise the refusals below would prove nothing."""
    path = tmp_path / "m.pth"
    path.write_bytes(pth_bytes(table(tensor()), {"0": struct.pack("<2f", 1.5, -2)}))
    with open_checkpoint(path) as checkpoint:
        assert struct.unpack("<2f", checkpoint.tensors["a"].data) == (1.5, -2)


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        (b"cos\nsystem\n" + text("touch owned") + b"\x85R", "os.system"),
        (b"cposix\nsystem\n" + text("touch owned") + b"\x85R", "posix.system"),
        (b"cbuiltins\neval\n" + text("print(1)") + b"\x85R", "builtins.eval"),
        (b"c__builtin__\nexec\n" + text("print(1)") + b"\x85R", "__builtin__.exec"),
        (text("os") + text("system") + b"\x93", "os.system"),
        (text("builtins") + text("getattr") + b"\x93", "builtins.getattr"),
        (b"csubprocess\nPopen\n", "subprocess.Popen"),
        (b"ctorch.hub\nload\n", "torch.hub.load"),
        (b"ctorch\nload\n", "torch.load"),
        (b"ctorch.storage\n_load_from_bytes\n", "torch.storage._load_from_bytes"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n", "torch._utils._rebuild_sparse_tensor"),
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", "__globals__"),
        (b"ccollections\nOrderedDict.__init__\n", "OrderedDict.__init__"),
        (b"cbuiltins\nbytearray\n" + number(10**12) + b"\x85R", "builtins.bytearray"),
        (b"cargparse\nNamespace\n)R", "argparse.Namespace"),
        (b"cnumpy._core.multiarray\nscalar\n", "numpy._core.multiarray.scalar"),
        (b"cos\x1b[2J\nsystem\n", "os\\x1b[2J.system"),
        (b"(" + text("touch owned") + b"ios\nsystem\n", "opcode 0x69"),
        (b"(cos\nsystem\n" + text("touch owned") + b"o", "os.system"),
        (b"\x82\x01", "opcode 0x82"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pickle_that_names_a_python_object_is_refused(
    tmp_path: Path, program: bytes, shown: str
) -> None:
    message = refused(tmp_path, table(program))
    assert "contains a Python object" in message
    assert shown in message
    assert message.endswith("nothing was run")


@pytest.mark.parametrize(
    "program",
    [
        table(STORAGE + b"K\x00\x85R"),
        table(REBUILD + b")R"),
        table(REBUILD + b"N\x85R"),
        table(REBUILD + b"((" + STORAGE + b"ttR"),
        table(ORDERED[:-2] + text("a") + b"\x85R"),
        table(text("os.system") + text("ls") + b"\x85R"),
        table(b"ctorch._utils\n_rebuild_parameter\nN\x88" + ORDERED + b"\x87R"),
        table(b"ctorch\nFloatStorage\n)R"),
        table(REBUILD + REBUILD + b")R\x85R"),
        table(REBUILD + b"(" * 50 + b"t" * 50 + b"R"),
    ],
)
def test_calls_with_strange_arguments_are_refused(tmp_path: Path, program: bytes) -> None:
    refused(tmp_path, program)


@pytest.mark.parametrize(
    "target", [REBUILD, STORAGE, tensor(), b"}", b"]", b"K\x01", text("a"), b")", b"N"]
)
def test_attributes_can_be_set_on_nothing_but_an_ordered_dict(
    tmp_path: Path, target: bytes
) -> None:
    assert "attributes" in refused(tmp_path, table(target + b"}" + text("x") + b"K\x01sb"))


@pytest.mark.parametrize(
    "storage",
    [
        b"NQ",
        text("storage") + b"Q",
        b"(tQ",
        STORAGE.replace(b"storage", b"package"),
        STORAGE.replace(b"ctorch\nFloatStorage\n", text("FloatStorage")),
        STORAGE.replace(b"X\x01\0\0\x000", b"X\x07\0\0\x00../../0"),
        STORAGE.replace(b"X\x01\0\0\x000", "X\x02\0\0\0²".encode("latin-1") + b"\xb2"),
        STORAGE.replace(b"X\x01\0\0\x000", b"K\x00"),
        STORAGE.replace(b"K\x02t", number(-2) + b"t"),
        STORAGE.replace(b"K\x02t", number(2**62) + b"t"),
        STORAGE.replace(b"K\x02t", b"\x88t"),
        STORAGE.replace(b"K\x02t", b"G" + struct.pack(">d", 2.0) + b"t"),
    ],
)
def test_a_storage_that_is_none_is_refused(tmp_path: Path, storage: bytes) -> None:
    refused(tmp_path, table(tensor(storage=storage)))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (b"K\x01", b"K\x02\x85", b"K\x01\x85"),
        (number(-1), b"K\x02\x85", b"K\x01\x85"),
        (number(2**62), b"K\x02\x85", b"K\x01\x85"),
        (b"\x88", b"K\x01\x85", b"K\x01\x85"),
        (b"K\0", b"K\x03\x85", b"K\x01\x85"),
        (b"K\0", number(-2) + b"\x85", b"K\x01\x85"),
        (b"K\0", number(2**62) + b"\x85", b"K\x01\x85"),
        (b"K\0", number(2**62) + number(2**62) + b"\x86", b"K\x01K\x01\x86"),
        (b"K\0", b"K\x02\x85", number(-1) + b"\x85"),
        (b"K\0", b"K\x02\x85", number(2**62) + b"\x85"),
        (b"K\0", b"K\x02\x85", b")"),
        (b"K\0", b"K\x02K\x02\x86", b"K\0K\0\x86"),
        (b"K\0", b"]", b"]"),
        (b"K\0", b"(" + b"K\x01" * 9 + b"t", b"(" + b"K\x01" * 9 + b"t"),
        (b"K\x03", b"K\0\x85", b"K\x01\x85"),
    ],
)
def test_a_view_outside_its_storage_is_refused(
    tmp_path: Path, offset: bytes, shape: bytes, strides: bytes
) -> None:
    refused(tmp_path, table(tensor(offset, shape, strides)))


@pytest.mark.parametrize(
    "program",
    [
        b"",
        PROTO,
        b".",
        PROTO + b"t.",
        PROTO + b"u.",
        PROTO + b"s.",
        PROTO + b"(s.",
        PROTO + b"}((s.",
        PROTO + b"]" + text("x") + b"K\x01s.",
        PROTO + b"}(" + text("x") + b"u.",
        PROTO + b"}K\x01a.",
        PROTO + b"h\x05.",
        PROTO + b"q\x05.",
        PROTO + b"j\xff\xff\xff\xff.",
        PROTO + b"X\xff\xff\xff\xff.",
        PROTO + b"X\x01\0\0\0\xff.",
        PROTO + b"\x8a\xff" + b"\xff" * 255 + b".",
        PROTO + b"\x8b\xff\xff\xff\x7f.",
        PROTO + b"J\x01.",
        PROTO + b"cos.",
        PROTO + b"c" + b"a" * 10_000 + b"\n\n.",
        PROTO + b"}" + text("a") * 2 + b"s" + text("a") * 2 + b"s.",
        PROTO + b"}b.",
        PROTO + b"0.",
        PROTO + b"2.",
        PROTO + b"1.",
        PROTO + b"I01\n.",
        PROTO + b"L1L\n.",
        PROTO + b"S'a'\n.",
        PROTO + b"Pid\n.",
        PROTO + b"B\xff\xff\xff\x7f.",
        PROTO + b"\x8e" + b"\xff" * 8 + b".",
        PROTO + b"\x96" + b"\xff" * 8 + b".",
        PROTO + b"\x97.",
        PROTO + b"\x8f.",
        b"\x80\x00}.",
        b"\x80\x05}.",
    ],
)
def test_programs_that_make_no_sense_are_refused(tmp_path: Path, program: bytes) -> None:
    refused(tmp_path, program)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"K\x00" * 30_000, "too many values"),
        (b"(" * 30_000, "nested too deeply"),
        (b"]" * 30_000, "too many values"),
        (b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(250_000)), "keeps too many"),
        (b"Nq\0" + b"r\1\0\0\0" * 500_000, "steps"),
        (b"}q\0" + b"h\0a" * 10, "no list"),
        (b"]q\0" + b"(" + b"h\0" * 10_000 + b"e" + b"(" + b"h\0" * 9_000 + b"e" + b".", "no dict"),
        (b"N" + b"\x85" * 390_000 + b".", "no dict"),
    ],
    ids=["stack", "marks", "lists", "memo", "steps", "append", "self-containing", "deep tuple"],
)
def test_bombs_are_refused(tmp_path: Path, program: bytes, reason: str) -> None:
    assert reason in refused(tmp_path, PROTO + program)


def test_a_description_larger_than_any_model_needs_is_refused(tmp_path: Path) -> None:
    assert "weights need far fewer" in refused(tmp_path, bytes((16 << 20) + 1))
