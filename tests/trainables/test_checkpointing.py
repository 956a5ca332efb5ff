from __future__ import annotations

import pytest
import torch

from trainables.checkpointing import recompute_blocks


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"train.gradient_checkpointing: Linear cannot compute its blocks again"):
        recompute_blocks(torch.nn.Linear(2, 2))
