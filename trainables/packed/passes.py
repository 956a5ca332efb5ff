"""A forward and backward pass over the micro-batches of several trials."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.batching import Batch, collate, last_positions
from trainables.packed.route import Segment
from trainables.packed.run import PackedRun
from trainables.packed.trunk import Trunk


def make_pass(trunk: Trunk, runs: Sequence[PackedRun], pad_id: int) -> list[float]:
    """Gradients of each run's next micro-batch, and what each adds to its run's loss, `(n runs,)`.

    The gradients are added to those that the parameters have. A run's figures and gradients are the same bits whatever
    the others' rows, adapters and losses are, as long as the sizes of their micro-batches are the same.
    """
    device = runs[0].device
    batches = [collate(run.group(), pad_id) for run in runs]
    inputs, reach = _merged(batches, pad_id)
    segments, first = [], 0
    for run, batch in zip(runs, batches, strict=True):
        rows, width = batch.inputs["input_ids"].shape
        segments.append(Segment(run.adapter, first, first + rows, width))
        first += rows
    with trunk.routed(segments, training=True) as module:
        given = {name: tensor.to(device) for name, tensor in inputs.items()}
        keep = last_positions(given["input_ids"], reach, before=1)
        logits = module(**given, use_cache=False, logits_to_keep=keep).logits
        shares, targets = [], []
        for run, batch, segment in zip(runs, batches, segments, strict=True):
            own = logits[segment.start : segment.stop, reach - batch.labels.shape[1] :]
            share, target = run.loss(own, batch.to(device))
            shares.append(share.detach())
            targets.append(target)
        torch.autograd.backward(targets)
    return torch.stack(shares).tolist()


def _merged(batches: Sequence[Batch], pad_id: int) -> tuple[dict[str, Tensor], int]:
    """The batches' inputs one below the other, `rows x length`, and the most positions that a label reaches back.

    One position is always padding: where a batch has none, models leave their mask out and attention sums in another
    order, and a trial would feel whether its neighbours' rows are of one length.
    """
    width = 1 + max(batch.inputs["input_ids"].shape[1] for batch in batches)
    filling = {"input_ids": pad_id, "attention_mask": 0, "position_ids": 0}
    merged = {
        name: torch.cat([F.pad(b.inputs[name], (width - b.inputs[name].shape[1], 0), value=value) for b in batches])
        for name, value in filling.items()
    }
    return merged, max(batch.labels.shape[1] for batch in batches)
