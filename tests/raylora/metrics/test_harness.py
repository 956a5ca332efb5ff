"""lm-evaluation-harness as a metric, and our own metrics against it on the same questions."""

from __future__ import annotations

import importlib.util
import json
import random

import pytest
import torch

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.tasks.scoring import make_scoring
from trainables.evaluation import evaluate_model
from trainables.protocols import Sampling
from trainables.testing import make_tiny_model, tokenised_rows

WORDS = "amber birch cedar dune ember fjord grove heath".split()  # noqa: SIM905

CHOICE = """
task: own_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
WRITTEN = """
task: own_written
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{choices[label]}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 6, do_sample: false}}
filter_list:
  - {{name: stripped, filter: [{{function: remove_whitespace}}, {{function: take_first}}]}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, ignore_punctuation: true}}
"""
PERPLEXITY = """
task: own_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{prompt}}}}"
metric_list:
  - {{metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}}
"""


def made_questions(count: int) -> list[dict]:
    draw = random.Random(0)
    questions = []
    for _ in range(count):
        choices = [" ".join(draw.sample(WORDS, draw.randint(1, 3))) for _ in range(draw.randint(2, 5))]
        text = " ".join(draw.choices(WORDS, k=draw.randint(3, 30)))
        questions.append({"prompt": f"Question: {text}?\nAnswer:", "choices": choices, "label": 0})
    return [one for one in questions if len(set(one["choices"])) == len(one["choices"])]


def write_tasks(folder, questions):
    rows = folder / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, questions)))
    for name, text in {"choice": CHOICE, "written": WRITTEN, "text": PERPLEXITY}.items():
        (folder / f"{name}.yaml").write_text(text.format(rows=rows))
    return folder


def rows_of(questions, tokenizer):
    return [
        {
            "row": place,
            "prompt": one["prompt"],
            "response": one["choices"][one["label"]],
            "answer": one["choices"][one["label"]],
            "metadata": json.dumps({"choices": one["choices"], "answer_index": one["label"]}),
            "prompt_ids": tokenizer(one["prompt"])["input_ids"],
            "response_ids": [tokenizer.eos_token_id],
        }
        for place, one in enumerate(questions)
    ]


def compare(model, tokenizer, questions, folder) -> dict[str, float]:
    """Our figures beside those of the harness with its own model class, and the largest difference of likelihoods."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from raylora.metrics.core.harness import load_task

    manager, _ = load_task("own_choice", str(write_tasks(folder, questions)))
    theirs = simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
        tasks=["own_choice", "own_written"],
        task_manager=manager,
        bootstrap_iters=0,
    )
    rows = rows_of(questions, tokenizer)
    choice = make_metric("choice", {"how": "likelihood", "normalise": "characters"})
    found = choice.measure(model, tokenizer, rows)
    parts = choice.summarise(choice.score(found, rows)).parts
    samples = sorted(theirs["samples"]["own_choice"], key=lambda one: one["doc_id"])
    gaps = [
        abs(value - float(other))
        for scores, sample in zip(found, samples, strict=True)
        for value, (other, _) in zip(scores.log_likelihoods, sample["filtered_resps"], strict=True)
    ]
    exact, texts = write(model, tokenizer, rows)
    answers = sorted(theirs["samples"]["own_written"], key=lambda one: one["doc_id"])
    same = [ours.strip() == one["filtered_resps"][0].strip() for ours, one in zip(texts, answers, strict=True)]
    return {
        "gap": max(gaps),
        "none": parts["none"].value,
        "acc": theirs["results"]["own_choice"]["acc,none"],
        "characters": parts["characters"].value,
        "acc_norm": theirs["results"]["own_choice"]["acc_norm,none"],
        "same_texts": sum(same) / len(same),
        "exact": exact,
        "exact_match": float(theirs["results"]["own_written"]["exact_match,stripped"]),
    }


def spread_weights(model) -> None:
    """Weights so wide that a random model's answers differ between questions and have letters in them."""
    draw = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw)


def write(model, tokenizer, rows) -> tuple[float, list[str]]:
    """The share of exact answers, and the answers."""
    aimed, predictions = _Aimed(make_metric("exact")), []
    figures = evaluate_model(model, rows, aimed.scoring, tokenizer, split="test", predictions=predictions)
    return figures[aimed.scoring.metric], [one["completion"] for one in predictions]


class _Aimed:
    """What `make_scoring` asks of a task whose one metric is this."""

    objective, test_sets, tested_only, own = "", (), frozenset(), ("own", "max", 0.0)
    sampling = Sampling(6, stop=("\n",))

    def __init__(self, metric) -> None:
        self.default_metrics = [metric.name]
        self.scoring = make_scoring(self)

    def prepared(self, metric):
        return metric


@pytest.fixture
def loaded(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_tiny_model(tmp_path / "model")
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_the_missing_package_is_one_line(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"harness/arc_easy needs lm-evaluation-harness; pip install raylora\[eval\]"):
        make_metric("harness/arc_easy")


def test_a_slash_belongs_to_the_harness_alone() -> None:
    with pytest.raises(UserError, match="exact takes nothing behind a slash"):
        make_metric("exact/arc_easy")


@pytest.mark.real
def test_choice_and_exact_say_what_the_harness_says(loaded, tmp_path) -> None:
    pytest.importorskip("lm_eval")
    model, tokenizer = loaded
    spread_weights(model)
    questions = made_questions(40)
    _, texts = write(model, tokenizer, rows_of(questions, tokenizer))
    said = [pair for pair in zip(questions, texts, strict=True) if any(map(str.isalnum, pair[1]))]
    for one, text in said[::2]:
        one["choices"][0] = f"{text.strip()}."
    found = compare(model, tokenizer, questions, tmp_path)
    assert found["gap"] < 1e-3
    assert found["none"] == found["acc"] and found["characters"] == found["acc_norm"]
    assert found["same_texts"] == 1.0
    assert found["exact"] == found["exact_match"] == len(said[::2]) / len(questions) > 0.2


@pytest.mark.real
def test_a_harness_task_is_measured_on_the_model_as_it_stands(loaded, tmp_path) -> None:
    pytest.importorskip("lm_eval")
    model, tokenizer = loaded
    folder = str(write_tasks(tmp_path, made_questions(12)))
    metric = make_metric("harness/own_choice", {"path": folder, "metric": "acc_norm", "limit": 8})
    rows = tokenised_rows(tokenizer, 3)
    estimate = metric.summarise(metric.score(metric.measure(model, tokenizer, rows), rows))
    assert 0 <= estimate.value <= 1 and estimate.error is not None
    assert set(estimate.parts) == {"harness/own_choice.acc", "harness/own_choice.acc_norm"}
    text = make_metric("harness/own_text", {"path": folder})
    assert text.mode == "min"
    assert text.summarise(text.score(text.measure(model, tokenizer, rows), rows)).value > 1
    written = make_metric("harness/own_written", {"path": folder})
    assert written.summarise(written.score(written.measure(model, tokenizer, rows), rows)).value == 0.0


@pytest.mark.real
def test_mistakes_are_one_line(tmp_path) -> None:
    pytest.importorskip("lm_eval")
    folder = str(write_tasks(tmp_path, made_questions(2)))
    with pytest.raises(UserError, match=r"harness/none: no such task .* has own_choice, own_text, own_written"):
        make_metric("harness/none", {"path": folder})
    with pytest.raises(UserError, match=r"harness.metric: 'f1' is no metric of own_choice; choose one of acc,"):
        make_metric("harness/own_choice", {"path": folder, "metric": "f1"})
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(UserError, match="harness/own_text cannot be loaded"):
        make_metric("harness/own_text", {"path": folder})
