"""The base model as a pass calls it: each matrix computes for the rows of several trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.checkpointing import recompute_blocks
from trainables.modes import evaluating
from trainables.packed.mixture import Mixture
from trainables.packed.product import Use, packed_linear, packed_update
from trainables.packed.route import Segment
from trainables.packed.twin import twin
from trainables.variants.core.layers import place
from trainables.variants.core.matrices import Matrix, find_matrices


@dataclass
class Route:
    """Whose rows the batch is of that is on its way: the segments of a pass, in the order of their rows, or a mixture.

    Attributes:
        training: whether dropout drops.
    """

    segments: tuple[Segment, ...] = ()
    mixture: Mixture | None = None
    training: bool = False


class PackedLinear(nn.Module):
    """A matrix of the base with the updates of the pass's trials beside it; without a pass, the base's own."""

    def __init__(self, matrix: Matrix, route: Route) -> None:
        super().__init__()
        self.base_layer, self.name, self.route = matrix.module, matrix.name, route
        # Quantised layers multiply in their own way.
        plain = matrix.quantized is None and (type(matrix.module) is nn.Linear or matrix.transposed)
        self.oriented = matrix.oriented if plain and matrix.weight.dtype.is_floating_point else None

    @property
    def weight(self) -> Tensor:
        """The base's weight: model code asks layers for its type and device."""
        return self.base_layer.weight

    def forward(self, x: Tensor) -> Tensor:
        route, name = self.route, self.name
        if route.mixture is not None:
            return self._mixed(x, route.mixture)
        segments = route.segments
        uses = [Use(s, s.adapter.parts.get(name)) for s in segments]
        called = any(name in s.adapter.layers for s in segments)
        if all(use.part is None for use in uses):
            y = self.base_layer(x)
        elif self.oriented is not None:
            y = packed_linear(x, self.oriented(self.base_layer.weight), self.base_layer.bias, uses, route.training)
        else:
            y = self._beside(x, uses)
        return self._through_layers(x, y, segments) if called else y

    def _mixed(self, x: Tensor, mixture: Mixture) -> Tensor:
        y = self.base_layer(x)
        mixture.add(y, x, self.name)
        if mixture.whole(self.name):
            mixture.through_layers(y, x, self.name)
        return y

    def _beside(self, x: Tensor, uses: Sequence[Use]) -> Tensor:
        """As `packed_linear`, beside a layer that multiplies in its own way."""
        y = self.base_layer(x)
        return y + packed_update(x, y.shape[-1], uses, self.route.training)

    def _through_layers(self, x: Tensor, y: Tensor, segments: Sequence[Segment]) -> Tensor:
        """The products of the rows of trials whose update is a layer of its own, through that layer."""
        sizes = [s.stop - s.start for s in segments]
        pieces = []
        for segment, rows, product in zip(segments, x.split(sizes), y.split(sizes), strict=True):
            if self.name not in segment.adapter.layers:
                pieces.append(product)
                continue
            layer, given = segment.adapter.layers[self.name]
            padding = x.shape[1] - segment.width
            # Of its own: some layers add to it in place.
            given.product = product[:, padding:].clone()
            try:
                own = layer(rows[:, padding:])
            finally:
                given.product = None
            pieces.append(torch.cat([product[:, :padding], own], dim=1) if padding else own)
        return torch.cat(pieces)


class Trunk:
    """A twin of the base model whose matrices follow the route of a pass.

    Attributes:
        module: to be called as the base is.
        unfit: matrices that the model does not call once with all rows of a batch, such as those of experts: trials
            on them cannot share a pass.
    """

    def __init__(self, base: nn.Module) -> None:
        self.module = twin(base)
        self.route, self.recomputes = Route(), False
        matrices = find_matrices(self.module)
        self.unfit = _unfit(self.module, matrices)
        for matrix in matrices:
            if matrix.name not in self.unfit:
                place(self.module, matrix, PackedLinear(matrix, self.route))

    def recompute(self, wanted: bool) -> None:
        """Whether training passes compute their blocks again on the way back."""
        if wanted:
            recompute_blocks(self.module, self._replayed)
        self.recomputes = wanted

    def _replayed(self) -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
        """Around a block on its way there and back: the trials' own generators give it the same draws twice."""
        generators = [g for g in (s.adapter.generator for s in self.route.segments) if g is not None]
        drawn: list[Tensor] = []

        @contextmanager
        def first() -> Iterator[None]:
            drawn.extend(generator.get_state() for generator in generators)
            yield

        @contextmanager
        def again() -> Iterator[None]:
            now = [generator.get_state() for generator in generators]
            _set(generators, drawn)
            try:
                yield
            finally:
                _set(generators, now)

        return first(), again()

    @contextmanager
    def routed(self, segments: Sequence[Segment], training: bool = False) -> Iterator[nn.Module]:
        """The module, whose batches within are of these segments."""
        self.route.segments, self.route.training = tuple(segments), training
        if self.recomputes and training:
            # Blocks compute again in training mode alone; nothing else in the base depends on it (`why_not`).
            self.module.train()
        try:
            yield self.module
        finally:
            self.route.segments, self.route.training = (), False
            if self.module.training:
                self.module.eval()

    @contextmanager
    def mixed(self, mixture: Mixture) -> Iterator[nn.Module]:
        """The module, to be evaluated on batches whose rows are of the mixture's adapters."""
        self.route.mixture = mixture
        try:
            with evaluating(self.module):
                yield self.module
        finally:
            self.route.mixture = None


def _set(generators: Sequence[torch.Generator], states: Sequence[Tensor]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)


def why_not(base: nn.Module) -> str | None:
    """Why no two trials can share a pass over this model, in words; None where they can."""
    if any(isinstance(part, nn.Dropout) and part.p > 0 for part in base.modules()):
        return "the base model has dropout of its own"
    config: Any = getattr(base, "config", None)
    settings: Mapping[str, Any] = {} if config is None else config.to_dict()
    if any(settings.get(name) for name in ("attention_dropout", "attn_pdrop")):
        return "the base model has dropout of its own in attention"
    return None


def _unfit(module: nn.Module, matrices: Sequence[Matrix]) -> frozenset[str]:
    """Matrices whose input on a small batch is not that batch's, once."""
    rows, length = 2, 3
    calls: dict[str, list[tuple[int, ...]]] = {matrix.name: [] for matrix in matrices}
    handles = [
        matrix.module.register_forward_pre_hook(lambda _, inputs, name=matrix.name: calls[name].append(inputs[0].shape))
        for matrix in matrices
    ]
    device = next(module.parameters()).device
    try:
        with torch.inference_mode():
            ids = torch.zeros((rows, length), dtype=torch.long, device=device)
            module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(
        name for name, shapes in calls.items() if [tuple(shape[:-1]) for shape in shapes] != [(rows, length)]
    )
