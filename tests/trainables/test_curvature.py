"""Largest eigenvalues of block Hessians, against dense ones."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from trainables import curvature
from trainables.batching import IGNORE, collate
from trainables.curvature import (
    BlockHessians,
    Meter,
    OutOfMemory,
    choose_blocks,
    fixed_batch,
    lanczos,
    layer_of,
    spread,
)
from trainables.protocols import TrainSettings
from trainables.variants.core.matrices import select_matrices
from trainables.variants.core.snapshot import fingerprint
from trainables.variants.core.tiny import VOCABULARY, attached, make_base

QUERY = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]


def make_rows(count: int = 4, seed: int = 0) -> list[dict[str, list[int]]]:
    """Rows of different lengths, so that padding and masking count."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> list[int]:
        return torch.randint(0, VOCABULARY, (n,), generator=generator).tolist()

    return [{"prompt_ids": draw(3 + i), "response_ids": draw(2 + i % 3)} for i in range(count)]


def dense_hessian(module: nn.Module, block: list[nn.Parameter], rows: list[dict[str, list[int]]]) -> torch.Tensor:
    """H `(d, d)` in fp64 of the mean loss over completion tokens, by torch.autograd.functional.hessian."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    batch = collate(rows, 0)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([parameter.numel() for parameter in block])
        values = {names[id(p)]: part.view_as(p) for p, part in zip(block, parts, strict=True)}
        arguments = {**batch.inputs, "use_cache": False}
        logits = functional_call(module, values, kwargs=arguments).logits  # the whole of it, cut here
        logits = logits[:, -batch.labels.shape[1] - 1 : -1]
        return F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE)

    flat = torch.cat([parameter.detach().flatten() for parameter in block])
    return torch.autograd.functional.hessian(loss, flat).double()


class Toy(nn.Module):
    """The logit of the token 0 is sum_i w_i theta_i^2, all others are 0: at theta = 0, H = -2 w (1 - 1/V) by hand."""

    weights: torch.Tensor

    def __init__(self, weights: list[float], offset: float = 0.0) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(len(weights)))
        self.register_buffer("weights", torch.tensor(weights))
        self.offset = offset

    def forward(self, input_ids: torch.Tensor, logits_to_keep: torch.Tensor, **_: object) -> SimpleNamespace:
        first = (self.weights * self.theta**2).sum() + self.offset
        logits = torch.zeros(len(input_ids), len(logits_to_keep), 4)
        return SimpleNamespace(logits=logits + first * F.one_hot(torch.tensor(0), 4))


TOY_ROWS = [{"prompt_ids": [1, 2], "response_ids": [0, 0]}]
TOY_SLOPE = -2 * (1 - 1 / 4)


def toy(weights: list[float], **settings: float) -> BlockHessians:
    model = Toy(weights, **settings)
    return BlockHessians(model, {"all": [model.theta]}, TOY_ROWS, pad_id=0)


@pytest.mark.parametrize("name", ["lora", "init_ab", "pissa", "olora", "lora_ga", "dora", "melora", "lora_fa"])
def test_largest_eigenvalue_of_a_block_matches_the_dense_hessian(name: str) -> None:
    rows, base = make_rows(), make_base()
    before = fingerprint(base)
    variant = attached(name, base, rank=2, alpha=4.0)
    blocks = {matrix: variant.block(matrix) for matrix in QUERY}
    hessians = BlockHessians(variant.module, blocks, rows, pad_id=0, micro_batch_tokens=16)
    for matrix, block in blocks.items():
        expected = float(torch.linalg.eigvalsh(dense_hessian(variant.module, block, rows))[-1])
        found = hessians.largest(matrix, tolerance=1e-3)
        assert found.converged and found.value == pytest.approx(expected, rel=1e-3)
    variant.detach()
    assert fingerprint(base) == before


def test_products_of_blocks_that_share_a_forward_pass_are_those_of_each_alone() -> None:
    rows, variant = make_rows(), attached("init_ab", rank=2, alpha=4.0)
    blocks = {matrix: variant.block(matrix) for matrix in QUERY}
    shared = BlockHessians(variant.module, blocks, rows, pad_id=0)
    for matrix, block in blocks.items():
        alone = BlockHessians(variant.module, {matrix: block}, rows, pad_id=0)
        vector = torch.randn(alone.size(matrix), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(shared.product(matrix, vector), alone.product(matrix, vector))


def test_micro_batches_and_padding_leave_loss_and_products_alone() -> None:
    rows, variant = make_rows(), attached("lora", rank=2, alpha=4.0)
    blocks = {QUERY[0]: variant.block(QUERY[0])}
    whole, pieces = (
        BlockHessians(variant.module, blocks, rows, pad_id=0, micro_batch_tokens=size) for size in (4096, 1)
    )
    assert pieces.loss == pytest.approx(whole.loss, rel=1e-5)
    vector = torch.ones(whole.size(QUERY[0]))
    torch.testing.assert_close(pieces.product(QUERY[0], vector), whole.product(QUERY[0], vector), rtol=1e-3, atol=1e-6)


def test_prompt_tokens_carry_no_loss() -> None:
    variant = attached("lora", rank=2)
    rows = make_rows(1)
    blocks = {QUERY[0]: variant.block(QUERY[0])}
    hessians = BlockHessians(variant.module, blocks, rows, pad_id=0)
    ids = torch.tensor([rows[0]["prompt_ids"] + rows[0]["response_ids"]])
    with torch.no_grad():
        logits = variant.module(input_ids=ids).logits[0]
    start = len(rows[0]["prompt_ids"])
    assert hessians.loss == pytest.approx(float(F.cross_entropy(logits[start - 1 : -1], ids[0, start:])), rel=1e-5)


def test_algebraically_largest_wins_where_the_largest_in_magnitude_is_negative() -> None:
    found = toy([5.0, 3.0, -1.0]).largest("all", tolerance=1e-5)
    assert found.value == pytest.approx(-TOY_SLOPE, rel=1e-3)


def test_a_repeated_largest_eigenvalue_and_a_multiple_of_the_identity_are_found() -> None:
    assert toy([-2.0] * 6).largest("all").value == pytest.approx(-2 * TOY_SLOPE, rel=1e-3)
    found = toy([1.0, -2.0, -2.0, -2.0, 0.0]).largest("all")
    assert found.converged and found.value == pytest.approx(-2 * TOY_SLOPE, rel=1e-3)


@pytest.mark.parametrize("weights", [[-1.0], [1.0], [3.0, -1.0]])
def test_blocks_of_one_or_two_parameters_converge(weights: list[float]) -> None:
    found = toy(weights).largest("all")
    assert found.converged and found.products <= len(weights)
    assert found.value == pytest.approx(TOY_SLOPE * min(weights), rel=1e-3)


def test_a_hessian_of_zeros_has_the_eigenvalue_zero_after_one_product() -> None:
    found = toy([0.0, 0.0, 0.0]).largest("all")
    assert (found.value, found.products, found.converged) == (0.0, 1, True)


@pytest.mark.parametrize("top", [1.0, -0.5])
def test_lanczos_matches_dense_eigenvalues_on_a_wide_indefinite_spectrum(top: float) -> None:
    generator = torch.Generator().manual_seed(3)
    q, _ = torch.linalg.qr(torch.randn(200, 200, generator=generator, dtype=torch.float64))
    values = torch.cat([torch.linspace(-40, top - 0.2, 199, dtype=torch.float64), torch.tensor([top])])
    matrix = q @ torch.diag(values) @ q.T
    found = lanczos(lambda v: matrix @ v, 200, iterations=200, tolerance=1e-4, dtype=torch.float64)
    assert found.converged and found.value == pytest.approx(top, rel=1e-3)
    single = matrix.float()
    assert lanczos(lambda v: single @ v, 200, iterations=200).value == pytest.approx(top, rel=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_a_crowd_just_below_the_largest_eigenvalue_is_not_taken_for_it(seed: int) -> None:
    crowd = torch.cat([torch.ones(1), torch.full((64,), 0.98), torch.linspace(0, 0.05, 9000)])
    found = lanczos(lambda v: crowd * v, len(crowd), seed=seed)
    assert found.converged and found.value == pytest.approx(1.0, rel=1e-3)
    pair = torch.cat([torch.full((1,), 1.01), torch.ones(2500), torch.zeros(2499)])
    assert lanczos(lambda v: pair * v, len(pair), seed=seed).value == pytest.approx(1.01, rel=1e-3)


def test_lanczos_says_so_when_its_iterations_run_out() -> None:
    matrix = torch.diag(torch.linspace(0, 1, 500))
    found = lanczos(lambda v: matrix @ v, 500, iterations=3)
    assert not found.converged and found.products == 3 and found.error > 1e-3


def test_a_product_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="product is not finite"):
        lanczos(lambda v: v * float("nan"), 4)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="the loss is nan; use other rows"):
        toy([1.0], offset=float("nan"))


def test_a_graph_larger_than_the_memory_is_refused_before_it_is_whole() -> None:
    variant = attached("lora", rank=2)
    with pytest.raises(OutOfMemory, match="larger than the 1e-05 GB there are"):
        BlockHessians(variant.module, {QUERY[0]: variant.block(QUERY[0])}, make_rows(), pad_id=0, memory=10_000)


def test_a_deeper_block_keeps_less_of_the_graph() -> None:
    variant = attached("lora", rank=2)
    sizes = [
        BlockHessians(variant.module, {name: variant.block(name)}, make_rows(), pad_id=0).graph_bytes for name in QUERY
    ]
    assert sizes[1] < 0.75 * sizes[0]


def test_blocks_are_chosen_by_layer_and_type() -> None:
    matrices = select_matrices(make_base(layers=6), "all-linear")
    assert [layer_of(m.name) for m in choose_blocks(matrices)] == [0, 2, 3, 5]
    chosen = choose_blocks(matrices, [1, 4], ["k_proj", "down_proj"])
    assert [(layer_of(m.name), m.kind) for m in chosen] == [
        (1, "k_proj"), (1, "down_proj"), (4, "k_proj"), (4, "down_proj"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="layers 6: no such layer; allowed: 0 to 5"):
        choose_blocks(matrices, [6])
    with pytest.raises(ValueError, match="types qproj: no such matrix type; allowed: q_proj"):
        choose_blocks(matrices, None, ["qproj"])


def test_layers_are_spread_over_the_depth() -> None:
    assert spread(30) == [3, 11, 18, 26]
    assert spread(3) == [0, 1, 2]


def test_the_fixed_batch_is_the_same_every_time_and_within_its_tokens() -> None:
    rows = make_rows(20)
    batch = fixed_batch(rows, 40, seed=0)
    assert batch == fixed_batch(rows, 40, seed=0)
    assert 0 < sum(len(r["prompt_ids"]) + len(r["response_ids"]) for r in batch) <= 40
    assert len(fixed_batch(rows, 1, seed=0)) == 1


def test_only_variants_without_trained_factors_are_refused() -> None:
    refused = {"full", "lora_xs", "miss", "mora", "randlora", "vera"}
    assert not refused & set(curvature.measurable())
    with pytest.raises(ValueError, match="trains no factors"), meter_on(make_base()).attached("full"):
        pass


def meter_on(base: nn.Module) -> Meter:
    return Meter(
        base,
        {"rank": 2, "alpha_ratio": 2, "batch_size": 4},
        make_rows(6),
        TrainSettings(samples=4),
        pad_id=0,
        matrices=choose_blocks(select_matrices(base, "all-linear")),
        tokens=30,
    )


def test_a_meter_measures_every_block_and_gives_the_base_back() -> None:
    base = make_base()
    before, meter = fingerprint(base), meter_on(base)
    values = []
    for _ in range(2):
        with meter.attached("pissa") as hessians:
            assert list(hessians.blocks) == QUERY
            values.append([meter.largest(hessians, matrix).value for matrix in QUERY])
        assert fingerprint(base) == before and not hasattr(base, "peft_config")
    assert values[0] == values[1]
