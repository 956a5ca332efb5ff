"""Models that cannot be tuned are refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from raylora.errors import UserError
from raylora.run.checkpoint import check_checkpoint
from trainables.testing import make_tiny_encoder


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(model: Path) -> str:
    with pytest.raises(UserError) as caught:
        check_checkpoint("mine", model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sound_model_passes(model) -> None:
    check_checkpoint("mine", model)


def test_a_git_lfs_pointer_is_named(model) -> None:
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")
    assert f"{model / 'model.safetensors'} is a Git LFS pointer" in refused(model)


def test_an_encoder_decoder_is_refused(model) -> None:
    change(model / "config.json", is_encoder_decoder=True, model_type="t5")
    assert refused(model).startswith("model = 'mine': t5 is an encoder-decoder model")


def test_a_quantised_checkpoint_wants_its_reader(model, monkeypatch) -> None:
    change(model / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "quantised with bitsandbytes, and bitsandbytes is not installed" in refused(model)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    check_checkpoint("mine", model)


def test_a_vocabulary_larger_than_the_embedding_is_refused(model) -> None:
    change(model / "config.json", vocab_size=300)
    assert "its embedding only 300 rows" in refused(model)


def test_an_encoder_is_for_a_head_of_labels(tmp_path) -> None:
    encoder = make_tiny_encoder(tmp_path, family="deberta-v2")
    with pytest.raises(UserError, match=r"deberta-v2 is an encoder, .* task.head = classifier"):
        check_checkpoint("mine", encoder)
    check_checkpoint("mine", encoder, "classifier")


def test_a_quantised_checkpoint_is_not_quantised_again(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "fp8"}}')
    check_checkpoint("mine", tmp_path)
    with pytest.raises(
        UserError, match=r"quantised already \(fp8\), with quantization = 'nf4'; set quantization to none"
    ):
        check_checkpoint("mine", tmp_path, quantization="nf4")
