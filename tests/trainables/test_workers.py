from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.parallel import Parallel
from trainables.protocols import TrainSettings
from trainables.run import TrialRun
from trainables.session import load_model
from trainables.testing import ExactMatch, make_tiny_tokenizer, tokenised_rows
from trainables.variants import available, get_variant
from trainables.variants.core.snapshot import fingerprint

KNOBS = {"variant": "lora", "rank": 4, "alpha_ratio": 2, "learning_rate": 5e-3, "batch_size": 5, "dropout": 0.0}
# Batches of 5 over 2 workers: unequal shares, and a last batch of one row that one worker has none of.
LIMIT_S = 400  # of two workers, on a machine that has other work to do
SETTINGS = TrainSettings(samples=21, reports=5, micro_batch_tokens=32)


def rows() -> list[dict[str, Any]]:
    made = tokenised_rows(make_tiny_tokenizer(), 29)
    return [{**row, "prompt_ids": row["prompt_ids"][: 4 + i % 9]} for i, row in enumerate(made)]


def train(model: torch.nn.Module, parallel: Parallel, folder: Path, knobs: dict[str, Any]) -> dict[str, Any]:
    """A whole trial with a checkpoint after the second of its five steps, in `folder`."""
    run = TrialRun(model, knobs, rows()[:21], SETTINGS, pad_id=0, parallel=parallel)
    before = run.evaluate(rows()[21:], ExactMatch(), make_tiny_tokenizer())
    losses = [run.train_step() for _ in range(2)]
    run.save(folder / "state")
    losses += [run.train_step() for _ in range(3)]
    after = run.evaluate(rows()[21:], ExactMatch(), make_tiny_tokenizer())
    # A row for one of the workers, none for the other.
    lone = run.evaluate(rows()[21:22], ExactMatch(), make_tiny_tokenizer())
    run.save_adapter(folder / "adapter", "base")
    run.close()
    return {"losses": losses, "scores": [found["validation_loss"] for found in (before, after, lone)]}


def resume(model: torch.nn.Module, parallel: Parallel, state: Path, knobs: dict[str, Any]) -> list[float]:
    """The losses of the last three steps, from a checkpoint after the second."""
    run = TrialRun(model, knobs, rows()[:21], SETTINGS, pad_id=0, parallel=parallel)
    run.load(state)
    losses = [run.train_step() for _ in range(3)]
    run.close()
    return losses


def diverge(model: torch.nn.Module, parallel: Parallel) -> dict[str, bool]:
    """One gradient is not a number, of one worker: whether the trial says so, and whether none moved."""
    run = TrialRun(model, KNOBS, rows()[:21], SETTINGS, pad_id=0, parallel=parallel)
    factor = run.parameters[0]
    factor.register_hook(lambda gradient: gradient * (float("nan") if parallel.rank == parallel.world - 1 else 1.0))
    with parallel.whole(run.adapted):
        before = run.variant.state()
    run.train_step()
    with parallel.whole(run.adapted):
        after = run.variant.state()
    unmoved = all(torch.equal(value, after[name]) for name, value in before.items())
    diverged = run.diverged
    run.close()
    return {"diverged": diverged, "unmoved": unmoved}


def made(strategy: str) -> Parallel:
    if strategy == "ddp":
        from trainables.workers import DataParallel

        return DataParallel()
    if strategy == "fsdp":
        from trainables.fsdp import FullySharded

        return FullySharded(torch.device("cpu"))
    from trainables.zero import Zero

    zero = json.loads(strategy)
    return Zero({"zero_optimization": zero}, SETTINGS.max_grad_norm)


def brief(model: torch.nn.Module, parallel: Parallel, variant: str) -> list[float]:
    """The losses of the first steps of a variant: the second and third depend on what was learned before."""
    settings = replace(SETTINGS, samples=18, micro_batch_tokens=512)
    knobs = KNOBS | {"variant": variant, "batch_size": 6}
    run = TrialRun(model, knobs, rows()[:21], settings, pad_id=0, parallel=parallel)
    losses = [run.train_step() for _ in range(3)]
    run.close()
    return losses


def each_variant(rank: int, world: int, folder: Path, base: Path, strategy: str, variants: list[str]) -> None:
    """Body of a worker: the losses of variants, one after the other over one base, which is then as it was."""
    import torch.distributed as dist

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    model = loaded(base)
    bits = fingerprint(model)
    found = {}
    for variant in variants:
        found[variant] = brief(model, made(strategy), variant)
        assert fingerprint(model) == bits, f"{variant}: the base model is not what it was"
    (folder / f"losses-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def worker(rank: int, world: int, folder: Path, base: Path, tasks: list[tuple[str, str, dict[str, Any]]]) -> None:
    import torch.distributed as dist

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    for name, strategy, more in tasks:
        model = loaded(base, more.get("dtype", "float32"), more.get("quantization", "none"))
        bits = fingerprint(model)
        knobs = KNOBS | more.get("knobs", {})
        found = train(model, made(strategy), folder / name, knobs)
        if "state" in more:
            found["resumed"] = resume(model, made(strategy), Path(more["state"]), knobs)
        if "dtype" not in more and "knobs" not in more:
            found |= diverge(model, made(strategy))
        found["bits"] = fingerprint(model) == bits
        (folder / f"{name}-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def fork(body: Callable[..., None], *arguments: Any) -> None:
    """Two workers, forked, so that they need not import what is there: `body(rank, 2, *arguments)`.

    Fails where one of them does, or where they take too long.
    """
    context = multiprocessing.get_context("fork")
    group = [context.Process(target=body, args=(rank, 2, *arguments)) for rank in range(2)]
    for process in group:
        process.start()
    until = time.monotonic() + LIMIT_S
    # One that has failed leaves the other waiting for it.
    while any(p.is_alive() for p in group) and not any(p.exitcode for p in group) and time.monotonic() < until:
        time.sleep(0.05)
    codes = [process.exitcode for process in group]
    for process in group:
        process.kill()
        process.join()
    assert codes == [0, 0], f"exit codes of the workers after {LIMIT_S} s at most: {codes}"


def shared(folder: Path, base: Path, tasks: list[tuple[str, str, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Name of a task -> what each of two workers found."""
    fork(worker, folder, base, tasks)
    return {
        name: [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(2)] for name, _, _ in tasks
    }


def loaded(base: Path, dtype: str = "float32", quantization: str = "none") -> torch.nn.Module:
    return load_model(base, dtype, "cpu", quantization=quantization)[0]


def alone(
    base: Path, folder: Path, dtype: str = "float32", quantization: str = "none", **knobs: object
) -> dict[str, Any]:
    return train(loaded(base, dtype, quantization), Parallel(), folder, KNOBS | knobs)


def assert_equal(found: list[dict[str, Any]], expected: dict[str, Any], near: float = 1e-3) -> None:
    for each in found:
        assert each["losses"] == pytest.approx(expected["losses"], abs=near)
        assert each["scores"] == pytest.approx(expected["scores"], abs=near)
        assert each.get("resumed", expected["losses"][2:]) == pytest.approx(expected["losses"][2:], abs=near)
        assert each["bits"], "the base model is not what it was"
        assert each.get("diverged", True) and each.get("unmoved", True)


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_a_partitioned_base_gives_the_losses_scores_and_adapter_of_one_worker(tiny_model, tmp_path) -> None:
    """Also from one worker's checkpoint, and where one worker's gradient is not finite."""
    expected = alone(tiny_model, tmp_path / "alone")
    task = ("fsdp", "fsdp", {"state": str(tmp_path / "alone" / "state")})
    assert_equal(shared(tmp_path, tiny_model, [task])["fsdp"], expected)
    whole = adapter(tmp_path / "alone")
    for name, tensor in adapter(tmp_path / "fsdp").items():
        torch.testing.assert_close(tensor, whole[name], atol=1e-3, rtol=0)
    model = loaded(tiny_model)
    again = resume(model, Parallel(), tmp_path / "fsdp" / "state", KNOBS)
    assert again == pytest.approx(expected["losses"][2:], abs=1e-3)


@pytest.mark.real
def test_workers_over_a_quantised_base_have_the_losses_and_scores_of_one(tiny_model, tmp_path) -> None:
    """Also from one worker's checkpoint."""
    kinds = ("nf4", "int8")
    expected = {kind: alone(tiny_model, tmp_path / f"alone-{kind}", quantization=kind) for kind in kinds}
    tasks = [
        (kind, "ddp", {"quantization": kind, "state": str(tmp_path / f"alone-{kind}" / "state")}) for kind in kinds
    ]
    found = shared(tmp_path, tiny_model, tasks)
    for kind in kinds:
        assert_equal(found[kind], expected[kind])
    assert expected["nf4"]["losses"] != pytest.approx(expected["int8"]["losses"], abs=1e-6)


@pytest.mark.real
def test_every_stage_of_zero_gives_the_losses_scores_and_adapter_of_one_worker(tiny_model, tmp_path) -> None:
    """Also with what is offloaded to the CPU, from one worker's checkpoint, and where a gradient is not finite."""
    pytest.importorskip("deepspeed")
    expected = alone(tiny_model, tmp_path / "alone")
    cpu = {"device": "cpu"}
    stages: dict[str, dict[str, Any]] = {f"zero{stage}": {"stage": stage} for stage in range(4)}
    stages["offloaded"] = {"stage": 3, "offload_param": cpu, "offload_optimizer": cpu}
    state = {"state": str(tmp_path / "alone" / "state")}
    found = shared(tmp_path, tiny_model, [(name, json.dumps(zero), state) for name, zero in stages.items()])
    whole = adapter(tmp_path / "alone")
    for name in stages:
        assert_equal(found[name], expected)
        for matrix, tensor in adapter(tmp_path / name).items():
            torch.testing.assert_close(tensor, whole[matrix], atol=1e-3, rtol=0)
    model = loaded(tiny_model)
    for name in stages:
        again = resume(model, Parallel(), tmp_path / name / "state", KNOBS)
        assert again == pytest.approx(expected["losses"][2:], abs=1e-3)


@pytest.mark.real
@pytest.mark.parametrize(
    ("place", "strategy", "others"),
    [("fsdp", "fsdp", set()), ("deepspeed", '{"stage": 3}', {"adalora", "dylora", "loft", "lora_fa"})],
    ids=["fsdp", "zero3"],
)
def test_every_variant_over_a_base_in_parts_has_the_losses_of_one_worker(
    place: str, strategy: str, others: set[str], tiny_model, tmp_path
) -> None:
    """All but those that docs/scaling.md leaves out."""
    pytest.importorskip(place if place == "deepspeed" else "torch")
    hyper = {name for name in available() if name.startswith("hyper_")}
    variants = sorted(name for name in set(available()) - hyper - {"lelora", "loftq"} - others)
    assert variants == sorted(n for n in available() if place in get_variant(n).runs_on and n != "loftq")
    model = loaded(tiny_model)
    expected = {name: brief(model, Parallel(), name) for name in variants}
    fork(each_variant, tmp_path, tiny_model, strategy, variants)
    for rank in range(2):
        found = json.loads((tmp_path / f"losses-{rank}.json").read_text())
        far = {name: found[name] for name in variants if found[name] != pytest.approx(expected[name], abs=1e-3)}
        assert not far, {name: (losses, expected[name]) for name, losses in far.items()}
