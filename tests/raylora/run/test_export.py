from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from raylora.cli import main
from raylora.errors import UserError
from raylora.run import experiment
from raylora.run.export import export, new_folder
from raylora.spec import load


@pytest.mark.parametrize("merge", [False, True], ids=["adapter", "merged"])
def test_an_export_predicts_what_the_run_predicted(finished_run, tiny_model, tmp_path, merge) -> None:
    import pyarrow.parquet as pq
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = export(finished_run.folder, tmp_path / "out", merge=merge)
    if merge:
        model = AutoModelForCausalLM.from_pretrained(target)
    else:
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), target)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(target if merge else tiny_model)
    for row in pq.read_table(finished_run.folder / "final" / "best-0" / "test.parquet").to_pylist():
        ids = tokenizer(row["prompt"], return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            out = model.generate(**ids, max_new_tokens=4, do_sample=False)
        text = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text == row["completion"]


def test_a_folder_in_use_is_left_alone(finished_run, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="empty folder"):
        export(finished_run.folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_without_an_adapter_says_how_to_get_one(write_spec, tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_spec().rename(run / "spec.yaml")
    (run / ".raylora").write_text("raylora\n")
    with pytest.raises(UserError, match="raylora resume"):
        export(run, tmp_path / "out")


def test_a_recipe_that_is_no_adapter_is_served_and_exported_merged(write_spec, ray_local, tmp_path, capsys) -> None:
    file = write_spec(
        space={"variant": "full", "rank": 2, "alpha_ratio": 1, "learning_rate": 1e-3, "batch_size": 8, "dropout": 0.0},
        search__trials=1,
    )
    summary = experiment.tune(load(file), quiet=True)
    assert "test" in summary["best"]
    run, target = tmp_path / "runs" / "run", tmp_path / "merged"
    assert main(["export", str(run), "--to", str(tmp_path / "x")]) == 2
    assert "--merge" in capsys.readouterr().err
    assert main(["export", str(run), "--to", str(target), "--merge"]) == 0
    from safetensors.torch import load_file

    tuned = load_file(run / "adapter" / "tuned_weights.safetensors")
    merged = load_file(target / "model.safetensors")
    assert all((merged[f"{name}.weight"] == weight).all() for name, weight in tuned.items())


TELL = """
import torch
with torch.no_grad():
    print("told", model(input_ids=torch.arange(1, 9)[None]).logits[0, -1].tolist())
"""


def opened_as_in_the_card(adapter: Path) -> torch.Tensor:
    """Logits, `(v,)`, that a fresh process finds by the card's own code, in a folder that holds the adapter alone."""
    code = re.search(r"```python\n(.*?)```", (adapter / "README.md").read_text(), re.DOTALL)
    assert code is not None and [path.name for path in adapter.parent.iterdir()] == [adapter.name]
    done = subprocess.run(
        [sys.executable, "-c", code[1] + TELL], cwd=adapter.parent, capture_output=True, text=True, check=False
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("told ")]
    assert told, done.stderr[-2000:]
    return torch.tensor(json.loads(told[-1].removeprefix("told ")))


def test_the_code_of_the_card_opens_the_adapter_in_a_fresh_process(finished_run, tmp_path) -> None:
    target = export(finished_run.folder, tmp_path / "alone" / "out")
    assert torch.isfinite(opened_as_in_the_card(target)).all()


@pytest.mark.real
@pytest.mark.parametrize("name", ["milora", "lora_xs"])
def test_an_adapter_of_another_form_opens_as_what_was_trained(old_run, old_model, tmp_path, name) -> None:
    """MiLoRA trains beside a base that it has rewritten, LoRA-XS between frozen factors."""
    from transformers import AutoModelForCausalLM

    from trainables.variants import get_variant
    from trainables.variants.core.config import AdapterConfig

    run, variant = old_run("finished"), get_variant(name)()
    variant.attach(AutoModelForCausalLM.from_pretrained(old_model), AdapterConfig(rank=2, alpha=4))
    with torch.no_grad():
        for parameter in variant.trainable_parameters():
            parameter.add_(0.1)
        wanted = variant.module.eval()(input_ids=torch.arange(1, 9)[None]).logits[0, -1]
    shutil.rmtree(run / "adapter")
    variant.save_adapter(run / "adapter", str(old_model))
    found = opened_as_in_the_card(export(run, tmp_path / "alone" / "out"))
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["smollm2-135m", "folder"])
def test_an_adapter_names_the_folder_of_its_base_and_no_alias(old_run, tiny_model, tmp_path, monkeypatch, name) -> None:
    run = old_run("finished")
    if name == "smollm2-135m":
        monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
        shutil.copytree(tiny_model, tmp_path / "home" / "models" / name)
        spec = run / "spec.yaml"
        spec.write_text(re.sub(r"(?m)^model: .*$", f"model: {name}", spec.read_text()))
    base = json.loads((export(run, tmp_path / "out") / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(base).is_absolute() and (Path(base) / "config.json").is_file()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--to .*: Not a directory; name a place"):
        new_folder(tmp_path / "file" / "out")
