from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.classifier import ClassifierHead
from trainables.heads import LANGUAGE
from trainables.quantization import KINDS, QuantizedLinear, quantized_by
from trainables.session import load_model
from trainables.testing import make_tiny_model
from trainables.variants import available, declared, get_variant
from trainables.variants.core.export import exported_adapter, merge_folder
from trainables.variants.core.snapshot import fingerprint
from trainables.variants.core.tiny import attached, make_base, make_batches, outputs, quantize, structure, train
from trainables.variants.loftq import alternate

# Largest error of a weight over the largest weight of its block or row.
ERROR = {"nf4": 0.19, "int8": 0.5 / 127 + 1e-3}


def layers(model: nn.Module) -> dict[str, QuantizedLinear]:
    return {name: part for name, part in model.named_modules() if isinstance(part, QuantizedLinear)}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_and_gradient_are_those_of_its_dense_weight(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = KINDS[kind].of(nn.Linear(96, 64).to(dtype))
    x = torch.randn(2, 3, 96, dtype=dtype, requires_grad=True)
    y = layer(x)
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(y, expected) and layer.weight.dtype == dtype
    weights = torch.randn_like(y)
    assert torch.equal(*(torch.autograd.grad((out * weights).sum(), x)[0] for out in (y, expected)))


def test_keeps_no_dense_weight_for_the_backward_pass(kind: str) -> None:
    layer, held = KINDS[kind].of(nn.Linear(96, 64)), []
    x = torch.randn(2, 96, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t):
        layer(x * 2)
    assert all(count <= x.numel() for count in held)


def test_weights_are_near_the_original_and_take_fewer_bytes(kind: str) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(512, 256, bias=False)
    layer = KINDS[kind].of(dense)
    blocks = [one.reshape(-1, 64 if kind == "nf4" else 512) for one in (layer.weight, dense.weight.detach())]
    error = ((blocks[0] - blocks[1]).abs() / blocks[1].abs().amax(dim=1, keepdim=True)).max()
    assert 0 < error < ERROR[kind]
    held = sum(t.numel() * t.element_size() for t in layer.buffers())
    # The two tables of nf4 are the same size for any matrix.
    assert held / dense.weight.numel() == pytest.approx({"nf4": 0.516, "int8": 1.0}[kind], abs=0.01)
    assert torch.equal(layer.original(), dense.weight)


@pytest.mark.parametrize(("family", "kind"), [("llama", "nf4"), ("gpt2", "int8")])
def test_a_folder_is_loaded_quantised_but_for_its_head(family: str, kind: str, tmp_path) -> None:
    folder = make_tiny_model(tmp_path, family=family)
    plain, _ = load_model(folder, "float32", "cpu")
    model, _ = load_model(folder, "float32", "cpu", quantization=kind)
    assert quantized_by(model) == kind and quantized_by(plain) is None
    assert {type(part) for part in model.modules() if isinstance(part, nn.Linear)} == {KINDS[kind], nn.Linear}
    assert type(model.get_output_embeddings()) is nn.Linear
    assert vars(model).keys() == vars(plain).keys() and vars(model.config).keys() == vars(plain.config).keys()
    for name, layer in layers(model).items():
        weight = plain.get_submodule(name).weight.detach()
        assert torch.equal(layer.original(), weight.T if family == "gpt2" else weight)
        again = KINDS[kind].quantize(layer.original())
        assert all(torch.equal(again[part], tensor) for part, tensor in layer.named_buffers())


def test_a_classification_head_stays_as_it_is(tmp_path) -> None:
    folder, head = make_tiny_model(tmp_path), ClassifierHead(("no", "yes"))
    model, _ = load_model(folder, "float32", "cpu", head=head, quantization="nf4")
    assert len(layers(model)) == 14 and type(model.score) is nn.Linear and head != LANGUAGE


@pytest.mark.parametrize("name", available())
def test_every_variant_trains_over_it_or_says_why_not(name: str) -> None:
    base, batches = quantize(make_base(layers=1), "nf4"), make_batches(1)
    bits, before, logits = fingerprint(base), structure(base), outputs(base, batches[0])
    if declared(name).quantized == "never":
        with pytest.raises(ValueError, match=f"variant {name}: it trains the weights themselves.*nf4.*none"):
            attached(name, base)
        return
    variant = attached(name, base)
    if declared(name).quantized == "too":
        assert (outputs(variant.module, batches[0]) - logits).abs().max() < 1e-3
    losses = train(variant, batches, 3)
    assert losses[-1] < losses[0]
    variant.detach()
    assert (fingerprint(base), structure(base)) == (bits, before)


@pytest.mark.parametrize("name", [name for name in available() if declared(name).quantized == "only"])
def test_what_makes_good_quantising_wants_a_quantised_base(name: str) -> None:
    with pytest.raises(ValueError, match=f"variant {name}: .* the base is not quantised; use nf4 or int8"):
        attached(name)


@pytest.mark.parametrize("name", ["lora", "pissa", "dora", "mora"])
def test_an_adapter_trained_over_it_serves_over_it_and_over_the_full_base(name: str, tmp_path) -> None:
    base, batches = quantize(make_base(), "int8"), make_batches()
    variant = attached(name, base)
    train(variant, batches, 3)
    learned = outputs(variant.module, batches[0])
    folder = variant.save_adapter(tmp_path / "adapter", "some/base")
    variant.detach()
    with exported_adapter(base, folder) as served:
        assert (outputs(served, batches[0]) - learned).abs().max() < 1e-4
    assert (outputs(merge_folder(make_base(), folder), batches[0]) - learned).abs().max() < 0.05


def test_nothing_is_merged_into_it(tmp_path) -> None:
    variant = attached("lora")
    with pytest.raises(ValueError, match=r"merge: .*q_proj' is quantised \(nf4\): use the full-precision base"):
        variant.merge_into(quantize(make_base(), "nf4"))


def test_gradients_of_weights_are_those_of_the_dense_ones() -> None:
    from trainables.variants.core.data_start import weight_gradients
    from trainables.variants.core.matrices import select_matrices

    base, dense = quantize(make_base(layers=1), "nf4"), make_base(layers=1)
    for name, layer in layers(base).items():
        dense.get_submodule(name).weight.data = layer.weight
    for model in (base, dense):
        model.requires_grad_(False)
    ours, theirs = (weight_gradients(m, select_matrices(m, "all-linear"), make_batches(2)) for m in (base, dense))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6) for name in ours)


def test_loftq_brings_quantised_weights_nearer_turn_by_turn() -> None:
    torch.manual_seed(0)
    weight = torch.randn(96, 128)
    layer = KINDS["nf4"].of(nn.Linear(128, 96, bias=False))
    left = [(weight - layer.requantized(weight).weight).norm()]
    for turns in (1, 2, 5):
        parts = alternate(weight, layer, 8, turns)
        rest = weight - parts["b_before"] @ parts["a_before"]
        left.append((weight - layer.requantized(rest).weight - parts["b"] @ parts["a"]).norm())
    assert left[0] > left[1] > left[2] > left[3]


def test_loftq_starts_nearer_to_the_full_base_than_quantising_left_it() -> None:
    batch, base = make_batches()[0], quantize(make_base(), "nf4")
    full = outputs(make_base(), batch)
    quantised = (outputs(base, batch) - full).norm()
    started = (outputs(attached("loftq", base, rank=8).module, batch) - full).norm()
    assert started < 0.6 * quantised and get_variant("loftq").quantized == "only"
