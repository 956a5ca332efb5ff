"""The tiny model in this process, and what trials on it share."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from trainables.protocols import TrainSettings, TrialSetup
from trainables.rows import Rows
from trainables.testing import ExactMatch, make_tiny_tokenizer, tokenised_rows


@pytest.fixture(scope="session")
def sums_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 tokenised rows."""
    file = tmp_path_factory.mktemp("rows") / "rows.arrow"
    table = pa.Table.from_pylist(tokenised_rows(make_tiny_tokenizer(), 16))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return file


@pytest.fixture
def setup(tiny_model, sums_file, tmp_path) -> TrialSetup:
    rows = Rows([str(sums_file)])
    return TrialSetup(
        str(tiny_model), ExactMatch(), TrainSettings(samples=16), rows, rows, str(tmp_path), dtype="float32", threads=1
    )


@pytest.fixture(scope="session")
def loaded(tiny_model):
    """Model and tokenizer; whoever trains on them gives them back as they were."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval(), AutoTokenizer.from_pretrained(tiny_model)
