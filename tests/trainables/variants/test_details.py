"""What the single variants promise beyond the common contract."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, inject_adapter_in_model

from trainables.variants import available, describe, get_variant
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.export import exported_adapter, merge_folder, merge_plain_lora, save_plain_lora
from trainables.variants.core.matrices import select_matrices
from trainables.variants.core.plain import PlainLora
from trainables.variants.core.snapshot import fingerprint
from trainables.variants.core.tiny import attached, formula_count, make_base, make_batches, outputs, train

Q_PROJ = "model.layers.0.self_attn.q_proj"


def make_gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4, n_positions=32, initializer_range=0.1)
        return GPT2LMHeadModel(config).eval()


def test_names_are_listed_without_importing_torch_or_peft() -> None:
    program = (
        "import sys, trainables.variants as v; assert v.available(); "
        "assert not {'torch', 'peft', 'ray'} & set(sys.modules), sorted(sys.modules)"
    )
    root = str(Path(__file__).resolve().parents[3])
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)


def test_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="variant 'lorra' is unknown: use one of adalora, corda"):
        get_variant("lorra")


def test_every_variant_describes_itself() -> None:
    rows = describe()
    assert [row["name"] for row in rows] == available()
    for row in rows:
        assert row["summary"] and row["paper"].startswith(("arXiv ", "https://")) and row["parameters"]
        assert set(row["runs_on"]) <= {"hosted", "ddp", "fsdp", "deepspeed"}
        json.dumps(row)


def test_docs_list_every_variant_with_its_options() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "variants.md").read_text()
    for row in describe():
        assert f"| `{row['name']}` | {row['summary']} | {row['paper']} | {row['parameters']} |" in text
        for option, default in row["options"].items():
            shown = str(default).lower() if isinstance(default, bool) else default
            assert f"| `{row['name']}` | `{option}` | `{shown}` |" in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rank", 0),
        ("rank", 2.5),
        ("rank", True),
        ("alpha", 0.0),
        ("alpha", math.nan),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
        ("steps", 0),
    ],
)
def test_hyperparameters_out_of_range_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field} is {value!r}: use "):
        AdapterConfig(**({"rank": 4, "alpha": 8.0} | {field: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "scale"), [("lora", 8 / 4), ("dora", 8 / 4), ("rslora", 8 / math.sqrt(4))])
def test_scale_follows_the_paper(name: str, scale: float) -> None:
    variant = attached(name)
    layer = variant.module.get_submodule(Q_PROJ)
    assert layer.scaling["default"] == scale
    assert layer.lora_B["default"].weight.abs().max() == 0


@pytest.mark.parametrize("name", ["lora", "rslora", "dora"])
def test_another_seed_gives_another_start(name: str) -> None:
    one, other = (attached(name, seed=seed).module.get_submodule(Q_PROJ).lora_A["default"] for seed in (1, 2))
    assert not torch.equal(one.weight, other.weight)


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_start_equals_pefts_own_initialiser_in_fp32(name: str) -> None:
    theirs = make_base()
    init = {"pissa": "pissa", "olora": "olora"}[name]
    inject_adapter_in_model(
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=init),  # type: ignore[arg-type]
        theirs,
    )
    theirs_layer = theirs.get_submodule(Q_PROJ)
    expected = theirs_layer.lora_B["default"].weight @ theirs_layer.lora_A["default"].weight
    # Many iterations: the randomised SVD is then the full one that PEFT's "pissa" computes.
    variant = attached(name, placement="q_proj", extra={"niter": 60} if name == "pissa" else {})
    layer = variant.module.get_submodule(Q_PROJ)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(b @ a, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(layer.base_layer.weight, theirs_layer.base_layer.weight, atol=5e-5, rtol=1e-4)


def test_pissa_takes_the_principal_part_with_balanced_factors() -> None:
    original = make_base().get_submodule(Q_PROJ).weight.detach()
    values = torch.linalg.svdvals(original)
    variant = attached("pissa", placement="q_proj", extra={"niter": 60})
    layer = variant.module.get_submodule(Q_PROJ)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(torch.linalg.svdvals(2.0 * b @ a)[:4], values[:4])
    torch.testing.assert_close(torch.linalg.svdvals(layer.base_layer.weight)[:8], values[4:12])
    torch.testing.assert_close(a @ a.T, b.T @ b, atol=1e-4, rtol=1e-4)


def test_olora_starts_from_an_orthonormal_basis() -> None:
    variant = attached("olora", placement="q_proj")
    b = variant.module.get_submodule(Q_PROJ).lora_B["default"].weight
    torch.testing.assert_close(b.T @ b, torch.eye(4), atol=1e-6, rtol=0)


def test_dora_starts_at_the_pretrained_function_to_the_bit_over_bf16() -> None:
    base, batch = make_base(torch.bfloat16), make_batches()[0]
    before = outputs(base, batch)
    assert torch.equal(outputs(attached("dora", base).module, batch), before)


def test_dora_weight_is_magnitude_times_direction() -> None:
    variant = attached("dora", placement="q_proj")
    train(variant, make_batches(), 3)
    layer = variant.module.get_submodule(Q_PROJ)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    direction = layer.base_layer.weight + 2.0 * b @ a
    weight = layer.lora_magnitude_vector["default"].weight[:, None] * direction / direction.norm(dim=1, keepdim=True)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), x @ weight.T, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_converted_adapter_has_twice_the_rank_and_the_same_scale(name: str) -> None:
    plain = attached(name).to_lora()
    assert plain is not None
    assert {plain.rank(m) for m in plain.factors} == {8}
    assert set(plain.scales.values()) == {2.0}
    assert all(plain.delta(m).abs().max() < 1e-6 for m in plain.factors)  # nothing learned, nothing changed


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_state_from_another_decomposition_restores_the_same_function(name: str) -> None:
    batch = make_batches()[0]
    first = attached(name, seed=1)
    train(first, make_batches(), 3)
    state = first.state()
    # A basis of the same space, turned and flipped: what another linear algebra library might have found.
    for key in [key for key in state if key.endswith("initial_A")]:
        state[key] = -state[key].flip(0)
        state[key.replace("initial_A", "initial_B")] = -state[key.replace("initial_A", "initial_B")].flip(1)
    # And a start that differs for real.
    second = attached(name, seed=2, extra={"niter": 0} if name == "pissa" else {})
    second.load_state(state)
    assert (outputs(first.module, batch) - outputs(second.module, batch)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_rewriting_never_writes_to_the_original_storage(name: str) -> None:
    base = make_base()
    weight = base.get_submodule(Q_PROJ).weight
    storage, bits = weight.data, weight.detach().clone()
    variant = attached(name, base)
    train(variant, make_batches(), 2)
    assert torch.equal(storage, bits)
    variant.detach()
    assert base.get_submodule(Q_PROJ).weight.data_ptr() == storage.data_ptr()


@pytest.mark.parametrize("name", [name for name in available() if name not in ("miss", "loftq")])
def test_transposed_matrices_of_gpt2_are_adapted_exported_and_given_back(name: str, tmp_path: Path) -> None:
    # `miss` refuses them, and where a base is quantised they are no longer transposed.
    base, batch = make_gpt2(), make_batches()[0]
    bits, before = fingerprint(base), outputs(base, batch)
    variant = attached(name, base)
    assert [m.kind for m in variant.matrices] == ["c_attn", "c_proj", "c_fc", "c_proj"]
    assert (variant.matrices[0].rows, variant.matrices[0].columns) == (96, 32)
    assert variant.parameter_count() == formula_count(variant)
    # LoRA-XS starts next to the pretrained function.
    assert (outputs(variant.module, batch) - before).abs().max() < (1e-3 if name == "lora_xs" else 1e-5)
    train(variant, make_batches(), 3)
    learned = outputs(variant.module, batch)
    with exported_adapter(make_gpt2(), variant.save_adapter(tmp_path, "gpt2")) as loaded:
        assert (outputs(loaded, batch) - learned).abs().max() < 1e-4
    assert (outputs(variant.merge_into(make_gpt2()), batch) - learned).abs().max() < 1e-4
    assert fingerprint(variant.detach()) == bits


def test_saved_folder_names_matrices_by_type_in_the_same_order_every_time(tmp_path: Path) -> None:
    for name in ("lora", "pissa"):
        folder = attached(name).save_adapter(tmp_path / name, "base")
        config = json.loads((folder / "adapter_config.json").read_text())
        kinds = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
        assert config["target_modules"] == kinds
        assert (config["r"], config["lora_alpha"]) == ((4, 8) if name == "lora" else (8, 16))
        assert config["task_type"] == "CAUSAL_LM"


def test_plain_lora_of_mixed_ranks_and_scales_loads_in_peft(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    ranks = {
        Q_PROJ: (2, 0.5),
        "model.layers.1.self_attn.q_proj": (3, 2.0),
        "model.layers.1.mlp.up_proj": (2, 0.25),
    }
    base, factors = make_base(), {}
    for name, (rank, _) in ranks.items():
        rows, columns = base.get_submodule(name).weight.shape
        draw = [torch.randn(shape, generator=generator) * 0.2 for shape in ((rank, columns), (rows, rank))]
        factors[name] = (draw[0], draw[1])
    plain = PlainLora(factors, {name: scale for name, (_, scale) in ranks.items()})
    batch, merged = make_batches()[0], merge_plain_lora(make_base(), plain)
    for model in (None, base):
        folder = save_plain_lora(plain, tmp_path / str(model is None), "base", model=model)
        loaded = PeftModel.from_pretrained(make_base(), str(folder))
        assert (outputs(loaded, batch) - outputs(merged, batch)).abs().max() < 1e-4
    assert (outputs(merged, batch) - outputs(base, batch)).abs().max() > 0.05


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_merging_rounds_once_to_the_type_of_the_base(name: str, tmp_path: Path) -> None:
    variant = attached(name, make_base(torch.bfloat16))
    train(variant, make_batches(), 4)
    # The same adapter over the same weights, widened: what exact arithmetic gives.
    wide = attached(name, make_base(torch.bfloat16).float())
    wide.load_state(variant.state())
    exact = wide.merge_into(make_base(torch.bfloat16).float()).get_submodule(Q_PROJ).weight
    merged = variant.merge_into(make_base(torch.bfloat16))
    weight = merged.get_submodule(Q_PROJ).weight
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, exact.to(torch.bfloat16))
    again = merge_folder(make_base(torch.bfloat16), variant.save_adapter(tmp_path, "base"))
    assert torch.equal(again.get_submodule(Q_PROJ).weight, weight)
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}


def test_merging_into_another_model_is_refused_before_anything_changes() -> None:
    plain = attached("lora").to_lora()
    assert plain is not None
    smaller = make_base(layers=1)
    bits = fingerprint(smaller)
    with pytest.raises(ValueError, match=r"merge: the model has no .* matrix 'model.layers.1"):
        merge_plain_lora(smaller, plain)
    assert fingerprint(smaller) == bits


def test_language_model_head_is_left_out_and_tied_weights_are_refused() -> None:
    assert "lm_head" not in {m.kind for m in select_matrices(make_base(), "all-linear")}
    base = make_base()
    base.model.layers[1].self_attn.q_proj.weight = base.model.layers[0].self_attn.q_proj.weight
    with pytest.raises(ValueError, match="shares its weight"):
        select_matrices(base, "q_proj")


def test_a_model_that_carries_an_adapter_is_refused() -> None:
    base = make_base()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"]), base)
    before = sorted(vars(base))
    with pytest.raises(ValueError, match="carries an adapter already"):
        attached("lora", base)
    assert sorted(vars(base)) == before


def test_fingerprint_sees_one_bit() -> None:
    base = make_base(torch.bfloat16)
    before = fingerprint(base)
    base.get_submodule(Q_PROJ).weight.data.view(torch.int16)[3, 5] ^= 1
    assert fingerprint(base) != before
    base.get_submodule(Q_PROJ).weight.data.view(torch.int16)[3, 5] ^= 1
    assert fingerprint(base) == before
