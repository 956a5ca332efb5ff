"""Each variant of our own against its formula, computed densely and apart from the implementation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from trainables.variants import get_variant
from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.tiny import make_base, make_batches, train
from trainables.variants.mora import Mora

Q_PROJ = "model.layers.0.self_attn.q_proj"  # 32 x 32
K_PROJ = "model.layers.0.self_attn.k_proj"  # 16 x 32
UP = "model.layers.0.mlp.up_proj"  # 48 x 32
DOWN = "model.layers.0.mlp.down_proj"  # 32 x 48


def attached(name: str, dtype: torch.dtype = torch.float32, **settings: Any) -> Variant:
    variant = get_variant(name)()
    config = AdapterConfig(**({"rank": 4, "alpha": 8.0, "learning_rate": 5e-3, "seed": 3} | settings))
    variant.attach(make_base(dtype), config, make_batches())
    return variant


def original(name: str) -> np.ndarray:
    return make_base().get_submodule(name).weight.detach().double().numpy()


def dense(variant: Variant, name: str) -> np.ndarray:
    """The whole adapted matrix `(m, n)`, from what the layer does to unit vectors."""
    layer = variant.module.get_submodule(name)
    columns = original(name).shape[1]
    with torch.no_grad():
        return layer(torch.eye(columns)).T.double().numpy()


def randomise(*parameters: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


@pytest.mark.parametrize("name", [Q_PROJ, K_PROJ, UP])
def test_milora_adapter_is_the_minor_part_and_the_base_keeps_the_principal_one(name: str) -> None:
    variant = attached("milora")
    u, s, vt = np.linalg.svd(original(name), full_matrices=False)
    layer = variant.module.get_submodule(name)
    a, b = (f["default"].weight.detach().double().numpy() for f in (layer.lora_A, layer.lora_B))
    np.testing.assert_allclose(2.0 * b @ a, (u[:, -4:] * s[-4:]) @ vt[-4:], atol=2e-6)
    np.testing.assert_allclose(layer.base_layer.weight.detach(), (u[:, :-4] * s[:-4]) @ vt[:-4], atol=2e-6)
    np.testing.assert_allclose(a @ a.T, np.diag(s[-4:] / 2), atol=1e-6)  # S^(1/2) in each factor
    np.testing.assert_allclose(b.T @ b, np.diag(s[-4:] / 2), atol=1e-6)


def test_init_ab_takes_both_random_factors_out_of_the_base() -> None:
    layer = attached("init_ab").module.get_submodule(UP)
    a, b = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
    assert 0.5 / math.sqrt(32) < a.abs().max() <= 1 / math.sqrt(32)
    assert 0.5 / math.sqrt(48) < b.abs().max() <= 1 / math.sqrt(48)
    expected = original(UP) - 2.0 * b.double().numpy() @ a.double().numpy()
    np.testing.assert_allclose(layer.base_layer.weight.detach(), expected, atol=1e-6)


def test_init_ab_plus_leaves_the_base_alone_and_exports_the_noise() -> None:
    variant = attached("init_ab", extra={"plus": True})
    layer = variant.module.get_submodule(UP)
    np.testing.assert_array_equal(layer.base_layer.weight.detach().double(), original(UP))
    a, b = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
    noise = 2.0 * b.double().numpy() @ a.double().numpy()
    assert np.abs(noise).max() > 1e-3
    np.testing.assert_allclose(dense(variant, UP), original(UP) + noise, atol=1e-5)
    plain = variant.to_lora()
    assert plain is not None and plain.rank(UP) == 4
    np.testing.assert_allclose(plain.delta(UP), noise, atol=1e-6)


@pytest.mark.parametrize("name", [K_PROJ, DOWN])
def test_lora_xs_core_acts_between_the_top_singular_vectors(name: str) -> None:
    variant = attached("lora_xs", extra={"niter": 60})
    layer = variant.module.get_submodule(name)
    assert 0 < layer.core.abs().max() < 1e-4
    randomise(layer.core)
    u, s, vt = np.linalg.svd(original(name), full_matrices=False)
    # Singular vectors are known up to signs: compare with those of the layer's own A.
    signs = np.sign(np.sum(layer.a.double().numpy() * vt[:4], axis=1))
    u, vt = u[:, :4] * signs, vt[:4] * signs[:, None]
    expected = original(name) + 2.0 * (u * s[:4]) @ layer.core.detach().double().numpy() @ vt
    np.testing.assert_allclose(dense(variant, name), expected, atol=2e-4)


@pytest.mark.parametrize("minis", [1, 2, 4])
def test_melora_update_is_block_diagonal(minis: int) -> None:
    variant = attached("melora", extra={"minis": minis})
    layer = variant.module.get_submodule(UP)
    randomise(layer.a, layer.b)
    expected = original(UP)
    height, width = 48 // minis, 32 // minis
    for i in range(minis):
        block = layer.b[i].detach().double().numpy() @ layer.a[i].detach().double().numpy()
        expected[i * height : (i + 1) * height, i * width : (i + 1) * width] += 2.0 * block
    np.testing.assert_allclose(dense(variant, UP), expected, atol=1e-5)
    plain = variant.to_lora()
    assert plain is not None and plain.rank(UP) == 4 * minis
    assert np.linalg.matrix_rank(plain.delta(UP)) == 4 * minis


@pytest.mark.parametrize(("option", "message"), [(3, "does not divide .*q_proj"), (0, "at least 1")])
def test_melora_refuses_blocks_that_do_not_fit(option: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"variant melora: .*{message}"):
        attached("melora", extra={"minis": option})


@pytest.mark.parametrize("name", [Q_PROJ, K_PROJ, UP, DOWN])
def test_mora_sharing_repeats_the_square_matrix_over_the_weight(name: str) -> None:
    variant = attached("mora", extra={"kind": "sharing"})
    layer = variant.module.get_submodule(name)
    randomise(layer.square)
    square, expected = layer.square.detach().double().numpy(), original(name)
    size = len(square)
    for i in range(expected.shape[0]):
        for j in range(expected.shape[1]):
            expected[i, j] += 2.0 * square[i % size, j % size]
    np.testing.assert_allclose(dense(variant, name), expected, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("name", [Q_PROJ, K_PROJ, UP, DOWN])
def test_mora_rotation_puts_turned_copies_on_the_diagonal(name: str, rank: int) -> None:
    variant = attached("mora", rank=rank, alpha=2.0 * rank, extra={"kind": "rotation"})
    layer = variant.module.get_submodule(name)
    randomise(layer.square)
    square, expected = layer.square.detach().double().numpy(), original(name)
    (rows, columns), size = expected.shape, len(square)
    assert size == Mora.matrix_parameters(rows, columns, rank) ** 0.5
    half, groups = size // 2, -(-columns // size)
    update = np.zeros((groups * size, groups * size))
    for g in range(groups):
        turn = np.zeros((size, size))
        for k in range(half):
            angle = g * 10000.0 ** (-2 * k / size)
            turn[k, k] = turn[k + half, k + half] = math.cos(angle)
            turn[k, k + half], turn[k + half, k] = -math.sin(angle), math.sin(angle)
        update[g * size : (g + 1) * size, g * size : (g + 1) * size] = square @ turn
    tall = np.concatenate([update] * (-(-rows // len(update))))
    np.testing.assert_allclose(dense(variant, name), expected + 2.0 * tall[:rows, :columns], atol=1e-5)


def test_mora_picks_its_kind_by_the_rank() -> None:
    base = make_base()
    for module in (base.model.layers[0].mlp, base.model.layers[1].mlp):
        module.up_proj = torch.nn.Linear(128, 128, bias=False)
    for rank, rotates in ((8, True), (128, False)):
        variant = get_variant("mora")()
        variant.attach(base, AdapterConfig(rank=rank, alpha=rank, placement="up_proj"))
        assert variant.module.get_submodule(UP).rotate == rotates
        variant.detach()


@pytest.mark.parametrize("frozen", [False, True])
def test_dylora_step_uses_and_moves_only_what_its_rank_covers(frozen: bool) -> None:
    variant: Any = attached("dylora", extra={"frozen": frozen})
    layer = variant.module.get_submodule(UP)
    randomise(layer.a, layer.b)
    optimizer, batches = variant.make_optimizer(), make_batches()
    drawn = set()
    for step in range(24):
        b = variant.draw(step)
        drawn.add(b)
        a0, b0 = layer.a.detach().clone(), layer.b.detach().clone()
        variant.before_step(step)
        variant.module.train()
        cut = original(UP) + 8.0 / b * b0[:, :b].double().numpy() @ a0[:b].double().numpy()
        np.testing.assert_allclose(dense(variant, UP), cut, atol=1e-5)
        train(variant, batches, 1, optimizer, first_step=step)
        moved_a = [k for k in range(4) if not torch.equal(layer.a[k], a0[k])]
        moved_b = [k for k in range(4) if not torch.equal(layer.b[:, k], b0[:, k])]
        assert moved_a == moved_b == ([b - 1] if frozen else list(range(b)))
    assert drawn == {1, 2, 3, 4}


def test_dylora_exports_any_rank() -> None:
    variant: Any = attached("dylora", extra={"r_min": 2})
    assert {variant.draw(step) for step in range(40)} == {2, 3, 4}
    layer = variant.module.get_submodule(UP)
    randomise(layer.a, layer.b)
    for b in (1, 3, 4):
        expected = 8.0 / b * layer.b[:, :b].detach().double().numpy() @ layer.a[:b].detach().double().numpy()
        plain = variant.to_lora(b)
        assert plain.rank(UP) == b
        np.testing.assert_allclose(plain.delta(UP), expected, atol=1e-5)
    np.testing.assert_allclose(variant.to_lora().delta(UP), expected, atol=1e-5)
    with pytest.raises(ValueError, match="variant dylora: rank 5 to export: use one from 1 to 4"):
        variant.to_lora(5)


def test_full_takes_adamws_steps_on_the_weights_themselves() -> None:
    variant = attached("full", weight_decay=0.1)
    twin = make_base()
    matrices = [twin.get_submodule(m.name).weight for m in variant.matrices]
    twin.requires_grad_(False)
    for weight in matrices:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(matrices, lr=5e-3, weight_decay=0.1)
    for batch in make_batches(3):
        twin(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    train(variant, make_batches(3), 3)
    for matrix, weight in zip(variant.matrices, matrices, strict=True):
        torch.testing.assert_close(variant.module.get_submodule(matrix.name).weight, weight)


def test_full_keeps_steps_that_bf16_would_lose() -> None:
    variant = attached("full", dtype=torch.bfloat16, learning_rate=1e-6)
    before = variant.module.get_submodule(UP).weight.detach().clone()
    train(variant, make_batches(), 5)
    layer = variant.module.get_submodule(UP)
    moved = (layer.weight - before).abs()
    assert 0 < moved.max() < 1e-4
    same = layer.weight.bfloat16() == before.bfloat16()
    assert same.float().mean() > 0.9  # too small for the base's type, but for weights next to zero
    assert torch.equal(variant.tuned_weights()[UP], layer.weight)
    merged = variant.merge_into(make_base())
    assert torch.equal(merged.get_submodule(UP).weight, layer.weight)


@pytest.mark.parametrize(
    ("name", "extra", "message"),
    [
        ("mora", {"kind": "both"}, "option kind is 'both': use one of auto, sharing, rotation"),
        ("init_ab", {"plus": 1}, "option plus is 1: use one of false, true"),
        ("dylora", {"r_min": 5}, "option r_min is 5: use a whole number from 1 to 4"),
        ("dylora", {"frozen": "yes"}, "option frozen is 'yes': use one of false, true"),
        ("pissa", {"niter": -1}, "option niter is -1: use a whole number of at least 0"),
        ("lora_xs", {"sigma": 0}, "option sigma is 0: use a number above 0, up to 1"),
        ("loft", {"eps": "small"}, "option eps is 'small': use a number above 0, up to 1"),
    ],
)
def test_impossible_options_are_one_line_each(name: str, extra: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^variant {name}: {message}$"):
        attached(name, extra=extra)
