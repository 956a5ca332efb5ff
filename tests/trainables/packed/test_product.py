from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from trainables.packed.product import Use, banks, packed_linear
from trainables.packed.route import Adapter, Segment
from trainables.variants.core.shared import LoraPart

N, M, LENGTH = 12, 10, 7


def make_part(rank: int, seed: int, dropout: float = 0.0, taken: bool = False) -> LoraPart:
    draw = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, N, generator=draw), torch.randn(M, rank, generator=draw)
    pair = (torch.randn(3, N, generator=draw), torch.randn(M, 3, generator=draw)) if taken else None
    return LoraPart(a.requires_grad_(), b.requires_grad_(), 0.5 + seed, dropout, pair)


def make_uses(*asked: tuple[int, LoraPart | None]) -> list[Use]:
    """Segments of so many rows each, whose last positions but one count."""
    uses, first = [], 0
    for rows, part in asked:
        adapter = Adapter(generator=torch.Generator().manual_seed(first))
        uses.append(Use(Segment(adapter, first, first + rows, LENGTH - 1), part))
        first += rows
    return uses


def make_x(uses: list[Use]) -> torch.Tensor:
    draw = torch.Generator().manual_seed(99)
    return torch.randn(uses[-1].segment.stop, LENGTH, N, generator=draw).requires_grad_()


WEIGHT, BIAS = torch.randn(M, N, generator=torch.Generator().manual_seed(1)), torch.ones(M)


def plain(x: torch.Tensor, part: LoraPart | None) -> torch.Tensor:
    y = F.linear(x, WEIGHT, BIAS)
    if part is None:
        return y
    y = y + part.scale * (x @ part.a.T @ part.b.T)
    return y if part.taken is None else y - part.scale * (x @ part.taken[0].T @ part.taken[1].T)


def gradients(y: torch.Tensor, x: torch.Tensor, uses: list[Use]) -> list[torch.Tensor]:
    factors = [factor for use in uses if use.part for factor in (use.part.a, use.part.b)]
    weights = torch.arange(y.numel()).view(y.shape) / y.numel()
    return list(torch.autograd.grad((y * weights).sum(), [x, *factors]))


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param([(2, make_part(4, 1)), (2, make_part(4, 2)), (2, make_part(4, 3))], id="alike"),
        pytest.param([(2, make_part(4, 1)), (2, make_part(1, 2)), (2, make_part(6, 3))], id="ranks differ"),
        pytest.param([(1, make_part(4, 1)), (3, make_part(4, 2)), (3, make_part(2, 3))], id="rows differ"),
        pytest.param([(2, make_part(4, 1)), (2, None), (2, make_part(2, 3)), (1, None)], id="some have none"),
        pytest.param([(2, make_part(4, 1, taken=True)), (2, make_part(2, 2))], id="taken out of the base"),
    ],
)
def test_a_pass_is_the_sum_of_its_formulas(asked) -> None:
    uses = make_uses(*asked)
    x = make_x(uses)
    own = [plain(x[use.segment.start : use.segment.stop], use.part) for use in uses]
    expected = torch.cat(own)
    y = packed_linear(x, WEIGHT, BIAS, uses, training=True)
    torch.testing.assert_close(y, expected)
    for found, wanted in zip(gradients(y, x, uses), gradients(expected, x, uses), strict=True):
        torch.testing.assert_close(found, wanted)


def test_gradients_of_dropout_are_of_the_entries_that_it_kept() -> None:
    uses = make_uses((2, make_part(4, 1, dropout=0.5)), (2, make_part(4, 2)))
    x = make_x(uses)
    y = packed_linear(x, WEIGHT, BIAS, uses, training=True)
    draw = torch.Generator().manual_seed(0)
    mask = torch.empty(2 * (LENGTH - 1), N, dtype=torch.bool).bernoulli_(0.5, generator=draw).view(2, LENGTH - 1, N)
    part = uses[0].part
    dropped = x[:2] * (F.pad(mask, (0, 0, 1, 0), value=True) / 0.5)
    first = F.linear(x[:2], WEIGHT, BIAS) + part.scale * (dropped @ part.a.T @ part.b.T)
    expected = torch.cat([first, plain(x[2:], uses[1].part)])
    torch.testing.assert_close(y, expected)
    for found, wanted in zip(gradients(y, x, uses), gradients(expected, x, uses), strict=True):
        torch.testing.assert_close(found, wanted)


def test_nothing_is_dropped_where_nothing_is_trained() -> None:
    uses = make_uses((2, make_part(4, 1, dropout=0.5)))
    x = make_x(uses)
    torch.testing.assert_close(packed_linear(x, WEIGHT, BIAS, uses, training=False), plain(x, uses[0].part))


def results(neighbour: LoraPart | None) -> list[torch.Tensor]:
    """Of a part of rank 4 beside another: its outputs and its gradients."""
    uses = make_uses((2, make_part(4, 1)), (2, neighbour))
    x = make_x(uses)
    y = packed_linear(x, WEIGHT, BIAS, uses, training=True)
    grad_x, *factors = gradients(y, x, uses)
    return [y[:2], grad_x[:2], *factors[:2]]


@pytest.mark.parametrize("other", [make_part(4, 5), make_part(1, 6), None])
def test_bits_do_not_depend_on_what_stands_in_a_bank(other) -> None:
    for found, wanted in zip(results(other), results(make_part(4, 2)), strict=True):
        assert torch.equal(found, wanted)


def test_beside_a_larger_rank_results_are_the_same_to_rounding() -> None:
    """A product of another shape, which some machines sum in another order."""
    for found, wanted in zip(results(make_part(7, 5)), results(make_part(4, 2)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_frozen_factor_has_no_gradient() -> None:
    part = make_part(4, 1)
    frozen = LoraPart(part.a.detach(), part.b, part.scale)
    uses = make_uses((2, frozen), (2, make_part(4, 2)))
    y = packed_linear(make_x(uses), WEIGHT, None, uses, training=True)
    y.sum().backward()
    assert frozen.a.grad is None and frozen.b.grad is not None and uses[1].part.a.grad is not None


def test_equal_numbers_of_rows_next_to_each_other_are_one_product() -> None:
    uses = make_uses((2, None), (3, make_part(2, 1)), (3, None), (3, make_part(2, 2)), (1, make_part(2, 3)))
    assert [list(bank.places) for bank in banks(uses)] == [[1, 2, 3], [4]]
