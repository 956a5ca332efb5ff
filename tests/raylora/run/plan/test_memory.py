from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from raylora.run.plan.estimate import shape_of
from raylora.run.plan.memory import Shape, kept_bytes, plan_memory

PAGE = Path(__file__).parents[4] / "docs" / "scaling.md"
# Llama 3.1 of 8 and 70 billion weights: their published configurations, in bf16.
MODELS = {
    "8B": Shape(8_030_261_248, 32, 4096, 128_256, 2_621_440, 2, 4096, 32, 14_336),
    "70B": Shape(70_553_706_496, 80, 8192, 128_256, 12_943_360, 2, 8192, 64, 28_672),
}


def kept_by_autograd(layers: int, dtype: str, *, dropout: float, again: bool) -> float:
    """Bytes per token that autograd holds between the passes of a step of LoRA on a tiny Llama, weights aside."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from trainables.checkpointing import recompute_blocks
    from trainables.variants.core.config import AdapterConfig
    from trainables.variants.lora import Lora

    rows, length = 4, 32
    sizes = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=96, num_hidden_layers=layers, **sizes)).to(getattr(torch, dtype))
    Lora().attach(model, AdapterConfig(rank=4, alpha=8, dropout=dropout))
    if again:
        recompute_blocks(model)
    model.train()
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    held: dict[int, torch.Tensor] = {}

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            held[place] = tensor
        return tensor

    ids = torch.arange(rows * length).view(rows, length) % 96
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
        return sum(tensor.untyped_storage().nbytes() for tensor in held.values()) / (rows * length)


@pytest.mark.parametrize(
    ("dtype", "dropout", "again"),
    [("float32", 0.0, False), ("bfloat16", 0.0, False), ("bfloat16", 0.1, False), ("bfloat16", 0.0, True)],
)
def test_blocks_keep_what_the_plan_says(dtype: str, dropout: float, again: bool) -> None:
    few, many = (kept_by_autograd(layers, dtype, dropout=dropout, again=again) for layers in (1, 3))

    def planned(layers: int) -> float:
        shape = Shape(0, layers, 64, 96, 0, 4 if dtype == "float32" else 2, 64, 4, 176)
        return kept_bytes(shape, recompute=again, rank=4, length=32, dropout=bool(dropout))

    # The difference leaves out embedding and head.
    assert many - few == pytest.approx(planned(3) - planned(1), rel=0.15)


LAYERS, VOCABULARY, RANK = 8, 1024, 4


def small_model(kind: str = "none"):
    """A random Llama whose weights, activations and logits all count, quantised or not."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from trainables.variants.core.tiny import quantize

    sizes = {"hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 4, "num_key_value_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=LAYERS, **sizes)).eval()
    return model if kind == "none" else quantize(model, kind)


def peak_of_step(model, parallel=None, *, length: int, again: bool = False) -> int:
    """Bytes at the worst moment of the second step of LoRA on eight rows, a quarter of each trained on.

    All that this process holds of model, adapter and optimizer before it, and what torch allocates in it beyond that.
    """
    import torch

    from trainables.protocols import TrainSettings
    from trainables.run import TrialRun

    ids = [(7 * at) % VOCABULARY for at in range(length)]
    rows = [{"prompt_ids": ids[length // 4 :], "response_ids": ids[: length // 4]}] * 8
    knobs = {"variant": "lora", "rank": RANK, "alpha_ratio": 2, "learning_rate": 1e-4, "batch_size": 8}
    settings = TrainSettings(samples=80, micro_batch_tokens=8 * length, gradient_checkpointing=again)
    run = TrialRun(model, knobs, rows, settings, pad_id=0, parallel=parallel)
    run.module.train()
    run.train_step()
    states = [t for state in run.optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    tensors = [*run.adapted.parameters(), *run.adapted.buffers(), *states]
    own = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in own}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run.train_step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    run.close()
    return sum(held.values()) + most


def planned_bytes(kind: str = "none", *, length: int, again: bool = False, shards: int = 1) -> float:
    found = plan_memory(
        shape_of(small_model(), "all-linear", 4, kind),
        rank=RANK,
        micro_batch_tokens=8 * length / shards,
        trained=0.25,
        recompute=again,
        shards=shards,
        strategy="fsdp",
        length=length,
        dropout=False,
        mask_bytes=4,
    )
    return 1e9 * found.total_gb


SLOW = pytest.mark.real  # trains for seconds


@pytest.mark.parametrize(
    ("kind", "again"),
    [
        ("nf4", False),
        pytest.param("none", False, marks=SLOW),
        pytest.param("nf4", True, marks=SLOW),
        pytest.param("int8", False, marks=SLOW),
    ],
)
def test_a_step_needs_what_is_planned(kind: str, again: bool) -> None:
    for length in (8, 64):
        measured = peak_of_step(small_model(kind), length=length, again=again)
        assert planned_bytes(kind, length=length, again=again) == pytest.approx(measured, rel=0.15), length


def in_parts(rank: int, world: int, folder: Path, lengths: tuple[int, ...]) -> None:
    """Body of a worker: what its steps need of a base that is in parts."""
    import torch
    import torch.distributed as dist

    from trainables.fsdp import FullySharded

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    found = [peak_of_step(small_model(), FullySharded(torch.device("cpu")), length=length) for length in lengths]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.real  # two workers
def test_a_step_of_a_worker_needs_what_is_planned_of_a_base_in_parts(tmp_path) -> None:
    import multiprocessing

    lengths = (8, 64)
    context = multiprocessing.get_context("fork")
    group = [context.Process(target=in_parts, args=(rank, 2, tmp_path, lengths)) for rank in range(2)]
    for process in group:
        process.start()
    for process in group:
        process.join(300)
        process.kill()
    for rank in range(2):
        measured = json.loads((tmp_path / f"{rank}.json").read_text())
        planned = [planned_bytes(length=length, shards=2) for length in lengths]
        assert planned == pytest.approx(measured, rel=0.15)


def test_weights_outside_of_the_blocks_are_whole_under_fsdp_alone() -> None:
    shape = replace(MODELS["70B"], outside=2 * 128_256 * 8192)
    parts = [
        plan_memory(shape, rank=16, micro_batch_tokens=2048, shards=8, strategy=one).weights_gb
        for one in ("zero3", "fsdp")
    ]
    assert parts[1] - parts[0] == pytest.approx(2 * 2 * 128_256 * 8192 / 1e9)


def test_weights_that_are_shared_out_are_kept_in_part() -> None:
    whole, part = (plan_memory(MODELS["70B"], rank=16, micro_batch_tokens=2048, shards=n) for n in (1, 8))
    assert part.weights_gb == pytest.approx(whole.weights_gb * (1 / 8 + 2 / 80))
    assert part.activations_gb == whole.activations_gb


def test_the_page_shows_what_is_planned() -> None:
    rows = re.findall(r"^\| (8B|70B) \| (\d+) \| (no|yes) \|((?: [\d.]+ \|){5})$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) >= 6
    for name, shards, again, figures in rows:
        found = plan_memory(
            MODELS[name], rank=16, micro_batch_tokens=4096, trained=0.5, recompute=again == "yes", shards=int(shards)
        )
        shown = [*asdict(found).values(), found.total_gb]
        assert [f"{value:.1f}" for value in shown] == [text.strip() for text in figures.split("|")[:-1]]
