"""Run transformers' RwkvForCausalLM (RWKV-4) once on one thing and print what was measured, as
JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from transformers import RwkvConfig, RwkvForCausalLM

from rwkv_cli.engine.modelfile import open_model

WARM = 2
_STORED = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
_NAMES = {
    "emb.": "embeddings.",
    "blocks.0.ln0.": "blocks.0.pre_ln.",
    ".att.": ".attention.",
    ".ffn.": ".feed_forward.",
    "time_mix_k": "time_mix_key",
    "time_mix_v": "time_mix_value",
    "time_mix_r": "time_mix_receptance",
}


def load(path: Path, dtype: torch.dtype) -> RwkvForCausalLM:
    """Make a model out of a checkpoint under BlinkDL's names."""
    file = open_model(path)
    dims = file.dims
    config = RwkvConfig(
        vocab_size=dims.vocab,
        context_length=4096,
        hidden_size=dims.width,
        num_hidden_layers=dims.layers,
        attention_hidden_size=dims.letters["A"],
        intermediate_size=dims.letters["F"],
        rescale_every=0,
        tie_word_embeddings=False,
    )
    tensors = {}
    for name, raw in file.checkpoint.tensors.items():
        buffer = torch.frombuffer(raw.data, dtype=_STORED[raw.dtype])
        for ours, theirs in _NAMES.items():
            name = name.replace(ours, theirs)
        name = name if name.startswith("head") else "rwkv." + name
        tensors[name] = buffer.reshape(raw.shape).to(dtype)
    with torch.device("meta"):
        model = RwkvForCausalLM(config)
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def main() -> None:
    """Take the plan from argv as JSON: model, dtype, what, tokens, threads."""
    plan = json.loads(sys.argv[1])
    torch.set_num_threads(plan["threads"])
    torch.set_grad_enabled(False)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[plan["dtype"]]
    model = load(Path(plan["model"]), dtype)
    tokens = torch.randint(1, 50_000, (1, WARM + plan["tokens"]))
    out = model(tokens[:, :WARM], use_cache=True)
    if plan["what"] == "prefill":
        start = time.perf_counter()
        model(tokens[:, WARM:], use_cache=True)
    else:
        start = time.perf_counter()
        for token in range(WARM, tokens.shape[1]):
            out = model(tokens[:, token : token + 1], state=out.state, use_cache=True)
    print(json.dumps({"rate": plan["tokens"] / (time.perf_counter() - start)}))


if __name__ == "__main__":
    main()
