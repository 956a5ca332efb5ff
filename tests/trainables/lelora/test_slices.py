"""Slices: which triplets they are, and steps that equal those of a dense computation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.lelora.slices import POSITIONS, choosable, window
from trainables.variants.core.config import AdapterConfig
from trainables.variants.lelora import LeLora


class Net(nn.Module):
    """Two linear layers, one with m > n and one with m < n."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(12, 20), nn.Linear(20, 12)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
        # Values that bf16 holds, so that both types start at the same weights.
        self.bfloat16().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


class DenseSVD(nn.Module):
    """y = x (U S V^T)^T + bias with all of U, S and V trained, through autograd."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        u, s, vt = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
        self.u, self.s, self.v = (nn.Parameter(part.contiguous()) for part in (u, s, vt.T))
        self.bias = linear.bias

    @property
    def dense(self) -> Tensor:
        return (self.u * self.s) @ self.v.T

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.dense.T + self.bias

    def freeze_outside(self, triplets: range) -> None:
        """No gradient outside the slice: AdamW then leaves what it has never moved."""
        for part in (self.u, self.s, self.v):
            assert part.grad is not None
            kept = torch.zeros_like(part.grad)
            kept[..., list(triplets)] = part.grad[..., list(triplets)]
            part.grad = kept


def attach(model: nn.Module, rank: int, learning_rate: float = 1e-2, **extra: Any) -> LeLora:
    """LeLoRA on a model without a policy, all matrices at r = rank unless `extra` says otherwise."""
    variant = LeLora()
    options = {"policy": "random", "dimensions": "max", **extra}
    variant.attach(model, AdapterConfig(rank=rank, alpha=1.0, learning_rate=learning_rate, extra=options))
    return variant


def draw(step: int, rows: int = 7, columns: int = 12) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(step)).bfloat16().float()


def test_positions_are_the_first_the_middle_and_the_last_triplets() -> None:
    assert list(window("primary", 3, 10)) == [0, 1, 2]
    assert list(window("middle", 3, 10)) == [5, 6, 7]
    assert list(window("minor", 3, 10)) == [7, 8, 9]
    assert list(window("middle", 8, 10)) == list(range(2, 10))
    assert not any(len(window(position, 0, 10)) for position in POSITIONS)
    assert choosable(POSITIONS, 2, 10) == [0, 1, 5, 6, 8, 9]


@pytest.mark.parametrize("most", [1, 4, 7, 12])
def test_every_smaller_slice_lies_in_one_run_of_the_choosable_triplets(most: int) -> None:
    for positions in (POSITIONS, ("middle",), ("primary", "minor")):
        union = choosable(positions, most, 12)
        for position in positions:
            for r in range(1, most + 1):
                found = window(position, r, 12)
                start = union.index(found.start)
                assert union[start : start + r] == list(found)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("rank", [3, 12])
def test_steps_equal_those_through_u_s_and_v_of_the_whole_matrix(position: str, rank: int) -> None:
    net, dense = Net(), Net()
    variant = attach(net, rank, positions=position)
    twins = [DenseSVD(dense.first), DenseSVD(dense.second)]
    dense.first, dense.second = twins  # type: ignore[assignment]
    slices = variant.make_optimizer()
    whole = torch.optim.AdamW([p for twin in twins for p in (twin.u, twin.s, twin.v)], lr=1e-2, weight_decay=0.0)
    for step in range(5):
        variant.before_step(step)
        inputs = [draw(step).requires_grad_() for _ in range(2)]
        for model, x in zip((net, dense), inputs, strict=True):
            (model(x) - draw(99)).square().sum().backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-5, atol=1e-5)
        for twin in twins:
            twin.freeze_outside(window(position, rank, 12))
        slices.step()
        slices.zero_grad()
        variant.after_step(step)
        whole.step()
        whole.zero_grad()
        tuned = variant.tuned_weights()
        for name, twin in zip(("first", "second"), twins, strict=True):
            torch.testing.assert_close(tuned[name], twin.dense.detach(), rtol=1e-5, atol=1e-5)


def test_gradients_reach_layers_below_an_adapted_one_that_trains_nothing() -> None:
    net, plain = Net(), Net()
    variant = attach(net, 4, dimensions="0,4")
    variant.before_step(0)
    for layer in variant.layers.values():
        layer.choose(range(0))
    inputs = [draw(0).requires_grad_() for _ in range(2)]
    for model, x in zip((net, plain), inputs, strict=True):
        model(x).square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    assert all(parameter.grad is None for parameter in variant.trainable_parameters())


def test_two_hundred_bf16_steps_change_the_weights_as_fp32_does() -> None:
    changes = {}
    for dtype in (torch.float32, torch.bfloat16):
        net = Net(dtype)
        variant = attach(net, 4, learning_rate=1e-5, reward_every=20)  # each step far below bf16's last digit of W0
        optimizer = variant.make_optimizer()
        for step in range(200):
            variant.before_step(step)
            # The gradients at both outputs are given, so that only what the layers do with them differs.
            for layer, columns, rows in ((net.first, 12, 20), (net.second, 20, 12)):
                x, g = draw(2 * step, 16, columns).to(dtype), draw(2 * step + 1, 16, rows).to(dtype)
                layer(x).backward(g)
            optimizer.step()
            optimizer.zero_grad()
            variant.after_step(step)
        seen = [layer.left.double().T @ layer.right.double() for layer in variant.layers.values()]
        kept = [variant.to_lora().delta(name).double() for name in variant.layers]
        changes[dtype] = [*seen, *kept]
    for bf16, fp32 in zip(changes[torch.bfloat16], changes[torch.float32], strict=True):
        assert (bf16 - fp32).norm() < 0.01 * fp32.norm()


def test_what_was_trained_stays_when_the_strategy_moves_on() -> None:
    net = Net()
    variant = attach(net, 2, reward_every=100)
    optimizer = variant.make_optimizer()
    layer = variant.layers["first"]
    before = {}
    for step, position in enumerate(("primary", "minor", "middle")):
        variant.before_step(step)
        for one in variant.layers.values():
            one.choose(window(position, 2, 12))
        net(draw(step)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        variant.after_step(step)
        rows = layer.triplets.detach().clone()
        for (start, stop), values in before.items():
            assert torch.equal(rows[start:stop], values)
        before[layer.active] = rows[slice(*layer.active)].clone()
        assert not torch.equal(before[layer.active], layer.initial[slice(*layer.active)])
    assert len(before) == 3 and len(layer.touched) == 6
    x = draw(50)
    expected = x @ variant.tuned_weights()["first"].T + layer.base_layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_optimizer_state_is_that_of_choosable_triplets_and_rests_with_them() -> None:
    net = Net()
    variant = attach(net, 2, reward_every=100)
    optimizer = variant.make_optimizer()
    first, second = variant.layers.values()
    assert first.triplets.shape == (6, 20 + 1 + 12)
    variant.before_step(0)
    kept = {}
    for step, position in enumerate(("primary", "minor", "primary")):
        first.choose(window(position, 2, 12))
        second.choose(range(0))
        net(draw(step)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        moments = optimizer.state[first.triplets]["first"]
        assert moments.shape == first.triplets.shape
        if step == 1:
            assert torch.equal(moments[:2], kept[0][:2])
        kept[step] = moments.clone()
    assert optimizer.state[first.triplets]["steps"].tolist() == [2, 2, 0, 0, 1, 1]
    assert not optimizer.state[second.triplets]


def test_balanced_triplets_are_the_same_slice_of_which_steps_go_with_the_root_of_sigma() -> None:
    x, changes = draw(0), {}
    for balanced in (False, True):
        net = Net()
        before = net(x)
        variant = attach(net, 4, learning_rate=1e-4, positions="primary,minor", balanced=balanced)
        optimizer = variant.make_optimizer()
        variant.before_step(0)
        torch.testing.assert_close(net(x), before)
        layer = variant.layers["first"]
        sizes = []
        for position in ("primary", "minor"):
            layer.choose(window(position, 4, 12))
            start = layer.factors()
            net(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            left, right = layer.factors()
            sizes.append((left.T @ right - start[0].T @ start[1]).norm().item())
        changes[balanced] = sizes[0] / sizes[1]
        sigma = layer.magnitudes()
    ratio = (sigma[:4].norm() / sigma[4:].norm()).item()
    values = torch.linalg.svdvals(Net().first.weight.detach())
    torch.testing.assert_close(sigma, values[layer.indices], rtol=1e-2, atol=1e-3)
    assert changes[False] > 0.6 * ratio and changes[True] < 0.8 * changes[False]


def test_weight_decay_acts_on_the_slice_alone() -> None:
    net = Net()
    variant = attach(net, 2, positions="primary,minor")
    group = {"params": variant.trainable_parameters(), "lr": 0.1, "weight_decay": 0.5}
    optimizer = type(variant.make_optimizer())([group], list(variant.layers.values()))
    variant.before_step(0)
    layer = variant.layers["first"]
    layer.choose(window("minor", 2, 12))
    layer.triplets.grad = torch.zeros_like(layer.triplets)
    optimizer.step()
    torch.testing.assert_close(layer.triplets.detach()[2:], 0.95 * layer.initial[2:])
    assert torch.equal(layer.triplets.detach()[:2], layer.initial[:2])
