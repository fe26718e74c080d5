"""Every version of RWKV once more, one token at a time in float64 with numpy alone.

Written from the published formulas and checkpoints, not from the program it judges; it uses outer
products and dictionaries where the program uses chunks and batches, and favors the letter of the
papers over speed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray
Memory = dict[str, Any]

LN_EPS = 1e-5
HEAD_EPS = 64e-5


class Float64Model:
    """A model in float64; `step` feeds one token.

    Args:
        version: "v4" to "v7".
        tensors: BlinkDL's names to arrays of any precision.
    """

    def __init__(self, version: str, tensors: dict[str, Array]) -> None:
        self.version = version
        self.weights = {n: np.asarray(a, dtype=np.float64) for n, a in tensors.items()}
        self.layers = 1 + max(int(n.split(".")[1]) for n in tensors if n.startswith("blocks."))
        self.time_mixing = {"v4": _dove, "v6": _finch, "v7": _goose}.get(version, _eagle)
        self.memory: list[Memory] = [{} for _ in range(self.layers)]

    def step(self, token: int) -> Array:
        """Feed a token: (V,) logits of the next one."""
        w = self.weights
        x = _norm(w["emb.weight"][token], w, "blocks.0.ln0")
        shared: Memory = {}
        for layer, memory in enumerate(self.memory):
            block = _Block(w, f"blocks.{layer}.")
            x = x + self.time_mixing(block, _norm(x, block, "ln1"), memory, shared)
            channel = _old_channel_mix if self.version != "v7" else _goose_channel_mix
            x = x + channel(block, _norm(x, block, "ln2"), memory)
        return w["head.weight"] @ _norm(x, w, "ln_out")

    def run(self, tokens: list[int]) -> Array:
        """Feed tokens: (T, V) logits after each."""
        return np.stack([self.step(token) for token in tokens])


class _Block:
    """The tensors of one layer; vectors come flat."""

    def __init__(self, weights: dict[str, Array], prefix: str) -> None:
        self.weights, self.prefix = weights, prefix

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.weights

    def __getitem__(self, name: str) -> Array:
        array = self.weights[self.prefix + name]
        return array.reshape(-1) if array.shape[:-1] == (1, 1) else array


def _norm(x: Array, where: Any, name: str) -> Array:
    centered = x - x.mean()
    scaled = centered / np.sqrt((centered**2).mean() + LN_EPS)
    return scaled * where[name + ".weight"] + where[name + ".bias"]


def _head_norm(y: Array, block: _Block) -> Array:
    """Normalize each row of (H, N), then weigh the (H * N) channels."""
    centered = y - y.mean(axis=1, keepdims=True)
    scaled = centered / np.sqrt((centered**2).mean(axis=1, keepdims=True) + HEAD_EPS)
    return scaled.reshape(-1) * block["att.ln_x.weight"] + block["att.ln_x.bias"]


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


def _silu(x: Array) -> Array:
    return x * _sigmoid(x)


def _last(memory: Memory, key: str, x: Array) -> Array:
    """Swap the input for the one of the step before."""
    before = memory.get(key, np.zeros_like(x))
    memory[key] = x
    return before


def _matrix_memory(block: _Block, memory: Memory, heads: int, size: int) -> Array:
    """The (H, N, N) state, value channel first: zero, or as tuned into the model."""
    if "wkv" not in memory:
        tuned = "att.time_state" in block
        memory["wkv"] = block["att.time_state"] if tuned else np.zeros((heads, size, size))
    return memory["wkv"]


def _dove(block: _Block, x: Array, memory: Memory, shared: Memory) -> Array:
    """RWKV-4: a weighted mean of values, all weights relative to the largest so far."""
    before = _last(memory, "att", x)

    def mixed(letter: str) -> Array:
        share = block[f"att.time_mix_{letter}"]
        return share * x + (1 - share) * before

    k = block["att.key.weight"] @ mixed("k")
    v = block["att.value.weight"] @ mixed("v")
    r = _sigmoid(block["att.receptance.weight"] @ mixed("r"))
    # History as a list of (log weight, value): the definition itself, with no running maximum.
    history = memory.setdefault("history", [])
    exponents = [age for age, _ in history] + [block["att.time_first"] + k]
    shares = np.exp(np.stack(exponents) - np.max(exponents, axis=0))
    mean = (shares * np.stack([value for _, value in history] + [v])).sum(0) / shares.sum(0)
    fading = np.exp(block["att.time_decay"])
    memory["history"] = [(age - fading, value) for age, value in history] + [(k, v)]
    return block["att.output.weight"] @ (r * mean)


def _eagle(block: _Block, x: Array, memory: Memory, shared: Memory) -> Array:
    """RWKV-5.0 to 5.2: a matrix for each head, decaying by constants."""
    before = _last(memory, "att", x)
    heads = block["att.time_decay"].shape[0]
    size = block["att.key.weight"].shape[0] // heads

    def project(letter: str, name: str) -> Array:
        share = block[f"att.time_mix_{letter}"]
        return block[f"att.{name}.weight"] @ (share * x + (1 - share) * before)

    k, v, r = (
        project(letter, name).reshape(heads, size)
        for letter, name in (("k", "key"), ("v", "value"), ("r", "receptance"))
    )
    decay = np.exp(-np.exp(block["att.time_decay"])).reshape(heads, -1)
    y = _read_and_add(block, memory, r, k, v, decay, _bonus(block).reshape(heads, -1))
    if "att.gate.weight" in block:
        y = y * _silu(project("g", "gate"))
    return block["att.output.weight"] @ y


def _bonus(block: _Block) -> Array:
    """The weight of the present: itself under the newer name, its logarithm under the older."""
    if "att.time_faaaa" in block:
        return block["att.time_faaaa"]
    return np.exp(block["att.time_first"])


def _read_and_add(
    block: _Block, memory: Memory, r: Array, k: Array, v: Array, decay: Array, bonus: Array
) -> Array:
    """Read from the matrices of RWKV-5 and 6 with the bonus for the present, then add to them."""
    state = _matrix_memory(block, memory, *k.shape)
    present = v[:, :, None] * k[:, None, :]
    y = ((state + bonus[:, None, :] * present) * r[:, None, :]).sum(axis=2)
    memory["wkv"] = decay[:, None, :] * state + present
    return _head_norm(y, block)


def _finch(block: _Block, x: Array, memory: Memory, shared: Memory) -> Array:
    """RWKV-6: mixing and decay depend on the input."""
    delta = _last(memory, "att", x) - x
    heads, size = _bonus(block).shape
    low = np.tanh((x + delta * block["att.time_maa_x"]) @ block["att.time_maa_w1"])
    shifts = dict(zip("wkvrg", np.split(low, 5), strict=True))

    def mixed(letter: str) -> Array:
        shift = shifts[letter] @ block["att.time_maa_w2"]["wkvrg".index(letter)]
        return x + delta * (block[f"att.time_maa_{letter}"] + shift)

    low_decay = np.tanh(mixed("w") @ block["att.time_decay_w1"]) @ block["att.time_decay_w2"]
    decay = np.exp(-np.exp(block["att.time_decay"] + low_decay)).reshape(heads, size)
    r, k, v = (
        (block[f"att.{name}.weight"] @ mixed(letter)).reshape(heads, size)
        for letter, name in (("r", "receptance"), ("k", "key"), ("v", "value"))
    )
    y = _read_and_add(block, memory, r, k, v, decay, _bonus(block))
    return block["att.output.weight"] @ (y * _silu(block["att.gate.weight"] @ mixed("g")))


def _goose(block: _Block, x: Array, memory: Memory, shared: Memory) -> Array:
    """RWKV-7: the state unlearns what it holds under a key before it learns anew."""
    delta = _last(memory, "att", x) - x
    heads, size = block["att.r_k"].shape
    xr, xw, xk, xv, xa, xg = (x + delta * block[f"att.x_{letter}"] for letter in "rwkvag")
    r, k, v = (
        block[f"att.{name}.weight"] @ mixed
        for name, mixed in (("receptance", xr), ("key", xk), ("value", xv))
    )
    decay = np.exp(
        -np.exp(-0.5) * _sigmoid(block["att.w0"] + np.tanh(xw @ block["att.w1"]) @ block["att.w2"])
    )
    rate = _sigmoid(block["att.a0"] + xa @ block["att.a1"] @ block["att.a2"])
    gate = _sigmoid(xg @ block["att.g1"]) @ block["att.g2"]
    if "values" in shared:
        v = v + (shared["values"] - v) * _sigmoid(
            block["att.v0"] + xv @ block["att.v1"] @ block["att.v2"]
        )
    else:
        shared["values"] = v
    learned = k * (1 + (rate - 1) * block["att.k_a"])
    removal = (k * block["att.k_k"]).reshape(heads, size)
    removal = removal / np.maximum(np.linalg.norm(removal, axis=1, keepdims=True), 1e-12)
    state = _matrix_memory(block, memory, heads, size).copy()
    r, v, learned, decay, rate = (z.reshape(heads, size) for z in (r, v, learned, decay, rate))
    y = np.empty((heads, size))
    for h in range(heads):
        transition = np.diag(decay[h]) - np.outer(removal[h], rate[h] * removal[h])
        state[h] = state[h] @ transition + np.outer(v[h], learned[h])
        y[h] = state[h] @ r[h]
    memory["wkv"] = state
    bonus = (r * learned * block["att.r_k"]).sum(axis=1, keepdims=True) * v
    return block["att.output.weight"] @ ((_head_norm(y, block) + bonus.reshape(-1)) * gate)


def _old_channel_mix(block: _Block, x: Array, memory: Memory) -> Array:
    """RWKV-4 to 6; RWKV-6 writes the same mixing as a distance from the present input."""
    before = _last(memory, "ffn", x)
    if "ffn.time_mix_k" in block:
        toward = {letter: 1 - block[f"ffn.time_mix_{letter}"] for letter in "kr"}
    else:
        toward = {letter: block[f"ffn.time_maa_{letter}"] for letter in "kr"}
    xk, xr = (x + (before - x) * toward[letter] for letter in "kr")
    k = memory["hidden"] = np.maximum(block["ffn.key.weight"] @ xk, 0) ** 2
    return _sigmoid(block["ffn.receptance.weight"] @ xr) * (block["ffn.value.weight"] @ k)


def _goose_channel_mix(block: _Block, x: Array, memory: Memory) -> Array:
    before = _last(memory, "ffn", x)
    mixed = x + (before - x) * block["ffn.x_k"]
    k = memory["hidden"] = np.maximum(block["ffn.key.weight"] @ mixed, 0) ** 2
    return block["ffn.value.weight"] @ k
