"""From the tensor names of other projects to those of BlinkDL; knows names, not files.

Projects: Hugging Face transformers (RWKV-4, 5, 6 and its own RWKV-7), flash-linear-attention
and mlx-lm (RWKV-7), and the web-rwkv converter (RWKV-7, low-rank matrices transposed).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rwkv_cli.checkpoints.buffers import renamed, transposed
from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.tensors import RawTensor

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
_LOW_RANK = re.compile(r"^blocks\.\d+\.att\.[wavg]([12])$")


def to_original(tensors: list[RawTensor], source: Source) -> list[RawTensor]:
    """The same tensors under BlinkDL's names, low-rank matrices the way round he has them.

    Raises:
        RefusedError: The copies made for this file would together be larger than the file.
    """
    project = next((t.name for t in tensors if t.name in _PROJECTS), None)
    if project is not None:
        rename = _renamer(_PROJECTS[project])
        tensors = [renamed(tensor, rename(tensor.name)) for tensor in tensors]
    widths = {t.shape[1] for t in tensors if t.name == "emb.weight" and len(t.shape) == 2}
    is_turned = project == "model.embeddings.weight"
    return [
        transposed(tensor, source) if _lies_across(tensor, widths, is_turned) else tensor
        for tensor in tensors
    ]


def _renamer(rules: _Rules) -> Callable[[str], str]:
    patterns = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def rename(name: str) -> str:
        for pattern, replacement in patterns:
            name = pattern.sub(replacement, name)
        return name

    return rename


def _lies_across(tensor: RawTensor, widths: set[int], is_turned: bool) -> bool:
    """Whether a low-rank matrix is transposed: w1 is (C, D) and w2 is (D, C)."""
    match = _LOW_RANK.match(tensor.name)
    if match is None or len(tensor.shape) != 2:
        return False
    wide, narrow = tensor.shape if match[1] == "1" else tensor.shape[::-1]
    return is_turned or (narrow in widths and wide not in widths)
