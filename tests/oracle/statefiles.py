"""Opens state files up, changes them and seals them again, so that checks behind the checksum are
reached.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.engine.statefile import DIGEST
from rwkv_cli.generation import Generation
from rwkv_cli.sampling import Sampling
from rwkv_cli.traces import Randomness

Header = dict[str, Any]


def reseal(body: bytes) -> bytes:
    """Append the checksum of a body."""
    return body + hashlib.sha256(body).digest()


def with_header(content: bytes, change: Callable[[Header], None]) -> bytes:
    """Change the header of a file in place, and seal the file again."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return reseal(len(text).to_bytes(8, "little") + text + content[8 + length : -32])


def with_note(content: bytes, name: str, value: str) -> bytes:
    """Replace one text of the header's metadata."""
    return with_header(content, lambda header: header["__metadata__"].update({name: value}))


def with_tensor(content: bytes, name: str, dtype: str, shape: list[int], data: bytes) -> bytes:
    """Replace a tensor, moving all that follow."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    parts = {n: content[8 + length :][slice(*header[n]["data_offsets"])] for n in tensors(header)}
    parts[name] = data
    header[name] = {"dtype": dtype, "shape": shape}
    offset = 0
    for part in parts:
        header[part]["data_offsets"] = [offset, offset + len(parts[part])]
        offset += len(parts[part])
    text = json.dumps(header).encode()
    body = b"".join([len(text).to_bytes(8, "little"), text, *parts.values()])
    return reseal(body[:-32])


def tensors(header: Header) -> list[str]:
    """Names of the tensors in file order, the checksum last."""
    return [name for name in header if name not in ("__metadata__", DIGEST)] + [DIGEST]


def marks(content: bytes) -> list[int]:
    """Offsets worth hitting: the length, every number and value of the header, every tensor."""
    length = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + length]
    header = json.loads(text)
    starts = [8 + length + header[name]["data_offsets"][0] for name in tensors(header)]
    return [0, 4, *(8 + m.start() for m in re.finditer(rb'(?<=[:\[,])["\d\[{]', text)), *starts]


def full_state(model: Model, count: int = 30) -> State:
    """Make a state with everything in it that a file can hold."""
    _, state = model.prefill(list(b"User: hello\n\nAssistant:"))
    generation = Generation(model, state, Sampling(top_p=0.9), Randomness(7), max_tokens=count)
    for _ in generation:
        pass
    turns = [{"user": "hello", "answer": "…", "start": 0, "finish": "length"}]
    saved = {"model": {"name": "t", "path": str(model.path)}, "system": "", "turns": turns}
    state = generation.state
    attachments = type(state.attachments)(
        state.attachments.sampler,
        state.attachments.penalty_ids,
        state.attachments.penalty_counts,
        json.dumps(saved),
        b"\xe2\x82",
    )
    state.attachments = attachments
    return state
