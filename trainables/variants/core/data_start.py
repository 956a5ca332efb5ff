"""Starts that look at data: the layers' inputs and the weights' gradients on the first global batch."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainables.heads import forward_only
from trainables.modes import evaluating
from trainables.variants.core import decompositions
from trainables.variants.core.config import Batches
from trainables.variants.core.layers import DeltaLinear, place
from trainables.variants.core.matrices import Matrix
from trainables.variants.core.peft_variant import PeftVariant, RewritingVariant
from trainables.variants.core.snapshot import fingerprint, fingerprint_tensors, seeded

IGNORED = -100  # the label of a token that carries no loss


class DataStart(RewritingVariant):
    """A rewriting variant whose first factors come from what was observed on each matrix.

    `observe` gives one tensor per matrix; while `start` runs for a matrix, `seen` is its tensor. Without
    batches there is no start: an error, not plain LoRA. The factors are kept on disk (`decompositions`): a
    search meets the same first batch again with each batch size.
    """

    seen: Tensor

    @abstractmethod
    def observe(self, model: nn.Module, batches: Batches) -> dict[str, Tensor]:
        """What `start` needs, by the name of the matrix."""

    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        given = check_batches(self.name, batches)
        self._starts = start_from_data(self, model, given, lambda: self._compute(model, given))
        try:
            return super().build(model, batches)
        finally:
            self.__dict__.pop("_starts", None)

    def _compute(self, model: nn.Module, batches: Batches) -> dict[str, Tensor]:
        observed, starts = self.observe(model, batches), {}
        scale = self.config.alpha / self.config.rank  # the layers that hold it are not there yet
        try:
            for matrix in self.matrices:
                self.seen = observed.pop(matrix.name)
                with torch.no_grad():
                    a0, b0 = self.start(self.original(matrix), scale)
                starts[f"{matrix.name}.A"], starts[f"{matrix.name}.B"] = a0, b0
        finally:
            self.__dict__.pop("seen", None)
        return starts

    def start_matrix(self, matrix: Matrix, weight: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return self._starts.pop(f"{matrix.name}.A"), self._starts.pop(f"{matrix.name}.B")


def start_from_data(
    variant: PeftVariant, model: nn.Module, batches: Batches, compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """`compute()`, or what it gave before for the same variant, options, rank, scale, base model and batches.

    `model` is the base as it is before anything is attached. Random draws are the same either way.
    """
    config, matrices = variant.config, variant.matrices
    device = matrices[0].device

    def seeded_compute() -> dict[str, Tensor]:
        with seeded(0):
            return compute()

    if sum(matrix.rows * matrix.columns for matrix in matrices) < decompositions.SMALLEST:
        return seeded_compute()

    def key() -> str:
        options = {name: variant.option(name) for name in sorted(variant.options)}
        about = f"{variant.name} {config.rank} {config.alpha} {options} {[m.name for m in matrices]} {device.type};"
        digest = hashlib.sha256(about.encode())
        digest.update(fingerprint(model).encode())
        for batch in batches:
            digest.update(fingerprint_tensors(dict(batch)).encode())
        return digest.hexdigest()[:40]

    return decompositions.kept(key, seeded_compute, device)


def check_batches(variant: str, batches: Batches | None) -> Batches:
    """The batches, or a ValueError where there are none."""
    if not batches:
        raise ValueError(f"variant {variant} starts from data: give attach the first batch, or use the variant lora")
    return batches


def attended_tokens(batch: Mapping[str, Tensor]) -> Tensor:
    """Which tokens are not padding: `(rows, length)`, boolean."""
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"], dtype=torch.bool) if mask is None else mask.bool()


def observe_inputs(
    model: nn.Module,
    matrices: Sequence[Matrix],
    batches: Batches,
    see: Callable[[str, Tensor, Mapping[str, Tensor]], None],
) -> dict[str, str]:
    """Runs the batches forward, in eval mode and without gradients, and shows the inputs of the matrices.

    Matrices that get the same tensor (q, k and v of an attention block) are shown it once.

    Args:
        see: called with the matrix's name, its input `(rows, length, n)` in fp32, and the batch.

    Returns:
        The name of each matrix -> the one that `see` was called with for its input.

    Raises:
        ValueError: a matrix got no input, or one without a place for each token.
    """
    leaders: dict[str, str] = {}
    latest: tuple[Tensor | None, str] = (None, "")
    batch: Mapping[str, Tensor] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            nonlocal latest
            if inputs[0] is latest[0]:
                leaders[name] = latest[1]
                return
            latest, leaders[name] = (inputs[0], name), name
            if inputs[0].shape[:-1] != batch["input_ids"].shape:
                shape = tuple(inputs[0].shape)
                raise ValueError(f"placement: {name} gets inputs {shape}, not one per token; leave it out")
            see(name, inputs[0].detach().float(), batch)

        return hook

    handles = [matrix.module.register_forward_pre_hook(look(matrix.name)) for matrix in matrices]
    try:
        with torch.no_grad(), evaluating(model):
            for batch in batches:
                given = {name: tensor for name, tensor in batch.items() if name != "labels"}
                model(**given, **forward_only(model))
    finally:
        for handle in handles:
            handle.remove()
    for matrix in matrices:
        if matrix.name not in leaders:
            raise ValueError(f"placement: no input reaches {matrix.name} on the first batch; leave it out")
    return leaders


@contextmanager
def weights_with_gradients(model: nn.Module, matrices: Sequence[Matrix]) -> Iterator[list[Tensor]]:
    """Within, tensors as the matrices are stored that the loss has a gradient of, which is that of the weights.

    Of a quantised matrix it is a matrix of zeros that is added to it.
    """
    found: list[Tensor] = []
    try:
        for matrix in matrices:
            if matrix.quantized is None:
                found.append(matrix.weight.requires_grad_(True))
                continue
            beside = DeltaLinear(matrix, torch.zeros(matrix.rows, matrix.columns))
            place(model, matrix, beside)
            found.append(beside.delta.requires_grad_(True))
        yield found
    finally:
        for matrix, weight in zip(matrices, found, strict=False):
            weight.requires_grad_(False)
            place(model, matrix, matrix.module)


def weight_gradients(model: nn.Module, matrices: Sequence[Matrix], batches: Batches) -> dict[str, Tensor]:
    """dL/dW `(m, n)` in fp32 of each matrix, L the mean loss over the labelled tokens of all batches.

    In eval mode. Holds a gradient of each matrix at once, twice while a batch runs.

    Raises:
        ValueError: no token is labelled, or the gradient of a matrix is zero, missing or not finite.
    """
    total = 0
    with weights_with_gradients(model, matrices) as weights:
        sums = [torch.zeros_like(weight, dtype=torch.float32, requires_grad=False) for weight in weights]
        with torch.enable_grad(), evaluating(model):
            for batch in batches:
                # The first token of a row is predicted from nothing; a row to classify has one label.
                labels = batch["labels"]
                count = int(((labels[:, 1:] if labels.ndim > 1 else labels) != IGNORED).sum())
                if not count:
                    continue
                total += count
                loss = model(**batch, **forward_only(model)).loss
                found = torch.autograd.grad(loss, weights, allow_unused=True)
                for gradient_sum, gradient in zip(sums, found, strict=True):
                    if gradient is not None:
                        gradient_sum.add_(gradient.float(), alpha=count)
    gradients = {}
    for matrix, gradient in zip(matrices, sums, strict=True):
        size = float(gradient.abs().sum())
        if not 0 < size < float("inf"):
            raise ValueError(
                f"placement: the first batch gives {matrix.name} no gradient that is finite and not zero; "
                "leave it out, or use data with labelled tokens"
            )
        gradients[matrix.name] = matrix.oriented(gradient / total)
    return gradients
