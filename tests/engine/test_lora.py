"""What `--lora` makes of a model: the formulas of the trainers, on every version and engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracle.cuda_card import SMALL, Card
from oracle.models import DTYPES, ENGINES, TINY, distance, needs_native, save_pth
from oracle.weights import VERSIONS, Tensors, random_model, tuned_state
from safetensors.numpy import save_file

from rwkv_cli.engine import lora as merging
from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.lora import with_loras
from rwkv_cli.engine.lorafile import Lora, described, lora_named
from rwkv_cli.engine.lorasteps import numbers
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.errors import MismatchError, NotFoundError, RefusedError, UsageError

KEY, VALUE = "blocks.1.att.key", "blocks.0.ffn.value"
RANK = 4


def _lora(model: Tensors, seed: int = 1, rank: int = RANK, kind: str = "") -> Tensors:
    rng, made = np.random.default_rng(seed), {}
    for target in (t for t in (KEY, VALUE) if f"{t}.weight" in model):
        outputs, inputs = model[f"{target}.weight"].shape
        made[f"{target}.{kind}lora_A"] = rng.normal(0, 0.5, (rank, inputs)).astype(np.float32)
        made[f"{target}.{kind}lora_B"] = rng.normal(0, 0.5, (outputs, rank)).astype(np.float32)
    return made


def _merged(folder: Path, model: Tensors, files: list[tuple[Tensors, float | None]]) -> Tensors:
    """Give the tensors of a model with files merged into it, all in float32."""
    loras = [
        Lora(save_pth(tensors, folder / f"lora{number}.pth"), alpha)
        for number, (tensors, alpha) in enumerate(files)
    ]
    file = with_loras(open_model(save_pth(model, folder / "model.pth")), loras)
    return {name: numbers(raw) for name, raw in file.checkpoint.tensors.items()}


def _check(out: Tensors, expected: Tensors) -> None:
    assert out.keys() == expected.keys()
    for name, wanted in expected.items():
        np.testing.assert_allclose(out[name], wanted, rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("pieces", [1, 100, 1 << 20])
@pytest.mark.parametrize("alpha", [None, 1.0, 32.0])
def test_a_lora_adds_its_product_times_alpha_over_rank(
    alpha: float | None, pieces: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_PIECE", pieces)
    model = random_model("v7", TINY)
    lora, expected = _lora(model), dict(model)
    for target in (KEY, VALUE):
        product = lora[f"{target}.lora_B"].astype(np.float64) @ lora[f"{target}.lora_A"]
        expected[f"{target}.weight"] = model[f"{target}.weight"] + product * (alpha or RANK) / RANK
    _check(_merged(tmp_path, model, [(lora, alpha)]), expected)


@pytest.mark.parametrize("order", ["together", "beginning first", "beginning last"])
def test_a_pissa_takes_away_what_it_began_with(order: str, tmp_path: Path) -> None:
    model = random_model("v6", TINY)
    trained, begun, expected = _lora(model), _lora(model, 2, kind="init_"), dict(model)
    for target in (KEY, VALUE):
        weight = model[f"{target}.weight"].astype(np.float64)
        weight = weight - begun[f"{target}.init_lora_B"] @ begun[f"{target}.init_lora_A"]
        expected[f"{target}.weight"] = (
            weight + trained[f"{target}.lora_B"] @ trained[f"{target}.lora_A"]
        )
    files = {
        "together": [{**trained, **begun}],
        "beginning first": [begun, trained],
        "beginning last": [trained, begun],
    }[order]
    _check(_merged(tmp_path, model, [(tensors, None) for tensors in files]), expected)


@pytest.mark.parametrize("rank", [4, 7, 16, 100])
def test_a_disha_of_two_axes_adds_to_every_input_by_its_number_modulo_rank(
    rank: int, tmp_path: Path
) -> None:
    model = random_model("v7", TINY)
    outputs, inputs = model[f"{VALUE}.weight"].shape
    disha = np.random.default_rng(3).normal(0, 1, (rank, outputs)).astype(np.float32)
    expected = dict(model)
    changed = model[f"{VALUE}.weight"].copy()
    for o in range(outputs):
        for i in range(inputs):
            changed[o, i] += disha[i % rank, o]
    expected[f"{VALUE}.weight"] = changed
    _check(_merged(tmp_path, model, [({f"{VALUE}.disha": disha}, None)]), expected)


@pytest.mark.parametrize("kind", ["disha", "bone"])
@pytest.mark.parametrize("pieces", [1, 1 << 20])
def test_a_disha_of_three_axes_works_on_blocks(
    kind: str, pieces: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_PIECE", pieces)
    model, size = random_model("v5.2", TINY), 8
    weight = model[f"{VALUE}.weight"].astype(np.float64)
    outputs, inputs = weight.shape
    shape = (inputs // size, size, size)
    disha = np.random.default_rng(3).normal(0, 1, shape).astype(np.float32)
    changed = weight.copy()
    for top in range(0, outputs, size):
        for block, left in enumerate(range(0, inputs, size)):
            old = weight[top : top + size, left : left + size]
            changed[top : top + size, left : left + size] += old @ disha[block] + disha[block]
    expected = {**model, f"{VALUE}.weight": changed}
    _check(_merged(tmp_path, model, [({f"{VALUE}.{kind}": disha}, None)]), expected)


def test_whole_tensors_take_the_place_of_the_models_and_files_follow_each_other(
    tmp_path: Path,
) -> None:
    model = random_model("v6", TINY)
    first = {**_lora(model), "blocks.0.ln1.weight": np.ones(TINY.width, np.float32)}
    first[f"{KEY}.weight"] = model[f"{KEY}.weight"] * 2
    second = {**_lora(model, 2), **tuned_state(TINY)}
    expected = {**model, **tuned_state(TINY), "blocks.0.ln1.weight": first["blocks.0.ln1.weight"]}
    expected[f"{KEY}.weight"] = first[f"{KEY}.weight"]
    for target in (KEY, VALUE):
        for lora, scale in ((first, 2.0), (second, 1.0)):
            product = lora[f"{target}.lora_B"] @ lora[f"{target}.lora_A"]
            expected[f"{target}.weight"] = expected[f"{target}.weight"] + scale * product
    _check(_merged(tmp_path, model, [(first, 2.0 * RANK), (second, None)]), expected)


def test_names_that_wrappers_gave_are_understood(tmp_path: Path) -> None:
    model = random_model("v7", TINY)
    lora = _lora(model)
    plain = _merged(tmp_path, model, [(lora, 8)])
    wrapped = {f"base_model.model.{name}.default.weight": value for name, value in lora.items()}
    _check(_merged(tmp_path, model, [(wrapped, 8)]), plain)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_merged_model_says_what_the_model_with_those_weights_says(
    version: str, engine: str, tmp_path: Path
) -> None:
    model = random_model(version, TINY)
    lora = _lora(model)
    path, changed = save_pth(model, tmp_path / "m.pth"), tmp_path / "changed.pth"
    loras = [Lora(save_pth(lora, tmp_path / "l.pth"), 2)]
    file = with_loras(open_model(path), loras)
    save_pth({n: numbers(raw) for n, raw in file.checkpoint.tensors.items()}, changed)
    logits = []
    for place, chosen in ((path, loras), (changed, [])):
        made = load_model(place, Strategy("cpu", None, engine, 1), tokenizer="bytes", loras=chosen)
        logits.append(made.advance([3, 1, 2], made.zero_state())[0])
    assert np.array_equal(*logits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_merged_tensor_has_the_precision_of_the_model_and_is_rounded_once(
    dtype: str, tmp_path: Path
) -> None:
    model = random_model("v7", TINY)
    file = open_model(save_pth(model, tmp_path / "m.pth", dtype))
    merged = with_loras(file, [Lora(save_pth(_lora(model), tmp_path / "l.pth"), 3)])
    before, after = file.checkpoint.tensors, merged.checkpoint.tensors
    assert {n: (t.dtype, t.shape) for n, t in before.items()} == {
        n: (t.dtype, t.shape) for n, t in after.items()
    }
    assert after["emb.weight"] is before["emb.weight"]
    lora = _lora(model)
    exact = numbers(before[f"{KEY}.weight"]) + 0.75 * (
        lora[f"{KEY}.lora_B"] @ lora[f"{KEY}.lora_A"]
    )
    step = {"fp32": 2**-23, "bf16": 2**-8, "fp16": 2**-11}[dtype]
    error = np.abs(numbers(after[f"{KEY}.weight"]) - exact)
    assert (error <= step * np.abs(exact) + 1e-6).all()


def test_a_merged_model_is_another_than_its_base_for_states_and_caches(tmp_path: Path) -> None:
    model = random_model("v7", TINY)
    file = open_model(save_pth(model, tmp_path / "m.pth"))
    one = save_pth(_lora(model), tmp_path / "one.pth")
    two = save_pth(_lora(model, 2), tmp_path / "two.pth")
    chosen = ([], [Lora(one)], [Lora(one, 2)], [Lora(two)], [Lora(one), Lora(two)],
              [Lora(two), Lora(one)])  # fmt: skip
    prints = [with_loras(file, loras).fingerprint() for loras in chosen]
    assert len(set(prints)) == len(prints)
    assert prints[1] == with_loras(file, [Lora(one)]).fingerprint()
    assert re.fullmatch("merged:[0-9a-f]{64}", prints[1])


_Spoil = Callable[[Tensors], Tensors]


def _without(*names: str) -> _Spoil:
    return lambda lora: {name: value for name, value in lora.items() if name not in names}


def _with(name: str, *shape: int) -> _Spoil:
    return lambda lora: {**lora, name: np.zeros(shape, np.float32)}


def _only(name: str, *shape: int) -> _Spoil:
    return lambda lora: {name: np.zeros(shape, np.float32)}


@pytest.mark.parametrize(
    ("spoil", "error", "sentence"),
    [
        (_without(f"{KEY}.lora_B"), RefusedError, "lora_A is there, .*lora_B is missing"),
        (_without(f"{KEY}.lora_A"), RefusedError, "lora_B is there, .*lora_A is missing"),
        (_with(f"{KEY}.disha", 4, 32), RefusedError, "changed in two ways"),
        (_with(f"{KEY}.lora_A", 4, 33), MismatchError, "has 32 outputs and 32 inputs"),
        (_with(f"{KEY}.lora_A", 5, 32), MismatchError, "lora_B of shape"),
        (_with("blocks.7.att.key.disha", 4, 32), MismatchError, "blocks.7.att.key.weight, which"),
        (_with("blocks.0.ln1.disha", 4, 32), MismatchError, "is no matrix"),
        (_with("blocks.0.ln1.weight", 31), MismatchError, r"has shape \[31\], the model's \[32\]"),
        (_with("blocks.0.att.strange", 31), MismatchError, "which the model has not"),
        (_with("blocks.5.att.time_state", 2, 16, 16), MismatchError, "which the model has not"),
        (_only(f"{KEY}.disha", 5, 5, 5), MismatchError, "does not fit"),
        (_only(f"{KEY}.disha", 4), MismatchError, "does not fit"),
        (_only(f"{KEY}.bone", 32, 4), MismatchError, "does not fit"),
        (_only("blocks.0.att.time_state", 2, 16, 16), RefusedError, "is a tuned initial state"),
        (lambda _: random_model("v7", TINY), RefusedError, "is a whole model, not a LoRA"),
        (lambda lora: {**lora, f"{KEY}.lora_A": lora[f"{KEY}.lora_A"].astype(np.int32)},
         RefusedError, "has type I32"),
        (lambda lora: {n.replace("lora", "init_lora"): v for n, v in lora.items()},
         RefusedError, "holds only what the training of a PiSSA began with"),
        (lambda lora: {**lora, f"{KEY}.init_lora_A": lora[f"{KEY}.lora_A"],
                       f"{KEY}.init_lora_B": lora[f"{KEY}.lora_B"]},
         RefusedError, r"is a PiSSA, but blocks.0.ffn.value.init_lora_A is missing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(
    spoil: _Spoil, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    model = random_model("v7", TINY)
    path = tmp_path / "bad.safetensors"
    save_file(spoil(_lora(model)), path)
    file = open_model(save_pth(model, tmp_path / "m.pth"))
    with pytest.raises(error, match=sentence) as caught:
        with_loras(file, [Lora(path)])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_when_they_are_merged(
    value: float, tmp_path: Path
) -> None:
    model = random_model("v7", TINY)
    lora = _lora(model)
    lora[f"{KEY}.lora_A"][0, 0] = value
    path = save_pth(lora, tmp_path / "l.pth")
    merged = with_loras(open_model(save_pth(model, tmp_path / "m.pth")), [Lora(path)])
    with pytest.raises(RefusedError, match=f"l.pth: makes {KEY}.weight infinite or no number"):
        merged.checkpoint.tensors[f"{KEY}.weight"].plain()


def test_two_files_of_a_pissa_must_be_of_one_training(tmp_path: Path) -> None:
    model = random_model("v7", TINY)
    begun = _without(f"{VALUE}.init_lora_A", f"{VALUE}.init_lora_B")(_lora(model, kind="init_"))
    with pytest.raises(RefusedError, match=f"only one of the two has {VALUE}"):
        _merged(tmp_path, model, [(_lora(model), None), (begun, None)])
    with pytest.raises(UsageError, match="PiSSA has no alpha"):
        _merged(tmp_path, model, [(_lora(model), 2), (_lora(model, kind="init_"), None)])


def test_a_packed_model_is_refused_and_the_way_round_is_named(tmp_path: Path) -> None:
    file = open_model(save_pth(random_model("v7", TINY), tmp_path / "m.pth"))
    packed = replace(file, packed=type("Packed", (), {"dtype": "int8"})())
    with pytest.raises(RefusedError, match="is packed as int8") as caught:
        with_loras(packed, [Lora(tmp_path / "l.pth")])
    assert "--dtype int8" in str(caught.value.hint)


def test_alpha_stands_behind_the_last_colon_unless_a_file_is_called_so(tmp_path: Path) -> None:
    odd = tmp_path / "a:16"
    odd.write_bytes(b"")
    assert lora_named(str(odd)) == Lora(odd)
    assert lora_named(f"{odd}:2.5") == Lora(odd, 2.5)
    assert lora_named("x.pth") == Lora(Path("x.pth"))
    with pytest.raises(NotFoundError, match="no such home folder"):
        lora_named("~nobody-of-that-name/x.pth:3")
    assert lora_named("C:\\x.pth") == Lora(Path("C:\\x.pth"))
    assert lora_named("x.pth:-1e1") == Lora(Path("x.pth"), -10)
    for text in ("", "x:nan", "x:inf", ":3"):
        with pytest.raises(UsageError):
            lora_named(text)
    with pytest.raises(NotFoundError):
        described(lora_named(str(tmp_path / "nothing.pth:3")))


def test_a_card_runs_the_merged_model(tmp_path: Path, card: Card, judged: list[str]) -> None:
    model = random_model("v7", SMALL)
    path = save_pth(model, tmp_path / "m.pth")
    loras = [Lora(save_pth(_lora(model), tmp_path / "l.pth"), 2)]
    logits = []
    for strategy in (Strategy("cuda", "fp32"), Strategy("cpu", "fp32", "torch")):
        made = load_model(path, strategy, tokenizer="bytes", loras=loras)
        logits.append(made.advance([3, 1, 2], made.zero_state())[0])
    assert distance(*logits) < 1e-5
    assert made.name == "m+l"


@needs_native
def test_packed_weights_of_a_merged_model_are_cached_apart_from_those_of_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RWKV_CACHE_DIR", str(tmp_path / "cache"))
    model = random_model("v7", TINY)
    path = save_pth(model, tmp_path / "m.pth")
    loras = [Lora(save_pth(_lora(model), tmp_path / "l.pth"))]
    logits = []
    for chosen in ([], loras, loras, []):
        made = load_model(path, Strategy("cpu", "int8"), tokenizer="bytes", loras=chosen)
        logits.append(made.advance([3, 1, 2], made.zero_state())[0])
    assert len(list((tmp_path / "cache" / "packed").iterdir())) == 2
    assert np.array_equal(logits[1], logits[2])
    assert np.array_equal(logits[0], logits[3])
    assert distance(logits[0], logits[1]) > 0.01
