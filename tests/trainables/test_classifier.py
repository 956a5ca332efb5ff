"""A classification head beside an adapter: over encoders and decoders, trained, exported, opened by PEFT alone."""

from __future__ import annotations

import pickle

import pytest
import torch

from trainables.classifier import ClassifierHead, label_of
from trainables.evaluation import evaluate_model, pad_token
from trainables.protocols import TrainSettings
from trainables.run import TrialRun
from trainables.session import load_model
from trainables.testing import ENCODERS, ExactMatch, make_arithmetic_rows, make_tiny_encoder, make_tiny_model
from trainables.variants.core.export import exported_adapter, merge_folder
from trainables.variants.core.snapshot import fingerprint

LABELS = ("0", "1", "2")
CLASSES, NUMBER = ClassifierHead(LABELS), ClassifierHead()


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory, tiny_model):
    made = {"llama": tiny_model}

    def make(family: str):
        if family not in made:
            place = tmp_path_factory.mktemp(family)
            made[family] = make_tiny_encoder(place, family=family) if family in ENCODERS else make_tiny_model(place)
        return made[family]

    return make


def rows_for(tokenizer, count: int = 12) -> list[dict]:
    rows = []
    for row in make_arithmetic_rows(count):
        found = tokenizer(row["prompt"], row["answer"])
        kinds = list(found.get("token_type_ids") or [])
        span = [kinds.index(1), len(kinds)] if 1 in kinds else []
        answer = str(int(row["answer"]) % 3)
        rows.append({"prompt_ids": found["input_ids"], "response_ids": [], "prompt_trained": span, "answer": answer})
    return rows


def run_on(model, tokenizer, rows, head, variant: str = "lora", **settings) -> TrialRun:
    knobs = {"variant": variant, "rank": 2, "alpha": 4.0, "learning_rate": 1e-2, "batch_size": 4}
    asked = TrainSettings(**{"samples": 12, **settings})
    return TrialRun(model, knobs, rows, asked, pad_id=pad_token(tokenizer), head=head)


def logits_of(module, head, rows, tokenizer) -> torch.Tensor:
    module.eval()
    with torch.no_grad():
        return module(**head.collate(rows, pad_token(tokenizer)).inputs).logits


@pytest.mark.parametrize("family", [*ENCODERS, "llama"])
@pytest.mark.parametrize("head", [CLASSES, NUMBER], ids=["classes", "number"])
def test_what_was_trained_opens_with_peft_alone_and_says_the_same(folder_of, tmp_path, family, head) -> None:
    from peft import AutoPeftModelForSequenceClassification

    folder = folder_of(family)
    model, tokenizer = load_model(folder, "float32", "cpu", head=head)
    rows, before = rows_for(tokenizer), fingerprint(model)
    run = run_on(model, tokenizer, rows, head)
    untrained = logits_of(run.module, head, rows, tokenizer)
    run.advance(12)
    learned = logits_of(run.module, head, rows, tokenizer)
    adapter = run.save_adapter(tmp_path / "adapter", str(folder))
    run.close()
    assert fingerprint(model) == before and (learned - untrained).abs().max() > 1e-3
    opened = AutoPeftModelForSequenceClassification.from_pretrained(adapter, num_labels=max(1, len(head.labels)))
    opened.base_model.model.config.pad_token_id = pad_token(tokenizer)
    assert torch.allclose(logits_of(opened, head, rows, tokenizer), learned, atol=1e-5)


@pytest.mark.parametrize("variant", ["pissa", "full", "dora", "randlora", "hyper_lora", "loft", "lora_fa", "eva"])
def test_the_head_is_trained_and_written_whatever_the_variant(folder_of, tmp_path, variant) -> None:
    folder = folder_of("roberta")
    model, tokenizer = load_model(folder, "float32", "cpu", head=CLASSES)
    rows, before = rows_for(tokenizer), fingerprint(model)
    start = model.classifier.out_proj.weight.clone()
    run = run_on(model, tokenizer, rows, CLASSES, variant)
    run.advance(12)
    assert not torch.equal(model.classifier.out_proj.weight, start)
    learned = logits_of(run.module, CLASSES, rows, tokenizer)
    adapter = run.save_adapter(tmp_path / "adapter", str(folder))
    run.close()
    with exported_adapter(model, adapter) as served:
        assert torch.allclose(logits_of(served, CLASSES, rows, tokenizer), learned, atol=1e-4)
    assert fingerprint(model) == before
    assert torch.allclose(logits_of(merge_folder(model, adapter), CLASSES, rows, tokenizer), learned, atol=1e-4)


def test_an_interrupted_trial_goes_on_with_its_head(folder_of, tmp_path) -> None:
    model, tokenizer = load_model(folder_of("llama"), "float32", "cpu", head=CLASSES)
    rows, found = rows_for(tokenizer), []
    for stops in (False, True):
        run = run_on(model, tokenizer, rows, CLASSES)
        run.advance(4)
        if stops:
            run.save(tmp_path / "state")
            run.close()
            run = run_on(model, tokenizer, rows, CLASSES)
            run.load(tmp_path / "state")
        run.advance(12)
        found.append(logits_of(run.module, CLASSES, rows, tokenizer))
        run.close()
    assert torch.equal(*found)


def test_a_step_does_not_depend_on_its_micro_batches(folder_of) -> None:
    model, tokenizer = load_model(folder_of("deberta-v2"), "float32", "cpu", head=CLASSES)
    rows, losses = rows_for(tokenizer), []
    for tokens in (1, 4096):
        model.config.hidden_dropout_prob = 0.0
        run = run_on(model, tokenizer, rows, CLASSES, micro_batch_tokens=tokens)
        run.module.eval()  # dropout draws by batch
        losses.append(run.train_step())
        run.close()
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_head_learns_what_can_be_told_from_the_text(folder_of) -> None:
    model, tokenizer = load_model(folder_of("llama"), "float32", "cpu", head=CLASSES)
    rows = [
        {"prompt_ids": [40 + k % 3] * 3, "response_ids": [], "prompt_trained": [], "answer": LABELS[k % 3]}
        for k in range(12)
    ]
    run = run_on(model, tokenizer, rows, CLASSES, samples=240)
    run.advance(240)
    scores = run.evaluate(rows, ExactMatch(), tokenizer)
    run.close()
    assert scores["accuracy"] == 1.0 and scores["validation_loss"] < 0.5


def test_rows_are_padded_on_the_right_and_second_texts_told_apart() -> None:
    rows = [
        {"prompt_ids": [5, 6, 7], "prompt_trained": [1, 3], "answer": "2.0"},
        {"prompt_ids": [8], "prompt_trained": None, "answer": "new"},
    ]
    batch = CLASSES.collate(rows, pad_id=9)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.inputs["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 0]]
    assert batch.labels.tolist() == [2, -100]
    assert "token_type_ids" not in CLASSES.collate(rows[1:], pad_id=9).inputs


def test_a_label_that_was_never_trained_on_is_wrong_and_has_no_loss(folder_of) -> None:
    model, tokenizer = load_model(folder_of("roberta"), "float32", "cpu", head=CLASSES)
    rows = rows_for(tokenizer, 4)
    answers: list[dict] = []
    known = evaluate_model(model, rows, ExactMatch(), tokenizer, head=CLASSES, predictions=answers)
    strange = [*rows, {**rows[0], "answer": "never seen"}]
    found = evaluate_model(model, strange, ExactMatch(), tokenizer, head=CLASSES)
    assert found["validation_loss"] == pytest.approx(known["validation_loss"])
    assert found["accuracy"] == pytest.approx(known["accuracy"] * 4 / 5)
    assert {row["completion"] for row in answers} <= set(LABELS)


def test_a_label_is_answered_in_the_spelling_of_its_row() -> None:
    assert label_of(" 1.0 ") == "1" and label_of("1.5") == "1.5" and label_of("no. 1.0") == "no. 1.0"
    assert CLASSES.text([0.0, 3.0, 1.0], "1.0") == "1.0"
    assert CLASSES.text([0.0, 3.0, 1.0], "2") == "1"
    assert NUMBER.text([2.5]) == "2.500000"


def test_a_new_head_is_the_same_wherever_it_is_made(folder_of) -> None:
    first, second = (load_model(folder_of("roberta"), "float32", "cpu", head=CLASSES)[0] for _ in range(2))
    assert fingerprint(first) == fingerprint(second)
    other = load_model(folder_of("roberta"), "float32", "cpu", head=ClassifierHead(LABELS, seed=1))[0]
    assert fingerprint(other) != fingerprint(first)
    assert pickle.loads(pickle.dumps(CLASSES)) == CLASSES
    assert first.config.id2label == dict(enumerate(LABELS))


def test_the_head_of_a_bf16_model_is_trained_in_fp32(folder_of) -> None:
    model, tokenizer = load_model(folder_of("bert"), "bfloat16", "cpu", head=CLASSES)
    rows = rows_for(tokenizer, 4)
    run = run_on(model, tokenizer, rows, CLASSES, samples=4)
    run.advance(4)
    assert {p.dtype for p in run.head_optimizer.param_groups[0]["params"]} == {torch.float32}
    assert model.bert.encoder.layer[0].output.dense.weight.dtype == torch.bfloat16
    run.close()
