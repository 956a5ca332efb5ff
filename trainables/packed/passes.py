"""A forward and backward pass over the micro-batches of several trials."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.batching import Batch
from trainables.packed.route import Segment
from trainables.packed.run import PackedRun
from trainables.packed.trunk import Trunk


def make_pass(trunk: Trunk, runs: Sequence[PackedRun], pad_id: int) -> list[float]:
    """Gradients of each run's next micro-batch, and what each adds to its run's loss, `(n runs,)`.

    The gradients are added to those that the parameters have. A run's figures and gradients are the same bits whatever
    the others' rows, adapters and losses are, as long as the sizes of their micro-batches are the same.
    """
    device = runs[0].device
    batches = [run.collate(run.group()) for run in runs]
    inputs, places = _merged(batches, pad_id)
    segments, first = [], 0
    for run, batch in zip(runs, batches, strict=True):
        rows, width = batch.inputs["input_ids"].shape
        segments.append(Segment(run.adapter, first, first + rows, width))
        first += rows
    with trunk.routed(segments, training=True) as module:
        given = {name: tensor.to(device) for name, tensor in inputs.items()}
        keep = torch.cat(places).unique()
        logits = module(**given, use_cache=False, logits_to_keep=keep.to(device)).logits
        shares, targets = [], []
        for run, batch, segment, own_places in zip(runs, batches, segments, places, strict=True):
            own = _at(logits[segment.start : segment.stop], torch.searchsorted(keep, own_places))
            share, target = run.loss(own, batch.to(device))
            shares.append(share.detach())
            targets.append(target)
        torch.autograd.backward(targets)
    return torch.stack(shares).tolist()


def _at(logits: Tensor, places: Tensor) -> Tensor:
    """Some of the kept positions of `logits` `(rows, k, vocabulary)`: a view where they stand next to each other."""
    first, last = int(places[0]), int(places[-1])
    return logits[:, first : last + 1] if last - first == len(places) - 1 else logits[:, places.to(logits.device)]


def _merged(batches: Sequence[Batch], pad_id: int) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The batches' inputs one below the other, `rows x length`, and where the logits of each batch's labels are.

    One position is always padding: where a batch has none, models leave their mask out and attention sums in another
    order, and a trial would feel whether its neighbours' rows are of one length.
    """
    width = 1 + max(batch.inputs["input_ids"].shape[1] for batch in batches)
    shifts = [width - batch.inputs["input_ids"].shape[1] for batch in batches]
    filling = {"input_ids": pad_id, "attention_mask": 0, "position_ids": 0}
    merged = {
        name: torch.cat(
            [F.pad(b.inputs[name], (by, 0), value=filling[name]) for b, by in zip(batches, shifts, strict=True)]
        )
        for name in batches[0].inputs
    }
    return merged, [batch.positions + by for batch, by in zip(batches, shifts, strict=True)]
