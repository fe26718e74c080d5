"""From the tensor names of other projects to those of BlinkDL; knows names, not files.

Projects: Hugging Face transformers (RWKV-4, 5, 6 and its own RWKV-7), flash-linear-attention
and mlx-lm (RWKV-7). What web-rwkv and Ai00 write is in `webrwkv_names`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rwkv_cli.checkpoints.buffers import renamed, row, transposed
from rwkv_cli.checkpoints.tensors import RawTensor
from rwkv_cli.checkpoints.webrwkv_names import from_webrwkv

_Rules = tuple[tuple[str, str], ...]

# convert_rwkv_checkpoint_to_hf.py of transformers; its RWKV-5 and 6 relatives add the gate.
_TRANSFORMERS: _Rules = (
    (r"^rwkv\.", ""),
    (r"^embeddings\.", "emb."),
    (r"^(blocks\.\d+)\.pre_ln\.", r"\1.ln0."),
    (r"^(blocks\.\d+)\.attention\.", r"\1.att."),
    (r"^(blocks\.\d+)\.feed_forward\.", r"\1.ffn."),
    (r"\.time_mix_key$", ".time_mix_k"),
    (r"\.time_mix_value$", ".time_mix_v"),
    (r"\.time_mix_receptance$", ".time_mix_r"),
    (r"\.time_mix_gate$", ".time_mix_g"),
)
_PREFIXED: _Rules = ((r"^(?:rwkv7|model)\.", ""),)
# fla/models/rwkv7 of flash-linear-attention: `lora.0` is down, `lora.2` is up with its bias.
_FLA: _Rules = (
    (r"^model\.embeddings\.", "emb."),
    (r"^model\.norm\.", "ln_out."),
    (r"^lm_head\.", "head."),
    (r"^model\.layers\.(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+)\.pre_norm\.", r"\1.ln0."),
    (r"^(blocks\.\d+)\.attn_norm\.", r"\1.ln1."),
    (r"^(blocks\.\d+)\.ffn_norm\.", r"\1.ln2."),
    (r"^(blocks\.\d+)\.attn\.", r"\1.att."),
    (r"\.att\.([wavg])_lora\.lora\.0\.weight$", r".att.\g<1>1"),
    (r"\.att\.([wavg])_lora\.lora\.2\.weight$", r".att.\g<1>2"),
    (r"\.att\.([wav])_lora\.lora\.2\.bias$", r".att.\g<1>0"),
    (r"\.att\.r_proj\.", ".att.receptance."),
    (r"\.att\.k_proj\.", ".att.key."),
    (r"\.att\.v_proj\.", ".att.value."),
    (r"\.att\.o_proj\.", ".att.output."),
    (r"\.att\.g_norm\.", ".att.ln_x."),
)
# The name of the embedding tells the project.
_PROJECTS = {
    "rwkv.embeddings.weight": _TRANSFORMERS,
    "rwkv7.emb.weight": _PREFIXED,
    "model.emb.weight": _PREFIXED,
    "model.embeddings.weight": _FLA,
}
_FLA_EMBEDDING = "model.embeddings.weight"
_LOW_RANK = re.compile(r"blocks\.\d+\.att\.[wavg][12]")
# Earlier releases of flash-linear-attention joined the six token-shift mixes, in this order.
_JOINED = re.compile(r"(blocks\.\d+\.att\.x_)x")
_MIXES = "rwkvag"


def to_original(tensors: list[RawTensor], format_name: str) -> list[RawTensor]:
    """The same tensors under BlinkDL's names, low-rank matrices the way round he has them.

    Args:
        tensors: Under the names of a file.
        format_name: Of the file: some projects write one format alone.
    """
    project = next((t.name for t in tensors if t.name in _PROJECTS), None)
    if project is None:
        return from_webrwkv(tensors) if format_name == "safetensors" else tensors
    rename = _renamer(_PROJECTS[project])
    tensors = [renamed(tensor, rename(tensor.name)) for tensor in tensors]
    if project != _FLA_EMBEDDING:
        return tensors
    return [one for tensor in tensors for one in _from_fla(tensor)]


def _from_fla(tensor: RawTensor) -> list[RawTensor]:
    """Turns a low-rank matrix, a weight (outputs, inputs) there; parts joined mixes."""
    joined = _JOINED.fullmatch(tensor.name)
    if joined and tensor.shape[:1] == (len(_MIXES),):
        return [renamed(row(tensor, i), joined[1] + mix) for i, mix in enumerate(_MIXES)]
    if _LOW_RANK.fullmatch(tensor.name) and len(tensor.shape) == 2:
        return [transposed(tensor)]
    return [tensor]


def _renamer(rules: _Rules) -> Callable[[str], str]:
    patterns = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def rename(name: str) -> str:
        for pattern, replacement in patterns:
            name = pattern.sub(replacement, name)
        return name

    return rename
