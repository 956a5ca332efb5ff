from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch.nn import functional as F

from trainables.batching import collate
from trainables.exhausted import Crowded, NoRoom
from trainables.heads import LanguageHead
from trainables.parallel import Parallel
from trainables.protocols import TrainSettings
from trainables.run import TrialRun, adapter_config
from trainables.schedules import SCHEDULES, rate_factor
from trainables.testing import ExactMatch, tokenised_rows
from trainables.variants.core.snapshot import fingerprint

KNOBS = {
    "variant": "lora",
    "rank": 4,
    "alpha_ratio": 2,
    "learning_rate": 5e-3,
    "batch_size": 8,
    "dropout": 0.1,
}


@pytest.fixture
def base(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def make(base, tokenizer, knobs=KNOBS, parallel=None, **settings) -> TrialRun:
    rows = tokenised_rows(tokenizer, 24)
    return TrialRun(base, knobs, rows, TrainSettings(**{"samples": 48, **settings}), pad_id=0, parallel=parallel)


def test_alpha_wins_over_alpha_ratio_and_a_variant_gets_its_own_knobs() -> None:
    knobs = {"variant": "pissa", "rank": 4, "alpha": 32, "learning_rate": 1e-3, "niter": 2, "of_another": 1}
    config = adapter_config(knobs, TrainSettings(samples=1))
    assert config.alpha == 32
    assert config.extra == {"niter": 2}
    assert adapter_config({"rank": 4, "alpha_ratio": 0.5, "learning_rate": 1e-3}, TrainSettings(samples=1)).alpha == 2


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_of_each_step_is_the_schedules(schedule, base, tokenizer) -> None:
    run = make(base, tokenizer, schedule=schedule, warmup_ratio=0.25)
    rates = []
    while not run.done:
        run.train_step()
        rates.append(run.optimizer.param_groups[0]["lr"] / KNOBS["learning_rate"])
    run.close()
    assert rates == pytest.approx([rate_factor(step, run.steps, 0.25, schedule) for step in range(run.steps)])
    assert len(rates) > 4


def test_loss_is_the_mean_over_completion_tokens_whatever_the_micro_batches(base, tokenizer) -> None:
    rows = tokenised_rows(tokenizer, 8)
    batch = collate(rows, 0)
    with torch.no_grad():
        logits = base(**batch.inputs).logits[:, batch.positions]
        expected = float(F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten()))
    for tokens in (16, 64, 4096):
        run = make(base, tokenizer, {**KNOBS, "dropout": 0.0}, micro_batch_tokens=tokens)
        run.train = rows
        run._plan = iter([list(range(8))])
        assert run.train_step() == pytest.approx(expected, rel=1e-5)
        run.close()


def test_budget_is_exact_and_loss_falls(base, tokenizer) -> None:
    run = make(base, tokenizer, {**KNOBS, "batch_size": 7}, samples=150)
    first = run.train_step()
    run.advance(150)
    assert run.samples == 150 and run.done
    assert run.metrics()["loss"] < first
    run.close()


def test_batch_larger_than_the_budget_still_takes_one_step(base, tokenizer) -> None:
    run = make(base, tokenizer, {**KNOBS, "batch_size": 256}, samples=10)
    run.advance(10)
    assert (run.step, run.samples) == (1, 10)
    run.close()


@pytest.mark.parametrize("variant", ["lora", "dora", "pissa"])
def test_saved_and_resumed_equals_uninterrupted(base, tokenizer, tmp_path, variant) -> None:
    knobs = {**KNOBS, "variant": variant}
    whole = make(base, tokenizer, knobs)
    losses = [whole.train_step() for _ in range(6)]
    expected = whole.variant.state()
    whole.close()
    half = make(base, tokenizer, knobs)
    assert [half.train_step() for _ in range(3)] == losses[:3]
    half.save(tmp_path / "state")
    half.close()
    rest = make(base, tokenizer, knobs)
    rest.load(tmp_path / "state")
    assert [rest.train_step() for _ in range(3)] == losses[3:]
    for name, tensor in rest.variant.state().items():
        assert torch.equal(tensor, expected[name]), name
    rest.close()


def test_base_model_is_unchanged_after_training_and_evaluation(base, tokenizer) -> None:
    before = fingerprint(base)
    for variant in ("lora", "pissa", "olora"):
        run = make(base, tokenizer, {**KNOBS, "variant": variant})
        run.advance(16)
        scores = run.evaluate(tokenised_rows(tokenizer, 6), ExactMatch(), tokenizer)
        assert 0 <= scores["accuracy"] <= 1 and math.isfinite(scores["validation_loss"])
        run.close()
        assert fingerprint(base) == before


def test_non_finite_loss_ends_the_trial_without_a_step(base, tokenizer) -> None:
    run = make(base, tokenizer)
    with torch.no_grad():
        run.parameters[0].fill_(float("nan"))
    run.advance(48)
    assert run.diverged and run.done and run.step == 1
    run.close()


def test_unknown_variant_and_oversized_rank_are_one_line_errors(base, tokenizer) -> None:
    before = fingerprint(base)
    for knobs, words in (({"variant": "nope"}, "nope"), ({"variant": "pissa", "rank": 4096}, "4096")):
        with pytest.raises(ValueError, match=words) as caught:
            make(base, tokenizer, {**KNOBS, **knobs})
        assert "\n" not in str(caught.value)
    assert fingerprint(base) == before


@pytest.mark.parametrize("variant", ["corda", "eva", "lora_ga"])
def test_starts_that_look_at_data_get_the_first_global_batch_in_micro_batches(base, tokenizer, variant) -> None:
    before = fingerprint(base)
    run = make(base, tokenizer, {**KNOBS, "variant": variant, "rank": 2}, micro_batch_tokens=64)
    assert len(run._attach_batches()) > 1
    losses = [run.train_step() for _ in range(4)]
    assert all(math.isfinite(loss) for loss in losses)
    run.close()
    assert fingerprint(base) == before


def test_rows_that_a_variant_validates_on_are_kept_out_of_its_training(base, tokenizer) -> None:
    rows = tokenised_rows(tokenizer, 24)
    knobs = {**KNOBS, "variant": "lelora", "dropout": 0}
    run = TrialRun(base, knobs, rows, TrainSettings(samples=48), pad_id=0)
    (batch,) = run.variant.validation
    assert len(batch["labels"]) == 3 and len(run.train) == 21
    apart = [row for row in rows if not any(row is one for one in run.train)]
    both = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    shown = {tuple(ids[mask > 0].tolist()) for ids, mask in both}
    assert shown == {(*row["prompt_ids"], *row["response_ids"]) for row in apart}
    run.close()


def test_adalora_is_pruned_to_its_budget_within_the_steps_of_the_trial(base, tokenizer, tmp_path) -> None:
    knobs = {**KNOBS, "variant": "adalora", "rank": 2, "learning_rate": 5e-2, "dropout": 0.0}
    run = make(base, tokenizer, knobs)
    run.advance(24)
    run.save(tmp_path / "saved")
    run.advance(48)
    plain = run.variant.to_lora()
    assert run.steps == 6 == run.variant.config.steps
    assert sum(plain.rank(name) for name in plain.factors) == 2 * len(run.variant.matrices)
    state = run.variant.state()
    run.close()
    again = make(base, tokenizer, knobs)
    again.load(tmp_path / "saved")
    again.advance(48)
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.variant.state().items())


def test_answers_end_with_the_control_token_that_the_rows_responses_end_with() -> None:
    from trainables.evaluation import turn_ends
    from trainables.testing import make_tiny_tokenizer

    tokenizer = make_tiny_tokenizer()
    start, word = tokenizer.convert_tokens_to_ids("<|im_start|>"), tokenizer("a")["input_ids"][0]
    rows = [{"response_ids": [word, start]}, {"response_ids": [start, word]}, {"response_ids": []}]
    assert turn_ends(rows, tokenizer) == {start}


# -- memory that runs out ----------------------------------------------------------------------------------------------


def fits_at_most(monkeypatch, rows: int, error: Exception | None = None) -> None:
    """Lets a backward pass over more than so many rows at a time fail, after what was done before it."""
    original = LanguageHead.loss

    def loss(self, module, batch):
        if len(batch.labels) > rows:
            raise error or RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
            )
        return original(self, module, batch)

    monkeypatch.setattr(LanguageHead, "loss", loss)


@pytest.mark.parametrize("variant", ["lora", "adalora", "hyper_lora"])
def test_a_step_that_does_not_fit_is_repeated_with_smaller_micro_batches_and_the_same_result(
    base, tokenizer, monkeypatch, variant
) -> None:
    knobs = {**KNOBS, "variant": variant}
    fits_at_most(monkeypatch, 2)
    halved = make(base, tokenizer, knobs)
    losses = [halved.train_step() for _ in range(4)]
    state, tokens = halved.variant.state(), halved.micro_batch_tokens
    halved.close()
    assert tokens < TrainSettings(samples=1).micro_batch_tokens
    small = make(base, tokenizer, knobs, micro_batch_tokens=tokens)
    assert [small.train_step() for _ in range(4)] == losses
    assert all(torch.equal(tensor, state[name]) for name, tensor in small.variant.state().items())


def test_without_dropout_smaller_micro_batches_give_the_same_gradients(base, tokenizer, monkeypatch) -> None:
    knobs = {**KNOBS, "dropout": 0.0}
    whole = make(base, tokenizer, knobs)
    expected = [whole.train_step() for _ in range(4)]
    whole.close()
    fits_at_most(monkeypatch, 3, MemoryError())
    halved = make(base, tokenizer, knobs)
    assert [halved.train_step() for _ in range(4)] == pytest.approx(expected, rel=1e-5)


class OneOfTwo(Parallel):
    world = 2


def test_a_worker_of_a_group_asks_all_to_begin_again_with_what_fits(base, tokenizer, monkeypatch) -> None:
    fits_at_most(monkeypatch, 1)
    run = make(base, tokenizer, parallel=OneOfTwo())
    with pytest.raises(Crowded, match="micro-batches of") as caught:
        run.train_step()
    assert 0 < caught.value.micro_batch_tokens < TrainSettings(samples=1).micro_batch_tokens
    assert pickle.loads(pickle.dumps(caught.value)).micro_batch_tokens == caught.value.micro_batch_tokens


def test_where_not_even_one_row_fits_the_error_says_so(base, tokenizer, monkeypatch) -> None:
    fits_at_most(monkeypatch, 0)
    run = make(base, tokenizer)
    with pytest.raises(NoRoom, match=r"one row of \d+ tokens does not fit into memory \(.*can't allocate memory"):
        run.train_step()


def test_another_error_is_not_taken_for_one_of_memory(base, tokenizer, monkeypatch) -> None:
    fits_at_most(monkeypatch, 2, RuntimeError("shape '[3]' is invalid for input of size 4"))
    with pytest.raises(RuntimeError, match="is invalid"):
        make(base, tokenizer).train_step()


def test_a_start_that_looks_at_data_does_it_with_smaller_micro_batches(base, tokenizer, monkeypatch) -> None:
    sizes: list[int] = []
    original = LanguageHead.labelled

    def batches(self, rows, pad_id, max_tokens, device):
        made = original(self, rows, pad_id, max_tokens, device)
        sizes.append(max(len(batch["input_ids"]) for batch in made))
        if sizes[-1] > 2:
            raise MemoryError
        return made

    monkeypatch.setattr(LanguageHead, "labelled", batches)
    run = make(base, tokenizer, {**KNOBS, "variant": "lora_ga"})
    assert sizes == [8, 4, 2] and math.isfinite(run.train_step())


def test_packed_sequences_give_the_loss_of_padded_rows(base, tokenizer) -> None:
    losses, tokens = [], []
    for packed in (False, True):
        run = make(base, tokenizer, {**KNOBS, "dropout": 0.0}, pack_sequences=packed)
        for index, row in enumerate(run.train):  # of many lengths, so that some share a sequence
            row["prompt_ids"] = row["prompt_ids"] * (1 + index % 3)
        losses.append([run.train_step() for _ in range(4)])
        tokens.append(sum(math.prod(run.size(group)) for group in run._micro_batches(run.train)))
        run.close()
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert tokens[1] < 0.9 * tokens[0]


def test_blocks_that_are_computed_again_change_nothing(base, tokenizer) -> None:
    losses, before = [], fingerprint(base)
    for again in (False, True):
        run = make(base, tokenizer, gradient_checkpointing=again)
        run.advance(24)
        losses.append(run.metrics()["loss"])
        run.close()
        assert not base.model.layers[0].gradient_checkpointing
    assert losses[0] == losses[1] and fingerprint(base) == before
