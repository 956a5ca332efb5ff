from __future__ import annotations

import pytest
import torch

from trainables.attention import pick_attention
from trainables.session import load_model

CPU = torch.device("cpu")


def test_auto_leaves_the_choice_to_the_model_where_flash_does_not_run() -> None:
    assert pick_attention("auto", CPU, torch.bfloat16) is None
    assert pick_attention("sdpa", CPU, torch.float32) == "sdpa"


def test_flash_says_what_it_lacks() -> None:
    with pytest.raises(ValueError, match=r"train.attention = 'flash': it needs a GPU; or choose auto, sdpa or eager"):
        pick_attention("flash", CPU, torch.bfloat16)


def test_a_model_is_loaded_with_the_attention_that_was_asked_for(tiny_model) -> None:
    model, _ = load_model(tiny_model, "float32", "cpu", attention="eager")
    assert model.config._attn_implementation == "eager"
