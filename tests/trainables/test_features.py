"""What a base model makes of rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainables.evaluation import pad_token
from trainables.features import features
from trainables.heads import LANGUAGE
from trainables.rows import Rows


@pytest.mark.parametrize("max_tokens", [1, 4096])
def test_features_of_a_row_do_not_depend_on_the_rows_beside_it(loaded, sums_file, max_tokens) -> None:
    model, tokenizer = loaded
    rows = Rows([str(sums_file)])[:5]
    common = {"pad_id": pad_token(tokenizer), "head": LANGUAGE, "max_tokens": max_tokens}
    embeddings, losses = (features(model, rows, kind, **common) for kind in ("embeddings", "losses"))
    assert embeddings.shape == (5, model.config.hidden_size) and losses.shape == (5,)
    for row, embedding, loss in zip(rows, embeddings, losses, strict=True):
        ids = torch.tensor(np.concatenate([row["prompt_ids"], row["response_ids"]]))[None]
        with torch.no_grad():
            out = model(input_ids=ids, output_hidden_states=True)
        assert np.allclose(out.hidden_states[-1][0].mean(0), embedding, atol=1e-4)
        answer = len(row["response_ids"])
        expected = torch.nn.functional.cross_entropy(out.logits[0, -answer - 1 : -1], ids[0, -answer:])
        assert loss == pytest.approx(float(expected), rel=1e-4)
