"""Run the package `rwkv` once on one thing and print what was measured, as JSON; for a start the
first token instead.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

from rwkv_cli.engine.modelfile import open_model

WARM = 4  # TorchScript settles in the first calls


def main() -> None:
    """Take the plan from argv as JSON: model (.pth), dtype, what, tokens, prompt,
    threads.
    """
    plan = json.loads(sys.argv[1])
    os.environ.update(RWKV_JIT_ON="1", RWKV_CUDA_ON="0")
    if open_model(Path(plan["model"])).arch.name == "v7":
        os.environ["RWKV_V7_ON"] = "1"
    import torch

    torch.set_num_threads(plan["threads"])
    torch.set_grad_enabled(False)
    with redirect_stdout(sys.stderr):
        from rwkv.model import RWKV
        from rwkv.utils import PIPELINE

        name = str(Path(plan["model"]).with_suffix(""))
        model = RWKV(model=name, strategy=f"cpu {plan['dtype']}")
    if plan["what"] == "start":
        pipeline = PIPELINE(model, "rwkv_vocab_v20230424")
        logits, _ = model.forward(pipeline.encode(plan["prompt"]), None)
        sys.stdout.buffer.write(pipeline.tokenizer.decodeBytes([int(logits.argmax())]))
        sys.stdout.flush()
        return
    tokens = torch.randint(1, 50_000, (WARM + plan["tokens"],)).tolist()
    if plan["what"] == "prefill":
        for _ in range(3):
            model.forward(tokens[:64], None)
        start = time.perf_counter()
        model.forward(tokens[WARM:], None)
    else:
        _, state = model.forward(tokens[:WARM], None)
        for token in tokens[:WARM]:
            _, state = model.forward([token], state)
        start = time.perf_counter()
        for token in tokens[WARM:]:
            _, state = model.forward([token], state)
    print(json.dumps({"rate": plan["tokens"] / (time.perf_counter() - start)}))


if __name__ == "__main__":
    main()
