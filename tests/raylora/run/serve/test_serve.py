"""What is refused before anything is loaded."""

from __future__ import annotations

import json

import pytest

from raylora.errors import UserError
from raylora.run.serve.serve import _name, serve


def refused(target, **options) -> str:
    with pytest.raises(UserError) as caught:
        serve(str(target), lambda url: None, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_classifier_writes_no_text(old_run) -> None:
    adapter = old_run("finished") / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"task_type": "SEQ_CLS"}))
    assert "has a classification head, which writes no text; `raylora evaluate` scores it" in refused(adapter)


def test_an_adapter_of_another_model_is_one_line(old_run, tiny_model) -> None:
    told = refused(old_run("finished") / "adapter", base=str(tiny_model), port=0)
    assert told.startswith("RUN: ") and "cannot be served" in told


@pytest.mark.parametrize(
    ("engine", "variable"), [("vllm", "RAYLORA_VLLM_PYTHON"), ("llamacpp", "RAYLORA_LLAMACPP_PYTHON")]
)
def test_an_engine_that_is_not_there_says_how_to_get_it(old_run, monkeypatch, engine, variable) -> None:
    monkeypatch.setenv(variable, "/bin/false")
    told = refused(old_run("finished"), engine=engine)
    assert told.startswith(f"{variable} = /bin/false: it is no Python that has ") and "install" in told


@pytest.mark.parametrize(
    ("target", "name"), [("s3://bucket/runs/first/", "first"), ("org/model", "org/model"), ("FOLDER", "given")]
)
def test_a_model_is_called_after_its_folder_or_its_id(tmp_path, target, name) -> None:
    (tmp_path / "given").mkdir()
    assert _name(target.replace("FOLDER", str(tmp_path / "given"))) == name
