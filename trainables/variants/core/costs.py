"""What variants cost, and what a benchmark has to know to measure it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Costs:
    """What an adapter takes, and what generating it takes beside it.

    Attributes:
        adapter_parameters: scalars trained or generated on the matrices.
        hypernetwork_parameters: see `Variant.shared_parameters`.
        hypernetwork_s: seconds spent in generating since `attach`.
        hypernetwork_gmac: multiply-adds of generating in one step, in 10^9.
        moment_mb: what the variant keeps between steps in place of optimizer state, in MB.
    """

    adapter_parameters: int
    hypernetwork_parameters: int = 0
    hypernetwork_s: float = 0.0
    hypernetwork_gmac: float = 0.0
    moment_mb: float = 0.0


@dataclass(frozen=True)
class Benchmark:
    """How a variant wants to be measured.

    Attributes:
        cycle: steps after which the costs of a step repeat.
        whole_rank: options with which every matrix is at its rank all the time.
    """

    cycle: int = 1
    whole_rank: Mapping[str, object] = field(default_factory=dict)


@runtime_checkable
class Saturating(Protocol):
    """A variant of which something grows during a run."""

    def saturate(self) -> None:
        """Brings it to the size that it comes to."""
