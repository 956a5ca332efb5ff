"""The conformance suite that every variant passes, of this package or another, registered or not.

For a new variant, subclass in a test file and give its class or its name:

    class TestMine(VariantConformance):
        variant = Mine

Other attributes relax or tighten single tests where a method demands it; say why beside the override. One test asks
another process for the same run, which imports the class by its module or, where that fails, from its file.
"""

from __future__ import annotations

import copy
import functools
import gc
import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainables.checkpointing import recompute_blocks
from trainables.variants import VARIANTS, get_variant
from trainables.variants.core.base import Variant
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.declared import SCALES
from trainables.variants.core.export import exported_adapter, merge_folder
from trainables.variants.core.snapshot import fingerprint, fingerprint_tensors
from trainables.variants.core.tiny import base_for, formula_count, make_base, make_batches, outputs, structure, train


def run_hash(cls: type[Variant]) -> str:
    """Fingerprint of the state after a fixed short training run of a variant on the tiny base."""
    variant = cls()
    variant.attach(base_for(cls), AdapterConfig(rank=2, alpha=4, learning_rate=1e-2, seed=3, steps=3), make_batches())
    train(variant, make_batches(), 3)
    return fingerprint_tensors(variant.state())


def run_hash_elsewhere(cls: type[Variant]) -> str:
    """`run_hash`, computed in another process; all built-in variants share one."""
    built_in = {name for name in VARIANTS if VARIANTS.origin(name) is None}
    if cls.name in built_in and VARIANTS[cls.name] is cls:
        return _run_hashes(tuple(_address(VARIANTS[name]) for name in sorted(built_in)))[_address(cls)]
    return _run_hashes((_address(cls),))[_address(cls)]


def _address(cls: type[Variant]) -> str:
    return f"{cls.__module__}:{cls.__qualname__}:{inspect.getsourcefile(cls)}"


@functools.cache
def _run_hashes(addresses: tuple[str, ...]) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-m", __name__, *addresses],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, *sys.path])), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _class_at(address: str) -> type[Variant]:
    name, qualified, file = address.split(":", 2)
    try:
        module = importlib.import_module(name)
    except ImportError:
        found = importlib.util.spec_from_file_location(name, file)
        assert found is not None and found.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    return functools.reduce(getattr, qualified.split("."), module)  # type: ignore[return-value]


@contextmanager
def older_objects_set_aside() -> Iterator[None]:
    """Within it the collector sees new objects only: going through all of torch and PEFT takes half a second."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def live_objects() -> tuple[int, int, int]:
    """Numbers of living modules and tensors that the collector sees, and the tensors' bytes."""
    gc.collect()
    # type(), not isinstance(): the latter would import every lazy proxy that the collector happens to hold.
    modules = [o for o in gc.get_objects() if issubclass(type(o), nn.Module)]
    tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    return len(modules), len(tensors), sum(t.numel() * t.element_size() for t in tensors)


class VariantConformance:
    """Tests of the contract; attributes hold which variant, and what its method may need changed."""

    variant: type[Variant] | str
    rank = 4
    alpha = 8.0
    learning_rate = 5e-3
    extra: Mapping[str, Any] = {}
    falling_steps = 12  # the loss of one batch must have fallen after as many steps
    start_tolerance = 1e-5  # of logits, fp32 base
    bf16_start_tolerance = 0.1  # of logits of size one, bf16 base
    export_tolerance = 1e-4  # of logits, fp32 base
    another_shape: Mapping[str, object] = {"rank": 2}  # a configuration whose saved tensors are others

    @pytest.fixture
    def cls(self) -> type[Variant]:
        """The class under test."""
        return get_variant(self.variant) if isinstance(self.variant, str) else self.variant

    @pytest.fixture(autouse=True)
    def one_thread(self) -> Iterator[None]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums in one order: bits can be compared between processes
        yield
        torch.set_num_threads(threads)

    def make_config(self, **changes: Any) -> AdapterConfig:
        """The suite's configuration, with changes."""
        settings: dict[str, Any] = {
            "rank": self.rank,
            "alpha": self.alpha,
            "learning_rate": self.learning_rate,
            "seed": 5,
            "steps": self.falling_steps,
            "extra": self.extra,
        }
        return AdapterConfig(**(settings | changes))

    def attached(self, cls: type[Variant], model: nn.Module | None = None, **changes: object) -> Variant:
        """A new instance, attached."""
        variant = cls()
        variant.attach(base_for(cls) if model is None else model, self.make_config(**changes), make_batches())
        return variant

    def test_declares_what_lists_and_searches_ask_for(self, cls: type[Variant]) -> None:
        assert all(isinstance(text, str) and text for text in (cls.name, cls.summary, cls.paper, cls.parameters))
        assert cls.scale_rule in SCALES
        assert cls.saves in ("peft", "merged")
        assert cls.runs_on and cls.runs_on <= {"hosted", "ddp", "fsdp", "deepspeed"}

    def test_starts_at_the_pretrained_function(self, cls: type[Variant]) -> None:
        base, batch = base_for(cls), make_batches()[0]
        before = outputs(base, batch)
        variant = self.attached(cls, base, dropout=0.3)
        assert (outputs(variant.module, batch) - before).abs().max() < self.start_tolerance

    def test_starts_near_the_pretrained_function_in_bf16_with_fp32_adapter(self, cls: type[Variant]) -> None:
        base, batch = base_for(cls, torch.bfloat16), make_batches()[0]
        before, bits = outputs(base, batch), fingerprint(base)
        variant = self.attached(cls, base)
        assert (outputs(variant.module, batch) - before).abs().max() < self.bf16_start_tolerance
        assert {p.dtype for p in variant.trainable_parameters()} == {torch.float32}
        losses = train(variant, [batch], self.falling_steps)
        assert losses[-1] < losses[0]
        assert fingerprint(variant.detach()) == bits

    def test_keeps_the_mode_and_call_signature(self, cls: type[Variant]) -> None:
        base = base_for(cls)
        variant = self.attached(cls, base, dropout=0.3)
        assert not any(part.training for part in variant.module.modules())
        ids = make_batches()[0]["input_ids"]
        assert variant.module(ids, labels=ids).loss.isfinite()

    def test_trains_as_many_parameters_as_its_formula_says(self, cls: type[Variant]) -> None:
        variant = self.attached(cls)
        expected = formula_count(variant)
        assert len(variant.matrices) == 14
        assert variant.parameter_count() == expected == sum(p.numel() for p in variant.trainable_parameters())

    def test_placement_limits_the_adapter_to_the_named_matrices(self, cls: type[Variant]) -> None:
        variant = self.attached(cls, placement=("q_proj", "layers.1.mlp.down_proj"))
        assert [m.name.removeprefix("model.layers.") for m in variant.matrices] == [
            "0.self_attn.q_proj",
            "1.self_attn.q_proj",
            "1.mlp.down_proj",
        ]
        expected = formula_count(variant)
        assert variant.parameter_count() == expected

    def test_gradients_reach_every_trainable_tensor_and_no_frozen_one(self, cls: type[Variant]) -> None:
        variant = self.attached(cls)
        seen: set[int] = set()
        trainable = variant.trainable_parameters()
        original = variant.after_backward

        def watch(step: int) -> None:
            original(step)  # a variant may send gradients on in it
            seen.update(id(p) for p in trainable if p.grad is not None and p.grad.abs().max() > 0)
            own = {id(p) for p in trainable}
            assert all(p.grad is None for p in variant.module.parameters() if id(p) not in own)

        variant.after_backward = watch  # type: ignore[method-assign]
        train(variant, make_batches(), 3)
        assert seen == {id(p) for p in trainable}

    def test_loss_falls(self, cls: type[Variant]) -> None:
        losses = train(self.attached(cls), make_batches(1), self.falling_steps)
        assert losses[-1] < 0.99 * losses[0]

    def test_saved_and_resumed_run_equals_an_uninterrupted_one(self, cls: type[Variant]) -> None:
        batches = make_batches()
        whole = self.attached(cls)
        train(whole, batches, 6)

        base = base_for(cls)
        first = self.attached(cls, base)
        optimizer = first.make_optimizer()
        train(first, batches, 3, optimizer)
        saved, moments = first.state(), copy.deepcopy(optimizer.state_dict())
        first.detach()
        second = self.attached(cls, base)
        second.load_state(saved)
        optimizer = second.make_optimizer()
        optimizer.load_state_dict(moments)
        train(second, batches, 3, optimizer, first_step=3)

        assert fingerprint_tensors(second.state()) == fingerprint_tensors(whole.state())
        assert torch.equal(outputs(second.module, batches[0]), outputs(whole.module, batches[0]))

    def test_state_is_a_copy_on_the_cpu_and_refuses_another_shape(self, cls: type[Variant]) -> None:
        variant = self.attached(cls)
        state = variant.state()
        kept = fingerprint_tensors(state)
        train(variant, make_batches(), 2)
        assert fingerprint_tensors(state) == kept != fingerprint_tensors(variant.state())
        assert all(t.device.type == "cpu" and not t.requires_grad for t in state.values())
        other = self.attached(cls, **self.another_shape)
        before = fingerprint_tensors(other.state())
        with pytest.raises(ValueError, match=f"variant {cls.name}: saved tensor"):
            other.load_state(state)
        with pytest.raises(ValueError, match="is missing"):
            other.load_state({})
        assert fingerprint_tensors(other.state()) == before

    def test_blocks_that_are_computed_again_give_the_same_run(self, cls: type[Variant]) -> None:
        runs = []
        for again in (False, True):
            base = base_for(cls, layers=1)
            before = structure(base)
            variant = self.attached(cls, base, dropout=0.3)
            if again:
                recompute_blocks(base)
            torch.manual_seed(0)
            losses = train(variant, make_batches(2), 2)
            runs.append((losses, fingerprint_tensors(variant.state())))
            assert structure(variant.detach()) == before
        assert runs[0] == runs[1]

    def test_trains_in_bf16_or_says_that_it_does_not(self, cls: type[Variant]) -> None:
        base = base_for(cls, torch.bfloat16, layers=1)
        if cls.float32_only:
            with pytest.raises(ValueError, match=f"variant {cls.name}: it computes its update in float32"):
                self.attached(cls, base, dtype=torch.bfloat16)
            return
        before = outputs(base, make_batches()[0])
        variant = self.attached(cls, base, dtype=torch.bfloat16)
        assert (outputs(variant.module, make_batches()[0]) - before).abs().max() < self.bf16_start_tolerance
        assert {p.dtype for p in variant.trainable_parameters()} == {torch.bfloat16}
        losses = train(variant, make_batches(1), 3)
        assert losses[-1] < losses[0]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_detach_gives_back_the_base_exactly(self, cls: type[Variant], dtype: torch.dtype) -> None:
        base = base_for(cls, dtype)
        base.model.norm.weight.requires_grad_(False)  # flags are not all alike
        base.model.layers[0].train()
        calls: list[int] = []
        handle = base.model.layers[0].register_forward_hook(lambda *_: calls.append(1))
        bits, before, logits = fingerprint(base), structure(base), outputs(base, make_batches()[0])
        base.model.layers[0].train()

        variant = self.attached(cls, base)
        train(variant, make_batches(), 2)
        assert variant.detach() is base

        assert fingerprint(base) == bits
        assert structure(base) == before
        handle.remove()  # a handle given out before still works
        calls.clear()
        assert torch.equal(outputs(base, make_batches()[0]), logits)
        assert not calls

    def test_can_be_attached_again_and_refuses_misuse(self, cls: type[Variant]) -> None:
        base = base_for(cls)
        variant = self.attached(cls, base)
        first = fingerprint_tensors(variant.state())
        with pytest.raises(RuntimeError, match="attached already"):
            variant.attach(base, self.make_config())
        variant.detach()
        with pytest.raises(RuntimeError, match="not attached"):
            variant.state()
        variant.attach(base, self.make_config(), make_batches())
        assert fingerprint_tensors(variant.state()) == first

    def test_a_failing_attach_leaves_the_base_as_it_was(
        self, cls: type[Variant], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        base = base_for(cls)
        bits, before = fingerprint(base), structure(base)
        build = cls.build

        def breaks(self: Variant, *arguments: Any) -> nn.Module:
            build(self, *arguments)
            raise MemoryError("no room")

        monkeypatch.setattr(cls, "build", breaks)
        with pytest.raises(MemoryError):
            self.attached(cls, base)
        assert fingerprint(base) == bits
        assert structure(base) == before

    def test_wrong_configurations_are_refused_before_anything_changes(self, cls: type[Variant]) -> None:
        base = base_for(cls)
        before = structure(base)
        with pytest.raises(ValueError, match="'nowhere' matches no matrix: use 'all-linear' or some of down_proj"):
            self.attached(cls, base, placement=("q_proj", "nowhere"))
        with pytest.raises(ValueError, match=f"variant {cls.name}: option 'no_such' is unknown"):
            self.attached(cls, base, extra={"no_such": 1})
        if cls.rank_limited:
            with pytest.raises(
                ValueError, match=rf"variant {cls.name}: rank 17 .*k_proj \(16 x 32\): use a rank of at most 16"
            ):
                self.attached(cls, base, rank=17)
        assert structure(base) == before

    def test_a_rank_beyond_the_smaller_side_trains_where_nothing_forbids_it(
        self, cls: type[Variant], tmp_path: Path
    ) -> None:
        if cls.rank_limited:
            pytest.skip("is limited by the matrices' smaller side")
        variant, batch = self.attached(cls, rank=64, alpha=64.0), make_batches()[0]
        train(variant, make_batches(), 2)
        learned = outputs(variant.module, batch)
        assert learned.isfinite().all()
        if variant.saves != "merged":
            with exported_adapter(base_for(cls), variant.save_adapter(tmp_path / "adapter", "some/base")) as served:
                assert (outputs(served, batch) - learned).abs().max() < self.export_tolerance

    def test_fifty_attachments_leak_nothing(self, cls: type[Variant]) -> None:
        base = base_for(cls, layers=1)
        batches = make_batches(1, rows=1)  # twelve tokens: a start that looks at data needs more than the rank

        def cycle() -> None:
            variant = cls()
            variant.attach(base, self.make_config(placement=("q_proj", "down_proj")), batches)
            train(variant, batches, 1)
            variant.detach()

        with older_objects_set_aside():
            for _ in range(3):
                cycle()
            before = live_objects()
            for _ in range(50):
                cycle()
            assert live_objects() == before

    def test_seed_decides_the_start_and_global_generators_are_left_alone(self, cls: type[Variant]) -> None:
        torch.manual_seed(11)
        expected = torch.rand(3)
        torch.manual_seed(11)
        one = self.attached(cls, seed=1)
        assert torch.equal(torch.rand(3), expected)
        torch.manual_seed(12)
        assert fingerprint_tensors(self.attached(cls, seed=1).state()) == fingerprint_tensors(one.state())

    def test_same_seed_gives_the_same_run_in_another_process(self, cls: type[Variant]) -> None:
        assert run_hash(cls) == run_hash_elsewhere(cls)

    def test_saved_adapter_gives_the_same_outputs_through_peft(self, cls: type[Variant], tmp_path: Path) -> None:
        from peft import PeftModel

        if cls.saves == "merged":
            pytest.skip("has no PEFT form")
        variant, batch = self.trained(cls), make_batches()[0]
        folder = variant.save_adapter(tmp_path / "adapter", "some/base")
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "some/base"
        loaded = PeftModel.from_pretrained(make_base(), str(folder))
        assert (outputs(loaded, batch) - outputs(variant.module, batch)).abs().max() < self.export_tolerance

    def test_saved_folder_serves_over_the_base_and_merges_into_it(self, cls: type[Variant], tmp_path: Path) -> None:
        variant, batch = self.trained(cls), make_batches()[0]
        learned, base = outputs(variant.module, batch), make_base()
        bits, before = fingerprint(base), structure(base)
        folder = variant.save_adapter(tmp_path / "adapter", "some/base")
        with exported_adapter(base, folder) as served:
            assert (outputs(served, batch) - learned).abs().max() < self.export_tolerance
        assert (fingerprint(base), structure(base)) == (bits, before)
        assert (outputs(merge_folder(base, folder), batch) - learned).abs().max() < self.export_tolerance

    def test_merged_base_gives_the_same_outputs(self, cls: type[Variant]) -> None:
        variant, batch = self.trained(cls), make_batches()[0]
        merged = variant.merge_into(make_base())
        assert structure(merged)["classes"] == structure(make_base())["classes"]
        assert (outputs(merged, batch) - outputs(variant.module, batch)).abs().max() < self.export_tolerance

    def test_plain_lora_is_against_the_original_weights(self, cls: type[Variant]) -> None:
        variant, batch = self.trained(cls), make_batches()[0]
        plain = variant.to_lora()
        assert (plain is not None) == variant.exports_lora
        if plain is None:
            return
        base = make_base()
        with torch.no_grad():
            for matrix in plain.factors:
                base.get_submodule(matrix).weight += plain.delta(matrix)
        assert (outputs(base, batch) - outputs(variant.module, batch)).abs().max() < self.export_tolerance

    def trained(self, cls: type[Variant]) -> Variant:
        """A variant that has learned enough to be told from the base."""
        variant, batch = self.attached(cls), make_batches()[0]
        train(variant, make_batches(), 5)
        assert (outputs(variant.module, batch) - outputs(make_base(), batch)).abs().max() > 0.05
        return variant


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({address: run_hash(_class_at(address)) for address in sys.argv[1:]}))
