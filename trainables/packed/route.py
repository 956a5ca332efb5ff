"""Whose rows are whose in a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainables.variants.core.shared import LoraPart


@dataclass
class Adapter:
    """A trial's adapter as a pass sees it.

    Attributes:
        parts: matrix name -> its update as factors.
        layers: matrix name -> its layer, for updates that are no factors. A layer is called with the trial's rows, and
            what it calls its base gives the base's product, which is there already (`GivenBase`).
        generator: of the trial's dropout, on the device of the model.
    """

    parts: Mapping[str, LoraPart] = field(default_factory=dict)
    layers: Mapping[str, tuple[nn.Module, GivenBase]] = field(default_factory=dict)
    generator: torch.Generator | None = None


class GivenBase:
    """In place of a base layer's `forward`: hands out a product that was computed with others' rows."""

    def __init__(self) -> None:
        self.product: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.product is None:
            raise RuntimeError("the layer of a packed trial was called outside a pass")
        return self.product


@dataclass(frozen=True)
class Segment:
    """The rows `start` to `stop` of a pass: one trial's, of which the last `width` positions count."""

    adapter: Adapter
    start: int
    stop: int
    width: int
