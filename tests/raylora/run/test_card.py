from __future__ import annotations

import shutil

import pytest
from huggingface_hub import ModelCard

from raylora.run.export import export


@pytest.fixture
def card(old_run, tmp_path) -> ModelCard:
    return ModelCard.load(export(old_run("finished"), tmp_path / "sums") / "README.md")


def test_the_header_is_what_the_hub_reads(card) -> None:
    assert card.data.library_name == "peft"
    assert "lora" in card.data.tags and card.data.pipeline_tag == "text-generation"


@pytest.mark.parametrize(("base", "relation"), [(None, None), ("org/base", "adapter")], ids=["folder", "hub"])
def test_the_header_names_a_base_of_the_hub_and_no_folder(old_run, tmp_path, base, relation) -> None:
    header = ModelCard.load(export(old_run("finished"), tmp_path / "out", base=base) / "README.md").data
    assert (header.base_model, header.get("base_model_relation")) == (base, relation)


def test_the_score_on_test_is_a_result(card) -> None:
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("accuracy", 0.0, "test")


def test_scores_have_errors_and_the_recipe_its_knobs(card) -> None:
    assert "| **this one** | 0.0000 ± 0.0000 | 0.0000 ± 0.0000 |" in card.text
    assert "| rank | 2 |" in card.text and "| alpha | 4 |" in card.text and "| learning rate | 0.005 |" in card.text


def test_where_the_rows_lie_is_not_told(card, old_rows) -> None:
    assert str(old_rows) not in card.text and old_rows.name in card.text


def test_the_code_to_load_it_is_code(card) -> None:
    code = card.text.split("```python\n")[1].split("```")[0]
    assert "AutoPeftModelForCausalLM" in code
    compile(code, "card", "exec")


def test_the_licence_is_that_of_the_base(old_run, old_model, tmp_path) -> None:
    run = old_run("finished")
    base = tmp_path / "base"
    shutil.copytree(old_model, base)
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    spec = run / "spec.yaml"
    spec.write_text(spec.read_text().replace(str(old_model), str(base)))
    assert ModelCard.load(export(run, tmp_path / "out") / "README.md").data.license == "mit"
