"""pass@k: whether one of k programs passes its tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from raylora.errors import UserError
from raylora.metrics.base import Estimate, Metric, MetricRow, Value, check_count, check_lengths, parts_estimate

# Whether each completion passes the tests of its row: `(m,)` completions and their rows in, `(m,)` out.
Check = Callable[[Sequence[str], Sequence[MetricRow]], Sequence[bool]]


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Unbiased estimate of the chance that one of `k` samples passes, where `passed` of `samples` do.

    `1 - C(samples - passed, k) / C(samples, k)` (Chen et al., 2021, arXiv:2107.03374); `k` is at most `samples`.
    """
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


class PassAtK(Metric):
    """Chance that at least one of `k` sampled programs passes its row's tests, estimated from `samples` of them.

    Programs are run by what `use` is given: the sandbox, by the task that knows how a program is made of a completion.
    Every `k` comes as a part; the first one is the value.

    Args:
        k: how many programs are tried: a number, or a list of them.
        samples: completions per row; at least the largest `k`, which is the default.
    """

    name = "pass_at_k"
    summary = "pass@k: the chance that one of k sampled programs passes its tests (unbiased estimator)"
    needs = "samples"
    costly = True

    def __init__(self, *, k: int | Sequence[int] = 1, samples: int | None = None) -> None:
        self.ks = tuple(k) if isinstance(k, list | tuple) else (k,)
        if not self.ks or len(set(self.ks)) < len(self.ks):
            raise UserError.at(
                "pass_at_k.k", f"{k!r} is not allowed; give a number or a list of different ones", value=k
            )
        for one in self.ks:
            check_count(self.name, "k", one)
        self.samples = max(self.ks) if samples is None else samples
        check_count(self.name, "samples", self.samples, least=max(self.ks))
        self.key = f"pass@{self.ks[0]}"
        self._check: Check | None = None

    def use(self, check: Check) -> None:
        """Have programs run by `check`, which must pickle."""
        self._check = check

    def check_task(self) -> None:
        if self._check is None:
            raise UserError.at(
                "task.metrics",
                "pass_at_k has no programs to run for this task; use it with a task of code",
                value=self.name,
            )

    def score(self, outputs: Sequence[Sequence[str]], rows: Sequence[MetricRow]) -> list[tuple[float | str, ...]]:
        """The estimate for each `k`, `(n, len(ks))`."""
        check_lengths(outputs, rows)
        self.check_task()
        assert self._check is not None
        for samples in outputs:
            if len(samples) < max(self.ks):
                raise ValueError(f"samples: {len(samples)} of a row; pass@{max(self.ks)} needs at least as many as k")
        flat = [(text, row) for samples, row in zip(outputs, rows, strict=True) for text in samples]
        passed = iter(self._check([text for text, _ in flat], [row for _, row in flat])) if flat else iter(())
        counts = [(len(samples), sum(bool(next(passed)) for _ in samples)) for samples in outputs]
        return [tuple(pass_at_k(n, right, k) for k in self.ks) for n, right in counts]

    def summarise(self, values: Sequence[Value]) -> Estimate:
        return parts_estimate(values, [f"pass@{k}" for k in self.ks], self.key)
