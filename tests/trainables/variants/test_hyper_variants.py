"""What the variants with hypernetworks promise beyond the common contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.matrices import find_matrices
from trainables.variants.core.tiny import attached, make_base, make_batches, outputs, train

NAMES = ["hyper_adalora", "hyper_dora", "hyper_dylora", "hyper_lora"]
UP = "model.layers.0.mlp.up_proj"  # 48 x 32
PAPER = {"preset": "paper", "hidden": 24}


def triplets(variant: Any, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """P `(m, q)`, sigma `(q,)`, Q `(q, n)` of one matrix, clones."""
    layer = variant.layers[name]
    return layer.p.detach().clone(), layer.sigma.detach().clone(), layer.q.detach().T.clone()


def kept_of(variant: Any) -> dict[str, Tensor]:
    return dict(zip(variant.layers, variant.kept.clone(), strict=True))


@pytest.mark.parametrize("extra", [{}, PAPER], ids=["default", "paper"])
def test_pruning_reaches_exactly_the_budget_and_export_drops_the_rest(extra: dict[str, Any]) -> None:
    variant = attached("hyper_adalora", rank=2, steps=8, extra=extra)
    assert int(variant.kept.sum()) == 14 * 3
    train(variant, make_batches(), 8)
    assert int(variant.kept.sum()) == 14 * 2
    plain = variant.to_lora()
    assert sum(plain.rank(name) for name in plain.factors) == 14 * 2
    base, batch = make_base(), make_batches()[0]
    with torch.no_grad():
        for name in plain.factors:
            base.get_submodule(name).weight += plain.delta(name)
    assert (outputs(base, batch) - outputs(variant.module, batch)).abs().max() < 1e-4


@pytest.mark.parametrize("extra", [{}, PAPER], ids=["default", "paper"])
def test_a_pruned_direction_is_not_moved(extra: dict[str, Any]) -> None:
    variant = attached("hyper_adalora", rank=2, steps=20, extra={**extra, "final": 17, "warmup": 1, "interval": 1})
    optimizer = variant.make_optimizer()
    train(variant, make_batches(), 4, optimizer)
    pruned = {name: ~kept for name, kept in kept_of(variant).items()}
    assert 0 < sum(int(mask.sum()) for mask in pruned.values()) == 14
    before = {name: triplets(variant, name) for name in pruned}
    train(variant, make_batches(), 4, optimizer, first_step=4)
    for name, mask in pruned.items():
        (p, sigma, q), (p0, _, q0) = triplets(variant, name), before[name]
        assert not sigma[mask].any()
        assert torch.equal(p[:, mask], p0[:, mask]) and torch.equal(q[mask], q0[mask])
        assert (~mask).sum() == 0 or not torch.equal(p[:, ~mask], p0[:, ~mask])


def test_scores_are_those_of_the_dense_gradient() -> None:
    variant = attached("hyper_adalora", rank=2, steps=10, extra={"smoothing": 0.0, "orthogonality": 0.0})
    batches = make_batches(1)
    optimizer = variant.make_optimizer()
    train(variant, batches, 2, optimizer)
    variant.before_step(2)
    variant.module(**batches[0]).loss.backward()
    variant.after_backward(2)
    # dL/dW of a base with the same update in its weights; dL/dsigma_j = s p_j^T (dL/dW) q_j.
    base = make_base()
    for name, layer in variant.layers.items():
        p, sigma, q = triplets(variant, name)
        base.get_submodule(name).weight.data += layer.scale * p @ torch.diag(sigma) @ q
    base(**batches[0]).loss.backward()
    for index, (name, layer) in enumerate(variant.layers.items()):
        p, sigma, q = triplets(variant, name)
        gradient = layer.scale * torch.diag(p.T @ base.get_submodule(name).weight.grad @ q.T)
        expected = (sigma * gradient).abs()
        torch.testing.assert_close(variant.scores[index], expected, rtol=1e-3, atol=1e-7)
        assert expected.max() > 0


def test_the_penalty_is_the_mean_of_squared_distances_from_orthonormality() -> None:
    variant = attached("hyper_adalora", rank=2, extra={"orthogonality": 0.3, "preset": "paper", "hidden": 24})
    total = 0.0
    for name in variant.layers:
        p, _, q = (tensor.double() for tensor in triplets(variant, name))
        total += float(torch.linalg.norm(p.T @ p - torch.eye(3)) ** 2 + torch.linalg.norm(q @ q.T - torch.eye(3)) ** 2)
    assert variant.extra_loss().item() == pytest.approx(0.3 * total / 14, rel=1e-5)
    assert attached("hyper_adalora", rank=2).extra_loss().item() == pytest.approx(0.0, abs=1e-9)
    assert attached("hyper_adalora", extra={"orthogonality": 0}).extra_loss() is None


def test_hyper_dora_keeps_its_norms_without_forming_the_product() -> None:
    variant = attached("hyper_dora")
    train(variant, make_batches(), 3)
    layer = variant.layers[UP]
    weight = make_base().get_submodule(UP).weight.detach() + layer.scale * (layer.b @ layer.a.T).detach()
    torch.testing.assert_close(layer.norms, torch.linalg.norm(weight, dim=1), rtol=1e-5, atol=1e-6)
    dense = (layer.magnitude / layer.norms)[:, None] * weight
    x = torch.randn(7, 32)
    torch.testing.assert_close(layer(x), x @ dense.T, rtol=1e-4, atol=1e-5)
    assert not torch.equal(layer.magnitude, layer.norms)


def test_hyper_dylora_moves_only_directions_whose_gradient_it_knows() -> None:
    variant = attached("hyper_dylora", steps=12)
    optimizer = variant.make_optimizer()
    from trainables.variants.dylora import draw

    for step in range(6):
        before, b_before = variant.layers[UP].a.detach().clone(), variant.layers[UP].b.detach().clone()
        train(variant, make_batches(), 1, optimizer, first_step=step)
        known = draw(0, step - 1, 1, 4)
        assert torch.equal(variant.layers[UP].a[:, known:], before[:, known:])
        # B, because A has no gradient while B is zero.
        assert step == 0 or not torch.equal(variant.layers[UP].b[:, :known], b_before[:, :known])
    assert variant.layers[UP].active == draw(0, 5, 1, 4)
    assert variant.to_lora(2).rank(UP) == 2 and variant.to_lora(2).scales[UP] == 4.0
    with pytest.raises(ValueError, match="rank 5 to export"):
        variant.to_lora(5)


@pytest.mark.parametrize("name", NAMES)
def test_costs_tell_the_hypernetworks_from_the_adapter(name: str) -> None:
    variant = attached(name)
    q = 6 if name == "hyper_adalora" else 4
    shapes = [(m.rows, m.columns) for m in find_matrices(make_base())]
    adapter = sum(q * (m + n) for m, n in shapes)
    adapter += {"hyper_adalora": q * len(shapes), "hyper_dora": sum(m for m, _ in shapes)}.get(name, 0)
    networks = sum(p.numel() for p in variant.module.hypernetworks.parameters())
    train(variant, make_batches(), 1)
    costs = variant.costs()
    assert (costs.adapter_parameters, costs.hypernetwork_parameters) == (adapter, networks)
    trained_apart = sum(m for m, _ in shapes) if name == "hyper_dora" else 0
    assert variant.parameter_count() == networks + trained_apart
    generated = adapter - trained_apart
    assert costs.moment_mb == pytest.approx(3 * 4 * generated / 1e6)
    assert costs.hypernetwork_s > 0 and costs.hypernetwork_gmac > 0


def test_a_plain_variant_has_no_hypernetwork_to_pay_for() -> None:
    variant = attached("lora")
    costs = variant.costs()
    assert costs.adapter_parameters == variant.parameter_count()
    assert costs.hypernetwork_parameters == costs.hypernetwork_s == costs.moment_mb == 0


def test_one_network_of_each_kind_serves_all_matrices_and_is_gone_after_detach() -> None:
    base = make_base()
    variant = attached("hyper_adalora", base)
    assert set(dict(variant.module.hypernetworks.named_children())) == {"p", "sigma", "q"}
    variant.detach()
    assert not hasattr(base, "hypernetworks")


def test_the_papers_networks_have_its_sizes_and_the_configurations_rate() -> None:
    variant = attached("hyper_adalora", rank=3, learning_rate=1e-5, extra={"preset": "paper"})
    body = 4 * 312**2 + 3 * 312 + 2 * 312 * 1200 + 1200 + 312 + 4 * 312
    ends = (5 * 312 + 312) + 2 * 312 + (312 * 5 + 5)  # in, layer norm, out: q = 5
    assert variant.shared_parameters() == 3 * (body + ends)
    assert [group["lr"] for group in variant.param_groups()] == [1e-5, 1e-5]


@pytest.mark.parametrize("kind", ["bert", "mlp", "cnn"])
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_every_network_trains_in_both_forms(kind: str, preset: str) -> None:
    extra = {"hypernet": kind, "preset": preset, "hidden": 24}
    variant = attached("hyper_lora", rank=2, steps=4, learning_rate=1e-3, extra=extra)
    before, networks = variant.state(), [p.detach().clone() for p in variant.networks()]
    losses = train(variant, make_batches(1), 4)
    assert all(torch.tensor(losses).isfinite())
    assert not torch.equal(variant.state()["b.48.value"], before["b.48.value"])
    # The gradients reach the networks: without them AdamW leaves all as it was, as there is no decay.
    moved = [not torch.equal(p, old) for p, old in zip(variant.networks(), networks, strict=True)]
    assert sum(moved) > len(moved) / 2


def test_at_rate_zero_the_network_stays_at_its_start() -> None:
    variant = attached("hyper_lora", extra={"network_rate": 0})
    before = {name: p.detach().clone() for name, p in variant.module.hypernetworks.named_parameters()}
    losses = train(variant, make_batches(1), 6)
    assert losses[-1] < losses[0]
    for name, p in variant.module.hypernetworks.named_parameters():
        assert torch.equal(p, before[name])
    costs, learning = variant.costs(), attached("hyper_lora").costs()
    assert costs.hypernetwork_parameters == costs.hypernetwork_gmac == 0
    assert costs.adapter_parameters == learning.adapter_parameters and learning.hypernetwork_gmac > 0


@pytest.mark.parametrize(
    ("name", "extra", "message"),
    [
        ("hyper_lora", {"preset": "mine"}, "option preset is 'mine': use one of default, paper"),
        ("hyper_lora", {"hypernet": "lstm"}, "option hypernet is 'lstm': use one of bert, mlp, cnn"),
        ("hyper_lora", {"hidden": 30, "preset": "paper"}, "option hidden is 30, which the 12 attention heads do not"),
        ("hyper_lora", {"network_rate": -1}, "option network_rate is -1"),
        ("hyper_adalora", {"warmup": -1}, "option warmup is -1"),
        ("hyper_adalora", {"smoothing": 1}, "option smoothing is 1"),
        ("hyper_dylora", {"r_min": 9}, "option r_min is 9"),
    ],
)
def test_impossible_options_are_refused(name: str, extra: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attached(name, extra=extra)


def test_ranks_above_the_smaller_side_start_with_columns_of_unit_length() -> None:
    variant = attached("hyper_adalora", rank=16)  # q = 24 on k_proj, 16 x 32
    p, _, _ = triplets(variant, "model.layers.0.self_attn.k_proj")
    torch.testing.assert_close(torch.linalg.norm(p, dim=0), torch.ones(24))


def test_the_rate_follows_the_optimizers_schedule() -> None:
    variant = attached("hyper_lora", learning_rate=5e-3)
    optimizer = variant.make_optimizer()
    train(variant, make_batches(1), 1, optimizer)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = variant.layers[UP].b.detach().clone()
    train(variant, make_batches(1), 2, optimizer, first_step=1)
    assert torch.equal(variant.layers[UP].b, before)


def test_config_is_checked_without_weights() -> None:
    from trainables.variants import get_variant

    get_variant("hyper_adalora").check(make_base().to("meta"), AdapterConfig(rank=4, alpha=8.0))
