"""What is scored, told by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raylora import models
from raylora.errors import UserError
from raylora.run.subject import check_adapter, find_subject


@pytest.fixture
def adapter(tmp_path, tiny_model):
    """Write an adapter's configuration; it names the tiny model as its base."""

    def write(**changes: Any):
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(tiny_model)}
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))
        return folder

    return write


def test_a_model_an_adapter_and_a_run_are_told_apart(tiny_model, adapter, workplace) -> None:
    run = workplace / "runs" / "sums"
    found = {name: find_subject(str(path)) for name, path in (("m", tiny_model), ("a", adapter()), ("r", run))}
    assert [one.kind for one in found.values()] == ["model", "adapter", "run"]
    assert {one.folder for one in found.values()} == {tiny_model.resolve()}
    assert (found["m"].adapter, found["r"].adapter) == (None, run / "adapter")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (None, "--base: missing; .*adapter names no base model; give it with --base"),
        ("/gone/model", "--base: missing; .*adapter names '/gone/model' as its base, which cannot be had here"),
    ],
)
def test_a_base_that_cannot_be_had_is_asked_for_and_taken(adapter, tiny_model, named, message) -> None:
    folder = adapter(base_model_name_or_path=named)
    with pytest.raises(UserError, match=message):
        find_subject(str(folder))
    assert find_subject(str(folder), str(tiny_model)).folder == tiny_model.resolve()


def test_a_whole_model_takes_no_base(tiny_model) -> None:
    with pytest.raises(UserError, match="is no adapter but a model, which needs none; leave --base out"):
        find_subject(str(tiny_model), str(tiny_model))


def test_a_run_without_an_adapter_says_how_to_get_one(workplace) -> None:
    with pytest.raises(
        UserError,
        match=r"again has no adapter, as final.enabled is false; `raylora tune .*best.yaml final.enabled=true`",
    ):
        find_subject(str(workplace / "runs" / "again"))


def test_a_tokenizer_beside_the_adapter_is_its_own(adapter, tiny_model) -> None:
    folder = adapter()
    assert find_subject(str(folder)).tokenizer == tiny_model.resolve()
    (folder / "tokenizer_config.json").write_text("{}")
    assert find_subject(str(folder)).tokenizer == folder


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "is a PREFIX_TUNING adapter, which adds virtual tokens; allowed: adapters of"),
        ({"task_type": "SEQ_CLS"}, "is an adapter for SEQ_CLS; allowed: adapters of language models; set task.head"),
    ],
)
def test_adapters_that_no_answer_can_be_decoded_with_are_refused(adapter, config, message) -> None:
    with pytest.raises(UserError, match=message):
        check_adapter(find_subject(str(adapter(**config))))


def test_a_name_on_the_hub_is_an_adapter_where_the_hub_has_its_configuration(monkeypatch, adapter) -> None:
    folder = adapter()
    monkeypatch.setattr("huggingface_hub.file_exists", lambda name, file: name == "org/adapter")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *names, **options: str(folder))
    assert find_subject("org/adapter").adapter == folder
    assert models.adapter_from_hub("org/model") is None
    assert models.adapter_from_hub("smollm2-135m") is None
