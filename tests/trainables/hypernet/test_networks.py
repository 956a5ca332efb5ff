"""The networks, the factors' rows as tokens, and the allocation of ranks, against dense computations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainables.hypernet.allocation import budgets, count_or_share, prune, sensitivity
from trainables.hypernet.factors import Factors, ResidualFactors, Stack
from trainables.hypernet.networks import AttentionLayer, attend, make_network, softmax_attention, widths


def test_the_papers_attention_layer_has_as_many_parameters_as_its_sizes_say() -> None:
    layer = AttentionLayer(312, 12, None)
    attention, feed_forward, norms = 4 * 312**2 + 3 * 312, 2 * 312 * 1200 + 1200 + 312, 4 * 312
    assert sum(p.numel() for p in layer.parameters()) == attention + feed_forward + norms == 1_141_872


@pytest.mark.parametrize(("rows", "window"), [(12, None), (12, 4), (10, 4), (3, 4)])
def test_attention_stays_within_its_window(rows: int, window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, rows, 5, generator=generator) for _ in range(3))
    scores = query @ key.mT / 5**0.5
    of = torch.arange(rows) // (window or rows)
    scores = scores.masked_fill(of[:, None] != of[None, :], -torch.inf)
    torch.testing.assert_close(attend(query, key, value, window), scores.softmax(-1) @ value)


@pytest.mark.parametrize("multiple", [None, 8])
def test_attention_is_the_softmax_of_scaled_products_whatever_its_width_is_filled_up_to(multiple: int | None) -> None:
    query, key, value = torch.randn(3, 2, 1, 7, 26, generator=torch.Generator().manual_seed(0))
    expected = (query @ key.mT / 26**0.5).softmax(-1) @ value
    torch.testing.assert_close(softmax_attention(query, key, value, multiple), expected)


def test_weights_have_the_deviation_that_is_asked_for() -> None:
    network = make_network("bert", 2, 2, hidden=64, heads=2, depth=1, window=None, deviation=0.02)
    assert network.body[1].widen.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_mlp_and_cnn_widen_as_the_papers() -> None:
    assert widths(256, 15) == [256] * 5 + [512] * 5 + [1024] * 5
    assert widths(16, 1) == [16]


@pytest.mark.parametrize("kind", ["bert", "mlp", "cnn"])
def test_a_network_takes_factors_of_any_number_of_rows(kind: str) -> None:
    network = make_network(kind, 6, 4, hidden=8, heads=2, depth=2, window=4)
    for rows in (1, 7, 16):
        assert network(torch.randn(3, rows, 6)).shape == (3, rows, 4)


def test_each_row_of_an_mlp_is_mapped_by_itself_and_of_a_bert_is_not() -> None:
    tokens = torch.randn(1, 6, 4)
    changed = tokens.clone()
    changed[0, 5] += 1
    for kind, alone in (("mlp", True), ("bert", False)):
        network = make_network(kind, 4, 4, hidden=8, heads=2, depth=1, window=None)
        assert torch.equal(network(tokens)[0, 0], network(changed)[0, 0]) == alone


def test_work_is_counted_by_rows_and_pairs_of_rows() -> None:
    network = make_network("bert", 5, 5, hidden=8, heads=2, depth=1, window=4)
    inner = round(8 * 1200 / 312)
    assert network.macs(3, 10) == 3 * (10 * (5 * 8 + 4 * 8 * 8 + 2 * 8 * inner + 8 * 5) + 2 * 8 * (16 + 16 + 4))


@pytest.mark.parametrize(
    ("layers", "hidden", "groups", "inner", "size", "told"),
    [
        (32, 4096, 1024, 14336, (312, 12, None), "| 2,621,440 | 1,141,296 | 2,992 | 15,370 | 73,400 |"),
        (30, 576, 192, 1536, (312, 12, None), "| 305,280 | 1,141,296 | 348 | 190 | 2,153 |"),
        (30, 576, 192, 1536, (16, 1, 32), "| 305,280 | 3,408 | 1.04 | 0.31 | 5.4 |"),
    ],
)
def test_the_docs_tell_the_work_of_networks_at_rank_three(
    layers: int, hidden: int, groups: int, inner: int, size: tuple[int, int, int | None], told: str
) -> None:
    shapes = [(hidden, hidden)] * 2 + [(groups, hidden)] * 2 + [(inner, hidden)] * 2 + [(hidden, inner)]
    sides = [side for shape in shapes for side in shape]
    width, heads, window = size
    inputs, outputs = Factors.features(5) if window is None else ResidualFactors.features(5)
    network = make_network("bert", inputs, outputs, hidden=width, heads=heads, depth=1, window=window)
    weights = sum(p.weight.numel() for p in network.modules() if isinstance(p, torch.nn.Linear))
    once = layers * sum(network.macs(1, side) for side in sides)
    by_row = layers * sum(sides) * weights
    shown = [f"{layers * sum(sides):,}", f"{weights:,}"]
    for work in (by_row, once - by_row, 4 * once):
        billions = work / 1e9
        digits = -2 if billions > 5e4 else -1 if billions > 1e4 else 0 if billions > 100 else 1 if billions > 5 else 2
        shown.append(f"{round(billions, digits):,.{max(0, digits)}f}")
    assert "| " + " | ".join(shown) + " |" == told
    assert told in (Path(__file__).resolve().parents[3] / "docs" / "variants.md").read_text()


def test_unknown_networks_and_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="hypernet is 'lstm': use one of bert, mlp, cnn"):
        make_network("lstm", 4, 4, hidden=8, heads=2, depth=1, window=None)
    with pytest.raises(ValueError, match="heads is 3, which does not divide hidden = 8"):
        make_network("bert", 4, 4, hidden=8, heads=3, depth=1, window=None)


# -- factors ----------------------------------------------------------------------------------------------------


def make_stack(count: int = 3, rows: int = 5, directions: int = 2) -> Stack:
    return Stack(torch.randn(count, rows, directions, generator=torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("rows_at_once", [16_384, 5])
@pytest.mark.parametrize("form", [Factors, ResidualFactors])
def test_gradients_of_a_network_are_those_of_one_graph_over_all_micro_batches_and_chunks(
    form: type[Factors], rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.hypernet.factors.CHUNK_ROWS", rows_at_once)
    network = make_network("bert", *form.features(2), hidden=8, heads=2, depth=1, window=4)
    factors = form(network, {"b.5": make_stack()})
    torch.nn.init.normal_(network.out.weight)
    stack = factors.stacks["b.5"]
    leaves, (one, two) = stack.leaves(), torch.randn(2, 3, 5, 2)
    for step in range(2):
        factors.generate(step, 0.1)
        for weights in (one, two):  # two backward passes, as two micro-batches
            sum((leaf * w).sum() for leaf, w in zip(leaves, weights, strict=True)).backward()
        network.zero_grad()
        factors.backward(step, 0.1)
        factors.finish()
    found = [p.grad.clone() for p in network.parameters()]
    torch.testing.assert_close(stack.grad, one + two)

    network.zero_grad()
    whole = factors._next(stack, slice(None), 1, 0.1, 0.0)
    torch.testing.assert_close(whole.detach(), stack.value)
    (whole * (one + two)).sum().backward()
    for p, gradient in zip(network.parameters(), found, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-5)


def test_the_residual_form_starts_as_adam_on_the_factors() -> None:
    network = make_network("mlp", *ResidualFactors.features(2), hidden=4, heads=1, depth=1, window=None)
    factors = ResidualFactors(network, {"b.5": make_stack()})
    stack = factors.stacks["b.5"]
    plain = stack.value.clone().requires_grad_()
    optimizer = torch.optim.AdamW([plain], lr=0.05, weight_decay=0.1)
    target = torch.randn(3, 5, 2)
    leaves = stack.leaves()
    for step in range(5):
        factors.generate(step, 0.05, 0.1)
        torch.stack([(leaf - t).square().sum() for leaf, t in zip(leaves, target, strict=True)]).sum().backward()
        torch.testing.assert_close(stack.value, plain.detach())  # a step behind: it moves before it is used
        (plain - target).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        factors.finish()


def test_the_direct_form_starts_as_the_identity_and_learns_from_there() -> None:
    network = make_network("bert", *Factors.features(2), hidden=8, heads=2, depth=1, window=None, deviation=0.02)
    factors = Factors(network, {"b.5": make_stack()})
    stack, optimizer = factors.stacks["b.5"], torch.optim.AdamW(network.parameters(), lr=1e-3)
    before = stack.value.clone()
    for step in range(3):
        factors.generate(step, 0.1)
        assert torch.equal(stack.value, before) == (step == 0)
        stack.grad.copy_(stack.value)  # of a loss that is half the sum of squares
        optimizer.zero_grad()
        factors.backward(step, 0.1)
        optimizer.step()
    assert stack.value.square().sum() < before.square().sum()


def test_what_may_not_move_keeps_its_bits() -> None:
    network = make_network("mlp", 2, 2, hidden=4, heads=1, depth=1, window=None)
    factors = Factors(network, {"b.5": make_stack()})
    torch.nn.init.normal_(network.out.weight)
    stack = factors.stacks["b.5"]
    before = stack.value.clone()
    stack.moving = torch.tensor([[True, False], [False, False], [True, True]])[:, None]
    factors.generate(0, 0.1)
    assert torch.equal(stack.value[0, :, 1], before[0, :, 1]) and torch.equal(stack.value[1], before[1])
    assert not torch.equal(stack.value[0, :, 0], before[0, :, 0])
    stack.grad[1] = 1.0
    stack.grad[0, :, 1] = 1.0
    factors.backward(0, 0.1)
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())


# -- allocation ----------------------------------------------------------------------------------------------------


def test_pruning_keeps_exactly_the_budget_of_highest_scores_even_among_ties() -> None:
    scores = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    kept = torch.tensor([[True, True, True], [True, True, False]])
    assert prune(scores, kept, 3).tolist() == [[True, False, True], [False, True, False]]
    assert prune(scores, kept, 4).tolist() == [[True, False, True], [True, True, False]]
    for budget in range(6):
        assert int(prune(scores, kept, budget).sum()) == budget


def test_matrices_of_equal_scores_keep_equally_many() -> None:
    stay = prune(torch.zeros(5, 6), torch.ones(5, 6, dtype=torch.bool), 17)
    assert stay.sum(dim=1).tolist() == [4, 4, 3, 3, 3]


def test_sensitivity_is_the_products_size() -> None:
    assert sensitivity(torch.tensor([2.0, -1.0, 0.0]), torch.tensor([-0.5, -3.0, 9.0])).tolist() == [1.0, 3.0, 0.0]


def test_a_number_below_one_is_a_share_of_the_run() -> None:
    assert [count_or_share(value, 200) for value in (0, 0.1, 1, 100)] == [0, 20, 1, 100]


def test_budgets_fall_by_equal_numbers_from_the_warm_up_to_the_last_phase() -> None:
    plan = budgets(2000, 1500, 1000, warmup=500, interval=100, final=0.5)
    assert list(plan) == [600, 700, 800, 900, 1000]
    assert list(plan.values()) == [1400, 1300, 1200, 1100, 1000]


@pytest.mark.parametrize("steps", [1, 2, 7, 60])
def test_a_run_shorter_than_the_warm_up_is_pruned_once(steps: int) -> None:
    plan = budgets(steps, 12, 8, warmup=500, interval=100, final=0.5)
    assert list(plan.values()) == [8] and min(2, steps) <= next(iter(plan)) <= steps


def test_no_pruning_comes_before_the_warm_up_is_over_nor_before_scores_are_there() -> None:
    assert budgets(900, 12, 8, warmup=500, interval=100, final=0.5) == {600: 8}
    assert budgets(520, 12, 8, warmup=500, interval=100, final=0.5) == {520: 8}
    assert min(budgets(20, 12, 8, warmup=0, interval=1, final=0.5)) == 2
    assert list(budgets(600, 12, 8, warmup=0, interval=100, final=0.5)) == [100, 200, 300]
    assert budgets(20, 12, 8, warmup=0, interval=1, final=50) == {2: 8}
