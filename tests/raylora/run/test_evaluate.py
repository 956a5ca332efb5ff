"""Scores of adapters and models by the final stage's rows, tokens and metrics."""

from __future__ import annotations

import json
import shutil

import pytest

from raylora.data.sources import split_names
from raylora.errors import UserError
from raylora.run.evaluate import Evaluation, _sources, _spec, evaluate
from raylora.run.subject import find_subject
from raylora.spec import load
from trainables.journal import Journal

LOSS = {"task.metrics": ["exact", "loss"]}
LIKE_THE_RUN = {**LOSS, "task.max_new_tokens": 4, "dtype": "float32"}


@pytest.fixture(scope="module")
def of_the_final_stage(finished_run) -> float:
    """The found recipe's loss on test, as the final stage found it."""
    rows = [row for row in Journal(finished_run.folder).rows() if row["event"] == "final"]
    return next(row["result"]["test"]["validation_loss"] for row in rows if row["label"] == "best-0")


def loss(found: Evaluation, name: str = "test") -> float | None:
    return found.sets[name].figures["validation_loss"][0]


def test_a_runs_figures_are_those_of_its_final_stage(finished_run, of_the_final_stage) -> None:
    found = evaluate(str(finished_run.folder), changes=LOSS, quiet=True)
    assert loss(found) == pytest.approx(of_the_final_stage, rel=1e-6)
    best = finished_run.summary["best"]
    assert (found.value, found.error) == (best["test"], best["test_se"])
    assert (found.kind, found.metric, found.sets["test"].rows) == ("run", "accuracy", 12)


def test_an_adapter_without_a_spec_scores_the_same_on_the_same_rows(finished_run, of_the_final_stage, sums) -> None:
    adapter = str(finished_run.folder / "adapter")
    found = evaluate(adapter, data=[str(sums)], changes=LIKE_THE_RUN, quiet=True)
    assert loss(found) == pytest.approx(of_the_final_stage, rel=1e-6) and found.kind == "adapter"


def test_what_peft_saved_elsewhere_is_scored_and_its_answers_are_told(tiny_model, sums, tmp_path, ray_local) -> None:
    import torch
    from peft import IA3Config, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    elsewhere = get_peft_model(
        base, IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[])
    )
    for parameter in elsewhere.parameters():
        if parameter.requires_grad:
            torch.nn.init.constant_(parameter, 3.0)
    elsewhere.save_pretrained(tmp_path / "elsewhere")
    sets = [f"all={sums / 'train.jsonl'}", f"few={sums / 'test.jsonl'}"]
    tuned, untouched = (
        evaluate(target, data=sets, changes=LIKE_THE_RUN, rows=6, quiet=True)
        for target in (str(tmp_path / "elsewhere"), str(tiny_model))
    )
    assert {name: one.rows for name, one in tuned.sets.items()} == {"all": 6, "few": 6}
    assert loss(tuned, "few") != loss(untouched, "few")
    assert [one["set"] for one in tuned.answers] == ["all"] * 6 + ["few"] * 6
    assert set(tuned.answers[0]) == {"set", "row", "prompt", "answer", "completion", "scores"}
    assert set(tuned.answers[0]["scores"]) == {"accuracy", "validation_loss"}


def test_an_adapter_of_another_model_is_refused_in_one_line(finished_run, sums, tmp_path) -> None:
    from trainables.testing import make_tiny_model

    other = make_tiny_model(tmp_path / "other", hidden=16, layers=1)
    with pytest.raises(UserError, match=r"adapter over .*other cannot be scored: ") as caught:
        evaluate(str(finished_run.folder / "adapter"), data=[str(sums)], base=str(other), quiet=True)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_tokens_of_the_adapters_own_gets_room(tiny_model, sums, tmp_path, ray_local) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([f"<extra{n}>" for n in range(200)])
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    base.resize_token_embeddings(len(tokenizer))
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    get_peft_model(base, config).save_pretrained(tmp_path / "grown")
    tokenizer.save_pretrained(tmp_path / "grown")
    found = evaluate(str(tmp_path / "grown"), data=[str(sums)], changes=LIKE_THE_RUN, rows=4, quiet=True)
    assert found.sets["test"].rows == 4


# --- which rows ---


def test_the_test_split_is_scored_where_there_is_one_else_all_of_the_only_one(sums, tmp_path) -> None:
    assert _sources({}, [str(sums)], None)["task.test"] == {"path": str(sums), "split": "test"}
    file = str(sums / "train.jsonl")
    assert _sources({}, [file], None)["task.test"] == {"path": file, "split": "train"}
    shutil.copy(file, tmp_path / "train.jsonl")
    shutil.copy(file, tmp_path / "validation.jsonl")
    with pytest.raises(UserError, match=r"--split: missing; .* no test split but train, validation; name one of them"):
        _sources({}, [str(tmp_path)], None)
    assert _sources({}, [str(tmp_path)], "validation[:10%]")["task.test"]["split"] == "validation[:10%]"


def test_a_folder_with_a_test_split_alone_can_be_scored_on(sums, tmp_path) -> None:
    shutil.copy(sums / "test.jsonl", tmp_path / "test.jsonl")
    assert split_names(str(tmp_path)) == ["test"]
    assert _sources({}, [str(tmp_path)], None)["task.train"] == {"path": str(tmp_path), "split": "test"}


def test_several_sources_are_test_sets_of_their_names(sums) -> None:
    fields = _sources({}, [str(sums / "train.jsonl"), f"short={sums / 'test.jsonl'}"], None)
    assert list(fields["task.test_sets"]) == ["train", "short"] and fields["task.test"] is None
    with pytest.raises(UserError, match="two are called 'test'; give each a name"):
        _sources({}, [str(sums / "test.jsonl")] * 2, None)


def test_a_model_needs_rows(tiny_model) -> None:
    with pytest.raises(UserError, match="--data: missing; give the rows to score on, or a spec"):
        _spec(find_subject(str(tiny_model)), None, [], {}, None, None)


def test_a_runs_own_rendering_holds_for_other_rows_too(finished_run, sums) -> None:
    subject = find_subject(str(finished_run.folder))
    spec, _ = _spec(subject, None, [str(sums / "test.jsonl")], {"task.system": "Be brief."}, None, 5)
    own = load(finished_run.folder / "spec.yaml")
    assert (spec.task.max_new_tokens, spec.dtype) == (own.task.max_new_tokens, own.dtype)
    assert (spec.task.system, spec.task.test_rows) == ("Be brief.", 5)
    assert json.dumps(spec.task.test) == json.dumps({"path": str(sums / "test.jsonl"), "split": "train"})
