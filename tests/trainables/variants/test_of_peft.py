"""What the variants that PEFT has promise beyond the contract, with PEFT's own code as the reference."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file

from trainables.variants.adalora import first_rank, schedule
from trainables.variants.core.base import Variant
from trainables.variants.core.tiny import attached, make_base, make_batches, outputs, structure, train
from trainables.variants.gralora import grid_to_lora

Q_PROJ = "model.layers.0.self_attn.q_proj"


def factors(variant: Variant, name: str = Q_PROJ) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = variant.factors(name)  # type: ignore[attr-defined]
    return a.detach(), b.detach()


@pytest.mark.parametrize(
    ("name", "extra", "message"),
    [
        ("lora_ga", {"gamma": 0}, "option gamma is 0: use a number above 0"),
        ("corda", {"mode": "imp"}, "option mode is 'imp': use one of ipm, kpm"),
        ("eva", {"rho": 0.5}, "option rho is 0.5: use a number of at least 1"),
        ("eva", {"label_mask": 1}, "option label_mask is 1: use one of true, false"),
        ("lora_plus", {"ratio": "16"}, "option ratio is '16': use a number above 0"),
        ("gralora", {"k": 0}, "option k is 0: use a whole number of at least 1"),
        ("gralora", {"k": 3}, "k = 3 does not divide rank 4: use a k that does"),
        ("vera", {"d_initial": math.nan}, "option d_initial is nan: use a number other than 0"),
        ("adalora", {"final": 1.0}, "option final is 1.0: use a share of the steps, from 0 up to 1"),
        ("adalora", {"beta1": 1}, "option beta1 is 1: use a number between 0 and 1"),
        ("adalora", {"orthogonality": -1}, "option orthogonality is -1: use 0 or a number above 0"),
    ],
)
def test_impossible_options_are_one_line_before_anything_changes(name: str, extra: Any, message: str) -> None:
    base = make_base()
    before = structure(base)
    with pytest.raises(ValueError, match=f"^variant {name}: {message}$"):
        attached(name, base, extra=extra)
    assert structure(base) == before


# Starts that look at weights or draw.


def test_orthogonal_start_equals_pefts_and_its_product_is_zero_over_bf16_too() -> None:
    variant = attached("orthogonal", make_base(torch.bfloat16))
    for matrix in variant.matrices:
        a, b = factors(variant, matrix.name)
        assert (b @ a).abs().max() < 1e-6
        assert min(a.abs().max(), b.abs().max()) > 0.05
    theirs = make_base()
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="orthogonal"), theirs)
    layer = theirs.get_submodule(Q_PROJ)
    torch.manual_seed(3)
    layer.orthogonal_init("default")
    torch.manual_seed(3)
    from trainables.variants.orthogonal import orthogonal_factors

    a, b = orthogonal_factors(32, 32, 4)
    torch.testing.assert_close(a, layer.lora_A["default"].weight.detach())
    torch.testing.assert_close(b, layer.lora_B["default"].weight.detach())


def test_orthogonal_refuses_an_odd_rank() -> None:
    with pytest.raises(ValueError, match="variant orthogonal: rank 3 is odd: use an even rank"):
        attached("orthogonal", rank=3)


def test_mica_trains_a_against_pefts_minor_directions() -> None:
    theirs = make_base()
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="mica"), theirs)
    expected = theirs.get_submodule(Q_PROJ).lora_B["default"].weight
    variant = attached("mica")
    train(variant, make_batches(), 3)
    a, b = factors(variant)
    torch.testing.assert_close(b @ b.T, expected @ expected.T, atol=1e-5, rtol=0)
    assert a.abs().max() > 0


@pytest.mark.parametrize("name", ["mica", "lora_fa"])
def test_frozen_factor_comes_from_the_saved_state_and_not_from_this_machine(name: str) -> None:
    first, batch = attached(name, seed=1), make_batches()[0]
    train(first, make_batches(), 3)
    state = first.state()
    if name == "mica":  # what another linear algebra library might have found
        for key in [key for key in state if key.endswith("frozen_B")]:
            state[key] = -state[key]
            trained = key.replace("frozen_B", "lora_A.default.weight")
            state[trained] = -state[trained]
    second = attached(name, seed=2)
    second.load_state(state)
    assert (outputs(first.module, batch) - outputs(second.module, batch)).abs().max() < 1e-5


# Rates and optimizers.


def test_lora_plus_groups_have_the_ratio_as_pefts_helper_makes_them() -> None:
    from peft.optimizers import create_loraplus_optimizer

    variant = attached("lora_plus", extra={"ratio": 4}, weight_decay=0.1)
    slow, fast = variant.make_optimizer().param_groups
    assert fast["lr"] == 4 * slow["lr"] == 4 * 5e-3
    assert slow["weight_decay"] == fast["weight_decay"] == 0.1
    theirs = create_loraplus_optimizer(variant.module, torch.optim.AdamW, lr=5e-3, loraplus_lr_ratio=4)
    for mine, group in ((slow, theirs.param_groups[0]), (fast, theirs.param_groups[2])):
        assert {id(p) for p in mine["params"]} == {id(p) for p in group["params"]}
        assert mine["lr"] == group["lr"]
    assert attached("lora_plus").make_optimizer().param_groups[1]["lr"] == 16 * 5e-3


def test_lora_fa_moves_b_along_the_projected_gradient_and_leaves_a() -> None:
    variant = attached("lora_fa")
    a, b = variant.factors(Q_PROJ)
    before = a.detach().clone()
    variant.module(**make_batches()[0]).loss.backward()
    expected = b.grad @ torch.linalg.inv(a @ a.T).detach() / 2.0**2
    optimizer = variant.make_optimizer()
    optimizer.step()
    moment = optimizer.state[f"{Q_PROJ}.lora"]["exp_avg_B"]
    torch.testing.assert_close(moment / 0.1, expected, rtol=0.05, atol=0.02 * float(expected.abs().max()))
    assert torch.equal(a, before) and a.grad is None
    assert b.abs().max() > 0


# Other architectures.


def test_gralora_refuses_a_k_that_does_not_divide_a_matrix() -> None:
    with pytest.raises(
        ValueError, match=r"variant gralora: k = 3 does not divide the sides of .*q_proj \(32 x 32\): use a k that does"
    ):
        attached("gralora", rank=6, extra={"k": 3})


def test_gralora_as_plain_lora_has_k_times_the_rank_and_pefts_update() -> None:
    variant = attached("gralora", rank=8, extra={"k": 4})
    train(variant, make_batches(), 3)
    plain = variant.to_lora()
    for matrix in variant.matrices:
        assert plain.rank(matrix.name) == 32
        expected = variant.layer(matrix.name).get_delta_weight("default")
        torch.testing.assert_close(plain.delta(matrix.name), expected.detach(), atol=1e-6, rtol=1e-4)
    with_one_block = torch.randn(1, 6, 2), torch.randn(1, 2, 5)
    a, b = grid_to_lora(*with_one_block)
    torch.testing.assert_close(b @ a, (with_one_block[0][0] @ with_one_block[1][0]).T)


def test_vera_shares_bases_drawn_from_the_seed() -> None:
    variant, other = attached("vera", seed=1, extra={"d_initial": 0.3}), attached("vera", seed=2)
    bases = {id(variant.layer(matrix.name).vera_A["default"]) for matrix in variant.matrices}
    assert len(bases) == 1
    assert not torch.equal(variant.layer(Q_PROJ).vera_A["default"], other.layer(Q_PROJ).vera_A["default"])
    assert variant.layer(Q_PROJ).vera_lambda_d["default"].tolist() == pytest.approx([0.3] * 4)


def test_vera_may_have_more_rank_than_a_matrix_and_is_plain_lora() -> None:
    variant = attached("vera", rank=40, learning_rate=5e-2)
    train(variant, make_batches(), 3)
    plain = variant.to_lora()
    for matrix in variant.matrices:
        expected = variant.layer(matrix.name).get_delta_weight("default").detach()
        torch.testing.assert_close(plain.delta(matrix.name), expected, atol=1e-6, rtol=1e-4)


def test_miss_as_plain_lora_with_a_rank_that_does_not_divide_the_inputs() -> None:
    variant, batch = attached("miss", rank=5), make_batches()[0]
    train(variant, make_batches(), 3)
    merged = variant.merge_into(make_base())
    assert (outputs(merged, batch) - outputs(variant.module, batch)).abs().max() < 1e-4
    assert {variant.to_lora().rank(matrix.name) for matrix in variant.matrices} == {5}


def test_miss_refuses_transposed_matrices() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    base = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4, n_positions=32))
    with pytest.raises(ValueError, match=r"variant miss: transformer.h.0.attn.c_attn is stored transposed"):
        attached("miss", base)


def test_randlora_folder_holds_the_bases_and_merging_rounds_once(tmp_path: Path) -> None:
    variant = attached("randlora", make_base(torch.bfloat16))
    train(variant, make_batches(), 4)
    folder = variant.save_adapter(tmp_path, "base")
    tensors = load_file(folder / "adapter_model.safetensors")
    torch.testing.assert_close(tensors["base_model.randlora_A"], variant.layer(Q_PROJ).randlora_A["default"])
    delta = variant.layer(Q_PROJ).get_delta_weight("default").detach()
    exact = make_base(torch.bfloat16).get_submodule(Q_PROJ).weight.float() + delta
    merged = variant.merge_into(make_base(torch.bfloat16)).get_submodule(Q_PROJ).weight
    assert torch.equal(merged, exact.to(torch.bfloat16))


# AdaLoRA.


def values(variant: Any) -> torch.Tensor:
    return torch.cat([variant.layer(matrix.name).lora_E["default"].detach() for matrix in variant.matrices])


@pytest.mark.parametrize("final", [0.0, 0.5])
def test_adalora_prunes_to_its_budget_and_stays_there(final: float) -> None:
    variant = attached("adalora", steps=10, learning_rate=5e-2, extra={"final": final})
    count = len(variant.matrices)
    train(variant, make_batches(), 1)
    assert int((values(variant) != 0).sum()) == 6 * count  # warm-up: q = 6
    train(variant, make_batches(), 9, first_step=1)
    kept = values(variant) != 0
    assert int(kept.sum()) == 4 * count
    ranks = [int(part.sum()) for part in kept.view(count, 6)]
    assert len(set(ranks)) > 1
    plain = variant.to_lora()
    assert [plain.rank(m.name) if m.name in plain.factors else 0 for m in variant.matrices] == ranks


def test_adalora_saved_after_pruning_and_resumed_equals_an_uninterrupted_run() -> None:
    batches, base = make_batches(), make_base()
    whole = attached("adalora", steps=10, learning_rate=5e-2)
    train(whole, batches, 10)
    first = attached("adalora", base, steps=10, learning_rate=5e-2)
    optimizer = first.make_optimizer()
    train(first, batches, 7, optimizer)
    saved, moments = first.state(), copy.deepcopy(optimizer.state_dict())
    first.detach()
    second = attached("adalora", base, steps=10, learning_rate=5e-2)
    second.load_state(saved)
    optimizer = second.make_optimizer()
    optimizer.load_state_dict(moments)
    train(second, batches, 3, optimizer, first_step=7)
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in whole.state().items())
    assert torch.equal(values(whole) == 0, values(second) == 0)


def test_adalora_scores_the_weights_that_the_gradients_belong_to() -> None:
    variant = attached("adalora", steps=10, learning_rate=5e-2, extra={"beta1": 0.5})
    weight = variant.layer(Q_PROJ).lora_A["default"]
    before = weight.detach().clone()
    (variant.module(**make_batches()[0]).loss + variant.extra_loss()).backward()
    variant.after_backward(0)
    state = variant.state()
    torch.testing.assert_close(state[f"{Q_PROJ}.lora_A.default.sensitivity"], 0.5 * (before * weight.grad).abs())


def test_adalora_extra_loss_is_pefts() -> None:
    batch = make_batches()[0]
    variant = attached("adalora", extra={"orthogonality": 0.3}, placement="q_proj")
    config = AdaLoraConfig(init_r=6, target_r=4, total_step=10, target_modules=["q_proj"], orth_reg_weight=0.3)
    theirs = get_peft_model(make_base(), config)
    for matrix in variant.matrices:
        layer = theirs.base_model.model.get_submodule(matrix.name)
        for part in ("lora_A", "lora_B"):
            getattr(layer, part)["default"].data.copy_(getattr(variant.layer(matrix.name), part)["default"])
    # Not through PeftModel: without a task type it goes past the tuner's forward, and the penalty with it.
    expected = theirs.base_model(**batch).loss - variant.module(**batch).loss
    torch.testing.assert_close(variant.extra_loss(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 100])
def test_adalora_schedule_leaves_room_to_prune_in_runs_of_any_length(steps: int) -> None:
    for warmup, final in ((0.12, 0.5), (0.0, 0.0), (0.9, 0.9)):
        first, last = schedule(steps, warmup, final)
        assert 0 <= first < last <= steps
    variant = attached("adalora", steps=steps, learning_rate=5e-2, placement="q_proj")
    if steps <= 5:
        train(variant, make_batches(), steps)
        assert int((values(variant) != 0).sum()) == 4 * len(variant.matrices)
    assert first_rank(5) == 8
