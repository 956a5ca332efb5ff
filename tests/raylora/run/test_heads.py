"""A run with a classification head, from labelled rows to what others open."""

from __future__ import annotations

import json
import random

import pytest
import yaml

import raylora
from raylora.errors import UserError
from raylora.run.evaluate import evaluate
from trainables.testing import make_tiny_encoder

NAMES = ["negative", "neutral", "positive"]
WORDS = {"negative": "bad awful poor", "neutral": "plain common usual", "positive": "good lovely fine"}


def write_rows(folder):
    draw = random.Random(0)
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 48), ("test", 12)):
        labels = NAMES * (count // 3)
        rows = [{"text": f"{draw.choice(WORDS[n].split())} thing {k}", "label": n} for k, n in enumerate(labels)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    # A label that train lacks, among those that it has.
    strange = [*rows[:5], {"text": "odd thing", "label": "unheard of"}]
    (folder.parent / "strange.jsonl").write_text("\n".join(map(json.dumps, strange)))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, ray_local):
    place = tmp_path_factory.mktemp("head")
    rows = write_rows(place / "rows")
    task = {"path": str(rows), "head": "classifier", "validation_rows": 9, "proxy": 1.0}
    task["test_sets"] = {"known": str(rows / "test.jsonl"), "strange": str(place / "strange.jsonl")}
    found = {"f1": {"positive": "positive", "as": "found"}}
    task["metrics"] = ["accuracy", {"known": found}, {"strange": "matthews"}, "loss"]
    spec = {
        "model": str(make_tiny_encoder(place / "roberta")),
        "dtype": "float32",
        "storage_path": str(place / "runs"),
        "name": "run",
        "task": task,
        "space": {"variant": ["lora"], "rank": [2], "learning_rate": [5e-3], "batch_size": [8], "dropout": 0.0},
        "default_recipe": {"rank": 2, "alpha": 4, "batch_size": 8},
        "search": {"searcher": "random", "trials": 1, "objective": ["accuracy", "found"]},
        "resources": {"cpus_per_host": 1},
    }
    (place / "spec.yaml").write_text(yaml.safe_dump(spec))
    raylora.tune(place / "spec.yaml", quiet=True)
    return raylora.open_run(place / "runs" / "run")


def test_the_summary_has_the_metrics_of_labels_each_where_it_counts(run) -> None:
    assert run.summary["metric"] == "objective" and 0 <= run.summary["best"]["test"] <= 1
    found = run.summary["best"]["metrics"]
    assert {name: set(figures) for name, figures in found.items()} == {
        "validation": {"accuracy", "found", "matthews", "validation_loss", "objective"},
        "test.known": {"accuracy", "found", "validation_loss", "objective"},
        "test.strange": {"accuracy", "matthews", "validation_loss"},
    }
    for figures in (found["validation"], found["test.known"]):
        assert figures["objective"][0] == pytest.approx((figures["accuracy"][0] + figures["found"][0]) / 2)
    headlines = found["test.known"]["objective"][0], found["test.strange"]["accuracy"][0]
    assert run.summary["best"]["test"] == pytest.approx(sum(headlines) / 2)
    assert json.loads((run.folder / "data.json").read_text())["labels"] == NAMES


def test_the_run_scores_again_what_its_final_stage_scored(run) -> None:
    found = raylora.evaluate(run.folder, quiet=True)
    assert found.value == pytest.approx(run.summary["best"]["test"])
    assert {answer["completion"] for answer in found.answers} <= set(NAMES)
    assert [a["scores"]["accuracy"] for a in found.answers if a["answer"] == "unheard of"] == [0.0]
    told = {"task.head": "classifier", "dtype": "float32"}
    adapter = evaluate(str(run.folder / "adapter"), data=[run.spec.task.path], changes=told, quiet=True)
    assert adapter.value == pytest.approx(found.sets["known"].figures["accuracy"][0])


def test_adapter_and_merged_model_open_with_their_libraries_and_agree(run, tmp_path) -> None:
    import torch
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    plain, merged = run.export(tmp_path / "plain"), run.export(tmp_path / "merged", merge=True)
    opened = AutoPeftModelForSequenceClassification.from_pretrained(plain, num_labels=3).eval()
    whole = AutoModelForSequenceClassification.from_pretrained(merged).eval()
    assert whole.config.id2label == dict(enumerate(NAMES))
    inputs = AutoTokenizer.from_pretrained(merged)("a good thing", return_tensors="pt")
    with torch.no_grad():
        first, second = opened(**inputs).logits, whole(**inputs).logits
    assert torch.allclose(first, second, atol=1e-5)
    answer = run.load().answer(["a good thing", ("a good thing", "and another")])
    assert answer[0] == NAMES[int(second.argmax())]
    card = (plain / "README.md").read_text()
    assert "AutoPeftModelForSequenceClassification" in card and "text-classification" in card
    assert "num_labels=3, id2label={0: 'negative', 1: 'neutral', 2: 'positive'}" in card


def test_what_is_for_language_models_is_refused_in_one_line(run, tmp_path) -> None:
    from raylora.run.recipes.export import export_recipe

    with pytest.raises(UserError, match=r"task.head: classifier: recipes for other toolkits are of language models"):
        export_recipe(run.folder, "trl", tmp_path / "recipe")
    with pytest.raises(UserError, match=r"roberta is an encoder, .* task.head = classifier"):
        evaluate(str(run.folder / "adapter"), data=[run.spec.task.path], quiet=True)
