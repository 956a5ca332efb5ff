from __future__ import annotations

from functools import partial

import pytest
import torch

from trainables import run as loop
from trainables.compiling import blocks, check_compiler, compile_blocks, why_no_compiler
from trainables.protocols import TrainSettings
from trainables.run import TrialRun
from trainables.session import load_base
from trainables.testing import ExactMatch, make_tiny_tokenizer, tokenised_rows
from trainables.variants import available, get_variant
from trainables.variants.core.snapshot import fingerprint
from trainables.variants.core.tiny import base_for, make_base, quantize, structure

CPU = torch.device("cpu")
KNOBS = {"variant": "lora", "rank": 4, "alpha_ratio": 2, "learning_rate": 5e-3, "batch_size": 4, "dropout": 0.0}


def rows() -> list[dict]:
    """Of several lengths, of ids that the tiny base has."""
    made = tokenised_rows(make_tiny_tokenizer(), 16)
    cut = [{**row, "prompt_ids": row["prompt_ids"][: 4 + 3 * (i % 4)]} for i, row in enumerate(made)]
    return [
        {**row, **{name: [token % 64 for token in row[name]] for name in ("prompt_ids", "response_ids")}} for row in cut
    ]


def losses(
    base: torch.nn.Module, *, steps: int = 3, compile: bool = False, settings: dict | None = None, **knobs: object
) -> list[float]:
    how = TrainSettings(samples=64, micro_batch_tokens=40, compile=compile, **(settings or {}))
    run = TrialRun(base, KNOBS | knobs, rows(), how, pad_id=0)
    run.module.train()
    try:
        found = [run.train_step() for _ in range(steps)]
        run.evaluate(rows()[:3], ExactMatch(), make_tiny_tokenizer())
        return found
    finally:
        run.close()


def test_what_is_missing_is_named_in_one_line(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert why_no_compiler(CPU) == "it needs a C++ compiler; install g++"
    with pytest.raises(ValueError, match=r"^train.compile = true: it needs a C\+\+ compiler; install g\+\+, or set it"):
        check_compiler(CPU)


def test_a_host_without_a_compiler_says_so_before_it_loads_the_model(setup, monkeypatch) -> None:
    from dataclasses import replace

    monkeypatch.setenv("CXX", "no-such-compiler")
    told = replace(setup, model_folder="/no/such/model", settings=replace(setup.settings, compile=True))
    with pytest.raises(ValueError, match=r"train.compile = true"):
        load_base(told)


def test_blocks_are_those_of_the_transformer_with_or_without_an_adapter() -> None:
    base = make_base()
    assert blocks(base) == list(base.model.layers)


def test_detaching_takes_the_compiled_call_off_again(monkeypatch) -> None:
    monkeypatch.setattr(loop, "compile_blocks", partial(compile_blocks, backend="eager"))
    base = make_base()
    before, bits = structure(base), fingerprint(base)
    settings = TrainSettings(samples=8, compile=True)
    run = TrialRun(base, KNOBS, rows(), settings, pad_id=0)
    assert all(block._compiled_call_impl is not None for block in blocks(base))
    run.close()
    assert (structure(base), fingerprint(base)) == (before, bits)


@pytest.mark.real  # each variant's blocks are traced
@pytest.mark.parametrize("name", available())
def test_every_variant_has_traced_the_losses_that_it_has_as_written(name, monkeypatch) -> None:
    """Without a compiler: what was traced is computed by PyTorch."""
    monkeypatch.setattr(loop, "compile_blocks", partial(compile_blocks, backend="eager"))
    base = base_for(get_variant(name), layers=1)
    traced, written = (losses(base, steps=2, variant=name, compile=wanted) for wanted in (True, False))
    assert traced == pytest.approx(written, abs=1e-4)


@pytest.mark.real
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_base_has_traced_the_losses_that_it_has_as_written(kind, monkeypatch) -> None:
    monkeypatch.setattr(loop, "compile_blocks", partial(compile_blocks, backend="aot_eager"))
    base = quantize(make_base(layers=1), kind)
    traced, written = (losses(base, steps=2, compile=wanted) for wanted in (True, False))
    assert traced == pytest.approx(written, abs=1e-4)


@pytest.mark.real
def test_blocks_that_are_computed_again_have_traced_the_losses_that_they_have_as_written(monkeypatch) -> None:
    monkeypatch.setattr(loop, "compile_blocks", partial(compile_blocks, backend="aot_eager"))
    base, how = make_base(), {"gradient_checkpointing": True, "pack_sequences": True}
    traced, written = (losses(base, steps=2, compile=wanted, settings=how) for wanted in (True, False))
    assert traced == pytest.approx(written, abs=1e-4)


@pytest.mark.real  # g++ compiles for half a minute
@pytest.mark.skipif(why_no_compiler(CPU) is not None, reason="a C++ compiler")
def test_trials_one_after_the_other_have_compiled_the_losses_that_they_have_as_written() -> None:
    """Of another rank, scale and dropout each, in micro-batches of several lengths."""
    base = make_base(layers=1)
    for knobs in ({}, {"rank": 2, "alpha_ratio": 1, "dropout": 0.1}):
        assert losses(base, compile=True, **knobs) == pytest.approx(losses(base, **knobs), abs=1e-4)
