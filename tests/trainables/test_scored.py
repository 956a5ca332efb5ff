"""Scoring an adapter over a model in one process, without a run."""

from __future__ import annotations

import pytest

from trainables.protocols import TrainSettings, TrialSetup
from trainables.scored import score
from trainables.session import load_base
from trainables.testing import ExactMatch, tokenised_rows


def test_the_model_is_itself_again_after_its_adapter_was_scored(tiny_model, tmp_path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules=["q_proj"]))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.5)
    tuned.save_pretrained(tmp_path)
    setup = TrialSetup(str(tiny_model), ExactMatch(), TrainSettings(1), [], [], str(tmp_path), dtype="float32")
    model, tokenizer = load_base(setup)
    rows = tokenised_rows(tokenizer, 4)
    import pyarrow as pa

    file = tmp_path / "rows.arrow"
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, (table := pa.Table.from_pylist(rows)).schema) as out:
        out.write_table(table)
    losses = [
        score(adapter, {"test": [str(file)]}, setup, model, tokenizer)["test"].metrics["validation_loss"]
        for adapter in ("", str(tmp_path), "")
    ]
    assert losses[0] == pytest.approx(losses[2]) and losses[0] != pytest.approx(losses[1])
