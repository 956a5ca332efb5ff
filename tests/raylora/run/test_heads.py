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
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, ray_local):
    place = tmp_path_factory.mktemp("head")
    spec = {
        "model": str(make_tiny_encoder(place / "roberta")),
        "dtype": "float32",
        "storage_path": str(place / "runs"),
        "name": "run",
        "task": {"path": str(write_rows(place / "rows")), "head": "classifier", "validation_rows": 9, "proxy": 1.0},
        "space": {"variant": ["lora"], "rank": [2], "learning_rate": [5e-3], "batch_size": [8], "dropout": 0.0},
        "default_recipe": {"rank": 2, "alpha": 4, "batch_size": 8},
        "search": {"searcher": "random", "trials": 1},
        "resources": {"cpus_per_host": 1},
    }
    (place / "spec.yaml").write_text(yaml.safe_dump(spec))
    raylora.tune(place / "spec.yaml", quiet=True)
    return raylora.open_run(place / "runs" / "run")


def test_the_summary_has_the_metrics_of_labels(run) -> None:
    assert run.summary["metric"] == "accuracy" and 0 <= run.summary["best"]["test"] <= 1
    assert json.loads((run.folder / "data.json").read_text())["labels"] == NAMES


def test_the_run_scores_again_what_its_final_stage_scored(run) -> None:
    found = raylora.evaluate(run.folder, quiet=True)
    assert found.value == pytest.approx(run.summary["best"]["test"])
    assert {answer["completion"] for answer in found.answers} <= set(NAMES)
    told = {"task.head": "classifier", "dtype": "float32"}
    adapter = evaluate(str(run.folder / "adapter"), data=[run.spec.task.path], changes=told, quiet=True)
    assert adapter.value == pytest.approx(found.value)


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
