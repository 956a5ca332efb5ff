"""Adapters over one engine, and what is told where it cannot have them or dies; vLLM itself where it is there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from raylora.errors import RunFailed, UserError
from raylora.run.engine.actor import Engine, EngineSetup, seed_of
from raylora.run.vllm import VARIABLE
from trainables.protocols import Sampling
from trainables.written import Asked

SAMPLING = Sampling(max_new_tokens=8)


@pytest.fixture
def engine(vllm, tiny_model, tmp_path):
    made = Engine(EngineSetup(str(tiny_model), length=64, rank=8, run_dir=str(tmp_path)))
    yield made
    made.close()


@pytest.fixture
def adapter(tmp_path):
    """Write the configuration of a LoRA."""

    def write(**changes) -> str:
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "bias": "none", **changes}
        (tmp_path / "adapter").mkdir(exist_ok=True)
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
        return str(tmp_path / "adapter")

    return write


def asked(adapter: str = "", first: int = 7, **changes) -> Asked:
    return Asked(adapter, [[first, 3]], changes.pop("sampling", SAMPLING), [2], "float32", **changes)


def test_adapters_come_and_go_in_one_process(engine, adapter) -> None:
    assert engine.start("float32") == "0.0"
    pid = engine._child.pid
    assert engine.write(asked(adapter())).answers == [[[7, 4, 8, 1, 0]]]
    assert engine.write(asked(adapter(r=2))).answers == [[[7, 2, 8, 1, 0]]]
    assert engine.write(asked()).answers == [[[7, 0, 8, 1, 0]]]
    assert engine._child.pid == pid


def test_answers_cut_at_their_limit_are_counted(engine) -> None:
    found = engine.write(asked(sampling=Sampling(3, temperature=1.0, n=2)))
    assert found.answers == [[[7, 0, 8]] * 2] and found.cuts == [2]
    assert engine.write(asked()).cuts == [0]


def test_a_prompt_that_leaves_no_room_gets_no_answer_and_spoils_none(engine) -> None:
    found = engine.write(Asked("", [[7] * 64, [7, 3]], SAMPLING, [2], "float32"))
    assert [len(answers[0]) for answers in found.answers] == [0, 5] and found.cuts == [1, 0]


def test_an_adapter_of_a_larger_rank_gets_an_engine_with_room_for_it(engine, adapter) -> None:
    engine.write(asked(adapter()))
    assert engine.write(asked(adapter(r=20))).answers == [[[7, 20, 32, 1, 0]]]


def test_what_vllm_cannot_have_is_left_to_the_host_or_merged(vllm, old_run, old_model, tmp_path) -> None:
    engine = Engine(EngineSetup(str(old_model), length=64, rank=8, run_dir=str(tmp_path)))
    folder = old_run("finished") / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "bias": "all"}))
    assert engine.write(asked(str(folder))) is None
    # A model of its own, with no room for adapters, in float32 whatever the hosts hold.
    found = engine.write(Asked(str(folder), [[7, 3]], SAMPLING, [2], "bfloat16", merge=True))
    engine.close()
    assert found.answers == [[[7, 0, 0, 1, 0]]]


def test_an_engine_that_died_is_started_again_once(engine) -> None:
    assert engine.write(asked(first=5)).answers == [[[5, 0, 8, 1, 0]]]
    with pytest.raises(RunFailed, match=r"^evaluate.engine = 'vllm': its process ended \(status 3: .*\); set ") as told:
        engine.write(asked(first=6))
    assert "\n" not in str(told.value)
    assert engine.write(asked()).answers == [[[7, 0, 8, 1, 0]]]


def test_a_model_that_it_cannot_have_is_the_users_error(vllm, tmp_path, tiny_model) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_model.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    told = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**told, "refused": True}))
    made = Engine(EngineSetup(str(model), length=64, rank=8, run_dir=str(tmp_path)))
    with pytest.raises(UserError, match=r"vLLM cannot have .*: no kernel for it; set evaluate.engine = transformers"):
        made.start("float32")


def test_the_draws_of_a_prompt_are_its_own() -> None:
    seeds = {seed_of(Sampling(8, 1.0, seed=seed), ids) for seed in (0, 1) for ids in ([1, 2], [2, 1], [1, 2, 0])}
    assert len(seeds) == 6 and seed_of(Sampling(8, 1.0), [1, 2]) in seeds


@pytest.mark.real
@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE}: vLLM is in an environment of its own")
@pytest.mark.parametrize("model", ["tiny", "smollm2-135m"])
def test_vllm_finds_the_greedy_tokens_of_the_host(model, tmp_path) -> None:
    import pyarrow as pa

    from raylora.models import resolve
    from trainables.evaluation import decode, end_tokens, turn_ends
    from trainables.protocols import TrainSettings, TrialSetup
    from trainables.recipe import RecipeJob, run_recipe
    from trainables.rows import Rows
    from trainables.session import load_base
    from trainables.testing import ExactMatch, make_tiny_model, tokenised_rows
    from trainables.variants.core.export import exported_adapter

    # Heads of 32: vLLM has no kernel for those of the other tiny models.
    folder = make_tiny_model(tmp_path / "tiny", hidden=128) if model == "tiny" else Path(resolve(model, quiet=True))
    scorer = ExactMatch(sampling=Sampling(24))
    setup = TrialSetup(
        str(folder), scorer, TrainSettings(32), [], [], str(tmp_path), dtype="float32", device="cpu", threads=1
    )
    loaded, tokenizer = load_base(setup)
    rows = tokenised_rows(tokenizer, 40)
    # A random model repeats one token until it is moved far.
    rate = 0.1 if model == "tiny" else 1e-3
    knobs = {"variant": "pissa", "rank": 4, "alpha_ratio": 1, "learning_rate": rate, "batch_size": 8, "dropout": 0.0}
    table = pa.Table.from_pylist(rows[:32])
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    job = RecipeJob(str(tmp_path), {}, knobs, Rows([str(tmp_path / "rows.arrow")]), samples=32)
    run_recipe(job, setup, loaded, tokenizer)
    asked = rows[32:]
    untouched = decode(loaded, asked, scorer, tokenizer).answers
    with exported_adapter(loaded, tmp_path / "adapter") as adapted:
        own = decode(adapted, asked, scorer, tokenizer)
        ends = sorted({*end_tokens(adapted, tokenizer), *turn_ends(asked, tokenizer)})
    assert own.answers != untouched
    engine = Engine(EngineSetup(str(folder), length=128, rank=8, run_dir=str(tmp_path), threads=1))
    prompts = [list(row["prompt_ids"]) for row in asked]
    try:
        tuned = engine.write(Asked(str(tmp_path / "adapter"), prompts, scorer.sampling, ends, "float32"))
        base = engine.write(Asked("", prompts, scorer.sampling, ends, "float32"))
    finally:
        engine.close()
    print(f"{model}: {sum(len(one[0]) for one in own.answers)} tokens of {len(asked)} answers")
    assert (tuned.answers, tuned.cuts) == (own.answers, own.cuts)
    assert base.answers == untouched
