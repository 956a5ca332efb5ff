"""Starts that look at data do look at it, find what their papers say, and are an error where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, inject_adapter_in_model

from trainables.variants import get_variant
from trainables.variants.core import decompositions
from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.tiny import attached, make_base, make_batches, outputs, structure, train
from trainables.variants.eva import share_ranks

Q_PROJ = "model.layers.0.self_attn.q_proj"
DATA_DRIVEN = ("corda", "eva", "lora_ga")


def factors(variant: Variant, name: str = Q_PROJ) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = variant.factors(name)  # type: ignore[attr-defined]
    return a.detach(), b.detach()


def split(batch: dict[str, torch.Tensor], at: int) -> list[dict[str, torch.Tensor]]:
    return [{k: v[:at] for k, v in batch.items()}, {k: v[at:] for k, v in batch.items()}]


@pytest.mark.parametrize("name", DATA_DRIVEN)
def test_without_batches_there_is_an_error_and_not_plain_lora(name: str) -> None:
    base = make_base()
    before = structure(base)
    for batches in (None, []):
        with pytest.raises(ValueError, match=f"^variant {name} starts from data: give attach the first batch"):
            get_variant(name)().attach(base, AdapterConfig(rank=4, alpha=8), batches)
    assert structure(base) == before


@pytest.mark.parametrize("name", DATA_DRIVEN)
def test_other_batches_give_another_start(name: str) -> None:
    one, same, other = (
        factors(attached(name, batches=make_batches(seed=seed), extra={"rho": 1.0} if name == "eva" else {}))[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    # Not by sign or basis alone: the spaces that the rows span differ.
    overlap = torch.linalg.svdvals(torch.linalg.qr(one.T)[0].T @ torch.linalg.qr(other.T)[0])
    assert overlap.min() < 0.9


def test_lora_ga_starts_along_the_gradient_of_the_whole_batch() -> None:
    batches = make_batches(2)
    batches[0]["labels"] = batches[0]["labels"].masked_fill(torch.arange(12) < 7, -100)  # micro-batches weigh unalike
    variant = attached("lora_ga", batches=batches, extra={"gamma": 4})
    base = make_base()
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    base(**joined).loss.backward()
    u, _, vt = torch.linalg.svd(base.get_submodule(Q_PROJ).weight.grad)
    a, b = factors(variant)
    c = 32**0.25 / 4**0.5
    torch.testing.assert_close(a @ vt[:4].T @ (a @ vt[:4].T).T, c * c * torch.eye(4), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close((u[:, 4:8].T @ b).abs(), c * torch.eye(4), atol=1e-3, rtol=1e-3)
    residual = variant.layer(Q_PROJ).base_layer.weight
    torch.testing.assert_close(residual + 2.0 * b @ a, make_base().get_submodule(Q_PROJ).weight)


def test_lora_ga_of_more_than_half_the_rank_still_starts_at_the_pretrained_function() -> None:
    base, batch = make_base(), make_batches()[0]
    before = outputs(base, batch)
    variant = attached("lora_ga", base, rank=12)  # k_proj has 16 singular vectors, not 24
    assert (outputs(variant.module, batch) - before).abs().max() < 1e-5
    _, b = factors(variant, Q_PROJ.replace("q_proj", "k_proj"))
    torch.testing.assert_close(b.T @ b, torch.eye(12) * 16**0.5 / 16, atol=1e-5, rtol=1e-5)


def test_data_without_a_labelled_token_is_refused() -> None:
    batch = make_batches(1)[0]
    batch["labels"] = torch.full_like(batch["labels"], -100)
    with pytest.raises(ValueError, match=r"gives model.layers.0.self_attn.q_proj no gradient"):
        attached("lora_ga", batches=[batch])
    with pytest.raises(ValueError, match="the first batch has 0 tokens to look at, rank 4 needs one more"):
        attached("eva", batches=[batch])
    assert attached("eva", batches=[batch], extra={"label_mask": False}).parameter_count() > 0


@pytest.mark.parametrize("mode", ["ipm", "kpm"])
def test_corda_start_equals_pefts_with_batches_of_one_row(mode: str) -> None:
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import preprocess_corda

    batches = make_batches(2)
    theirs = make_base()
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "down_proj"],
        init_lora_weights="corda",
        corda_config=CordaConfig(corda_method=mode),  # type: ignore[arg-type]
    )

    def calibrate() -> None:
        for batch in batches:
            for row in batch["input_ids"]:
                theirs(input_ids=row[None])

    preprocess_corda(theirs, config, run_model=calibrate)
    inject_adapter_in_model(config, theirs)
    variant = attached("corda", batches=batches, placement=("q_proj", "down_proj"), extra={"mode": mode})
    for name in (Q_PROJ, "model.layers.1.mlp.down_proj"):
        layer = theirs.get_submodule(name)
        expected = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        a, b = factors(variant, name)
        torch.testing.assert_close(b @ a, expected, atol=2e-4, rtol=2e-3)
        torch.testing.assert_close(variant.layer(name).base_layer.weight, layer.base_layer.weight, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["corda", "eva"])
def test_padding_does_not_count(name: str) -> None:
    batch = make_batches(1)[0]
    padded = {key: torch.nn.functional.pad(value, (0, 5), value=0) for key, value in batch.items()}
    padded["labels"][:, 12:] = -100
    plain, other = (attached(name, batches=[b], extra={"label_mask": False} if name == "eva" else {})
                    for b in (batch, padded))  # fmt: skip
    assert plain.parameter_count() == other.parameter_count()
    for mine, theirs in zip(factors(plain), factors(other), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", DATA_DRIVEN)
def test_micro_batches_change_nothing_but_rounding(name: str) -> None:
    batch = make_batches(1, rows=16)[0]
    # One component per token at most is kept by an incremental PCA: enough of them make it exact.
    extra = {"rho": 8.0} if name == "eva" else {}
    whole, pieces = (attached(name, batches=b, extra=extra) for b in ([batch], split(batch, 5)))
    for matrix in whole.matrices:
        assert whole.matrix_rank(matrix.name) == pieces.matrix_rank(matrix.name)
    if name == "eva":
        (a, _), (a2, _) = factors(whole), factors(pieces)
        torch.testing.assert_close(a.T @ a, a2.T @ a2, atol=1e-3, rtol=1e-3)
    else:
        (a, b), (a2, b2) = factors(whole), factors(pieces)
        torch.testing.assert_close(b @ a, b2 @ a2, atol=1e-3, rtol=1e-3)


def test_eva_start_is_the_principal_components_of_the_inputs_at_least_as_well_as_pefts() -> None:
    from peft import EvaConfig, get_eva_state_dict

    batches = make_batches(3)
    seen: list[torch.Tensor] = []
    base = make_base()
    handle = base.get_submodule(Q_PROJ).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for batch in batches:
        outputs(base, batch)
    handle.remove()
    x = torch.cat(seen).flatten(0, 1)
    x = x - x.mean(dim=0)
    _, s, vt = torch.linalg.svd(x)
    variant = attached("eva", batches=batches, placement="q_proj", extra={"rho": 1.0})
    a, b = factors(variant)
    assert b.abs().max() == 0
    torch.testing.assert_close(a @ a.T, torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close((a[:2] @ vt[:2].T).abs(), torch.eye(2), atol=0.02, rtol=0)
    explained = (x @ a.T).square().sum()
    assert explained > 0.995 * s[:4].square().sum()

    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="eva", eva_config=EvaConfig(rho=1.0))
    theirs = get_eva_state_dict(make_base(), batches, peft_config=config, show_progress_bar=False)[Q_PROJ]
    assert explained > 0.999 * (x @ theirs.float().T).square().sum() > 0.95 * explained


def test_eva_shares_the_ranks_out_and_keeps_the_scale() -> None:
    variant = attached("eva")
    ranks = [variant.matrix_rank(matrix.name) for matrix in variant.matrices]
    assert sum(ranks) == 4 * len(ranks)
    assert len(set(ranks)) > 1 and max(ranks) <= 8
    plain = variant.to_lora()
    assert set(plain.factors) == {m.name for m, rank in zip(variant.matrices, ranks, strict=True) if rank}
    assert all(scale == pytest.approx(2.0) for scale in plain.scales.values())


def test_ranks_go_to_the_largest_shares_and_a_matrix_may_get_none() -> None:
    ratios = {"a": [0.5, 0.4, 0.1], "b": [0.3, 0.2, 0.2], "c": [0.05, 0.05]}
    assert share_ranks(ratios, 6) == {"a": 3, "b": 3, "c": 0}
    assert share_ranks(ratios, 4) == {"a": 2, "b": 2, "c": 0}


def test_eva_matrix_without_a_rank_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def starve(ratios: Any, budget: int) -> dict[str, int]:
        return {name: 0 if name == Q_PROJ else 2 for name in ratios}

    monkeypatch.setattr("trainables.variants.eva.share_ranks", starve)
    variant, batch = attached("eva"), make_batches()[0]
    assert type(variant.layer(Q_PROJ)) is torch.nn.Linear
    train(variant, make_batches(), 3)
    loaded = PeftModel.from_pretrained(make_base(), str(variant.save_adapter(tmp_path, "base")))
    assert (outputs(loaded, batch) - outputs(variant.module, batch)).abs().max() < 1e-4


@pytest.mark.parametrize("name", DATA_DRIVEN)
def test_a_start_is_kept_for_the_same_base_batch_and_rank(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(decompositions, "SMALLEST", 0)
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    monkeypatch.delenv(decompositions.SWITCH, raising=False)

    def kept() -> int:
        return sum(1 for _ in (tmp_path / "decompositions").glob("*.safetensors"))

    first = attached(name, batches=make_batches()).state()
    assert kept() == 1
    variant = get_variant(name)
    monkeypatch.setattr(variant, "_principal_components" if name == "eva" else "observe", None)
    again = attached(name, batches=make_batches()).state()
    assert all(torch.equal(first[key], again[key]) for key in first)
    monkeypatch.undo()
    monkeypatch.setattr(decompositions, "SMALLEST", 0)
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    monkeypatch.delenv(decompositions.SWITCH, raising=False)
    attached(name, batches=make_batches(seed=9))
    attached(name, batches=make_batches(), rank=2)
    assert kept() == 3
