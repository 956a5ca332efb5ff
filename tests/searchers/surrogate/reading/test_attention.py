from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from searchers.surrogate.reading.attention import NAME, Context, attend, attending

G, C, K, R, D, P, U, M = 2, 3, 2, 3, 4, 5, 3, 4
MODEL: Any = SimpleNamespace(config=SimpleNamespace(_attn_implementation="usual"))
LAYER: Any = SimpleNamespace(layer_idx=0)


def context(**changes: Any) -> Context:
    torch.manual_seed(0)
    made: dict[str, Any] = {
        "blocks": G,
        "own_ok": torch.rand(G, C, M) < 0.5,
        "prefix": [(torch.randn(K, P, D), torch.randn(K, P, D))],
        "stem": torch.randn(1, 2, G, K, U, D),
        "stem_ok": torch.tensor([[True, True, False], [True, False, False]]),
        "own": torch.randn(1, 2, G, K, M, D),
    }
    return Context(**{**made, **changes})


def positions(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of so many positions."""
    torch.manual_seed(1)
    return torch.randn(1, K * R, count, D), torch.randn(1, K, count, D), torch.randn(1, K, count, D)


def dense(query: Tensor, keys: list[Tensor], values: list[Tensor], scale: float, softcap: float | None) -> Tensor:
    """One head of one position over a list of keys."""
    scores = torch.stack(keys) @ query * scale
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    return scores.softmax(0) @ torch.stack(values)


@pytest.mark.parametrize(("scaling", "softcap"), [(None, None), (0.3, None), (None, 0.7)])
def test_the_token_reads_prefix_stem_its_own_nodes_and_itself(scaling: float | None, softcap: float | None) -> None:
    now = context()
    q, k, v = positions(G * C)
    with attending(MODEL, now):
        out, _ = attend(LAYER, q, k, v, None, scaling=scaling, softcap=softcap)
    assert out.shape == (1, G * C, K * R, D)
    assert now.prefix and now.stem is not None and now.stem_ok is not None and now.own is not None
    for g in range(G):
        for c in range(C):
            for h in range(K * R):
                read = [[*now.prefix[0][i][h // R]] for i in (0, 1)]
                for i, mine in enumerate((k, v)):
                    read[i] += [*now.stem[0, i, g, h // R][now.stem_ok[g]]]
                    read[i] += [*now.own[0, i, g, h // R][now.own_ok[g, c]]]
                    read[i] += [mine[0, h // R, g * C + c]]
                wanted = dense(q[0, h, g * C + c], *read, scaling or D**-0.5, softcap)
                assert torch.allclose(out[0, g * C + c, h], wanted, atol=1e-6)


def test_nodes_read_the_nodes_above_them_in_their_block() -> None:
    above = torch.ones(G, M, M, dtype=torch.bool).tril()
    now = context(own=None, own_ok=above)
    q, k, v = positions(G * M)
    with attending(MODEL, now):
        out, _ = attend(LAYER, q, k, v, None)
    assert now.prefix and now.stem is not None and now.stem_ok is not None
    g, m, h = 1, 2, 4
    read = []
    for i, mine in enumerate((k, v)):
        stem = [*now.stem[0, i, g, h // R][now.stem_ok[g]]]
        read.append([*now.prefix[0][i][h // R], *stem, *mine[0, h // R, g * M : g * M + m + 1]])
    assert torch.allclose(out[0, g * M + m, h], dense(q[0, h, g * M + m], *read, D**-0.5, None), atol=1e-6)


def test_what_the_positions_made_is_handed_over() -> None:
    made: list[tuple[Tensor, Tensor]] = []
    q, k, v = positions(G * C)
    with attending(MODEL, context(made=made)):
        attend(LAYER, q, k, v, None)
    assert len(made) == 1 and torch.equal(made[0][0], k[0]) and torch.equal(made[0][1], v[0])


def test_the_models_own_attention_is_back_after_an_error() -> None:
    def fail_while_attending() -> None:
        with attending(MODEL, context()):
            assert MODEL.config._attn_implementation == NAME
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_attending()
    assert MODEL.config._attn_implementation == "usual"


def test_attention_sinks_are_refused() -> None:
    with pytest.raises(ValueError, match="attention sinks"), attending(MODEL, context()):
        attend(LAYER, *positions(G * C), None, s_aux=torch.zeros(K * R))
