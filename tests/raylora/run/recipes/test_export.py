from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from raylora.cli import main
from raylora.errors import UserError
from raylora.run import experiment
from raylora.run.recipes import TOOLKITS
from raylora.run.recipes.export import check_recipe, export_recipe
from raylora.spec import load

# Runs the folder's own script and tells what it trained.
TRAIN = """
import json, runpy, transformers
logs = []
class Keep(transformers.TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        told.append(logs)
told = []
transformers.trainer.DEFAULT_CALLBACKS.append(Keep)
space = runpy.run_path("train.py", run_name="__main__")
count = sum(p.numel() for p in space["trainer"].model.parameters() if p.requires_grad)
print("told", json.dumps({"losses": [row["loss"] for row in told if "loss" in row], "count": count}))
"""


SPACE = {"rank": 2, "alpha_ratio": 2, "learning_rate": 5e-3, "batch_size": 8, "dropout": 0.0}


@pytest.fixture
def run(write_spec, ray_local, tmp_path, request):
    """A run of one trial whose batches are of several micro-batches, without a warm-up; of PiSSA unless asked.

    Asked for by the name of a variant, or by that of a quantisation, which is of LoRA.
    """
    asked = getattr(request, "param", "pissa")
    bits = asked in ("nf4", "int8")
    file = write_spec(
        space={**SPACE, "variant": "lora" if bits else asked},
        quantization=asked if bits else "none",
        search__trials=1,
        train={"micro_batch_tokens": 64, "warmup_ratio": 0.0},
        final={"samples": 32},
    )
    summary = experiment.tune(load(file), quiet=True)
    return SimpleNamespace(folder=tmp_path / "runs" / "run", spec=load(file), summary=summary)


def our_losses(run, steps: int) -> tuple[list[float], int]:
    """The losses of the first steps of the final stage's best recipe, and its trainable parameters."""
    from raylora.build import build_data, build_task, train_settings
    from trainables.evaluation import pad_token
    from trainables.run import TrialRun
    from trainables.session import load_model

    spec = run.spec
    rows = build_data(spec, build_task(spec), spec.model).train
    settings = train_settings(
        spec.model_copy(update={"train": spec.train.model_copy(update={"samples": 32})}), len(rows)
    )
    model, tokenizer = load_model(spec.model, "float32", "cpu", quantization=spec.quantization)
    trial = TrialRun(
        model,
        run.summary["best"]["config"],
        rows,
        settings,
        pad_id=pad_token(tokenizer),
    )
    trial.module.train()
    return [trial.train_step() for _ in range(steps)], trial.variant.parameter_count()


def train(folder) -> dict:
    done = subprocess.run([sys.executable, "-c", TRAIN], cwd=folder, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("told ")]
    assert lines, done.stderr[-2000:]
    return json.loads(lines[-1].removeprefix("told "))


@pytest.mark.real
def test_trl_and_peft_train_as_the_run_did(run, tmp_path) -> None:
    """The same batches, the same loss and schedule: only sums in another order tell them apart."""
    losses, count = our_losses(run, 4)
    for toolkit in ("trl", "peft"):
        folder, _ = export_recipe(run.folder, toolkit, tmp_path / toolkit)
        told = train(folder)
        assert told["count"] == count
        assert told["losses"] == pytest.approx(losses, rel=0.02)
        assert (folder / "adapter" / "adapter_config.json").is_file()


@pytest.mark.real
@pytest.mark.parametrize("run", ["nf4"], indirect=True)
def test_trl_and_peft_train_over_a_base_in_4_bits_as_the_run_did(run, tmp_path) -> None:
    losses, count = our_losses(run, 4)
    for toolkit in ("trl", "peft"):
        folder, notes = export_recipe(run.folder, toolkit, tmp_path / toolkit)
        assert "over a base in nf4" in (folder / "README.md").read_text()
        assert any("in bf16" in note for note in notes) == (toolkit == "trl")
        told = train(folder)
        assert told["count"] == count
        assert told["losses"] == pytest.approx(losses, rel=0.02)


def train_elsewhere(folder: Path, command: str, python: str) -> dict:
    """Losses of the steps, and numbers in the adapter that was saved, of a command in another environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OMP_"))}
    path = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**kept, "PATH": path}, capture_output=True, text=True, check=False
    )
    losses = [float(loss) for loss in re.findall(r"['\"]loss['\"]: ['\"]?([0-9.]+)", done.stdout + done.stderr)]
    assert losses and done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    adapter = min((folder / "adapter").rglob("adapter_model.safetensors"))
    return {"losses": losses, "count": sum(tensor.numel() for tensor in load_file(adapter).values())}


def elsewhere(toolkit: str, variant: str):
    """A toolkit and a variant to train with it, where `RAYLORA_SWIFT_PYTHON`, and so on, names its environment."""
    name, needs = f"RAYLORA_{toolkit.upper()}_PYTHON", TOOLKITS[toolkit].requirement
    missing = pytest.mark.skipif(name not in os.environ, reason=f"{name}: {needs} needs an environment of its own")
    return pytest.param(toolkit, variant, os.environ.get(name), marks=missing, id=f"{toolkit}-{variant}")


@pytest.mark.real
@pytest.mark.parametrize(
    ("toolkit", "run", "python"),
    [
        elsewhere("axolotl", "pissa"),
        elsewhere("llamafactory", "pissa"),
        elsewhere("swift", "pissa"),
        elsewhere("unsloth", "lora"),
    ],
    indirect=["run"],
)
def test_a_toolkit_of_another_environment_trains_as_the_run_did(toolkit, run, python, tmp_path) -> None:
    losses, count = our_losses(run, 4)
    folder, _ = export_recipe(run.folder, toolkit, tmp_path / toolkit)
    told = train_elsewhere(folder, TOOLKITS[toolkit].command, python)
    assert told["count"] == count
    assert told["losses"][0] == pytest.approx(losses[0], rel=0.02)
    # Axolotl weighs micro-batches, not tokens.
    assert told["losses"][:4] == pytest.approx(losses, rel=0.05)


def test_the_readme_has_the_command_and_what_is_otherwise(run, tmp_path, capsys) -> None:
    assert main(["export", str(run.folder), "--recipe", "axolotl", "--to", str(tmp_path / "out")]) == 0
    readme = (tmp_path / "out" / "README.md").read_text()
    assert TOOLKITS["axolotl"].command in readme and TOOLKITS["axolotl"].requirement in readme
    assert "pissa, rank 2, alpha 4" in readme
    assert capsys.readouterr().out.strip().endswith("out")


def test_a_toolkit_that_is_none_is_one_line(old_run, tmp_path) -> None:
    with pytest.raises(UserError, match="allowed: axolotl, llamafactory, peft, swift, trl, unsloth"):
        export_recipe(old_run("finished"), "torchtune", tmp_path / "out")


def test_a_variant_that_the_toolkit_lacks_is_one_line_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'pissa': unsloth does not train it; allowed: --recipe axolotl or"):
        check_recipe(TOOLKITS["unsloth"](), {"variant": "pissa"})
    with pytest.raises(UserError, match="'vera': trl does not train it; allowed: variant = 'lora'"):
        check_recipe(TOOLKITS["trl"](), {"variant": "vera"})
    with pytest.raises(UserError, match=r"'pissa' with quantization = 'nf4': trl .*; allowed: dora, lora, rslora, or"):
        check_recipe(TOOLKITS["trl"](), {"variant": "pissa"}, "nf4")


def test_a_run_that_is_not_finished_says_how_to_finish_it(old_run, tmp_path) -> None:
    with pytest.raises(UserError, match="raylora resume"):
        export_recipe(old_run("interrupted"), "trl", tmp_path / "out")
