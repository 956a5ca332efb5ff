"""A small experiment on the tiny model: the whole path in seconds."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from trainables.testing import make_arithmetic_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def sums(made_once) -> Path:
    """A folder of instruction data: train.jsonl and test.jsonl."""

    def make(folder: Path) -> None:
        rows = make_arithmetic_rows(60)
        for name, part in (("train", rows[:48]), ("test", rows[48:])):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))

    return made_once("sums", make)


def make_spec(folder: Path, model: Path, rows: Path, /, **changes) -> Path:
    """Write `folder/spec.yaml`, a small experiment with `changes` (dotted keys, `__` for the dot)."""
    spec = {
        "model": str(model),
        "dtype": "float32",
        "storage_path": str(folder / "runs"),
        "name": "run",
        "task": {
            "name": "instruct",
            "path": str(rows),
            "validation_rows": 8,
            "proxy": 0.5,
            "max_new_tokens": 4,
        },
        "space": {
            "variant": ["lora", "pissa"],
            "rank": [2, 4],
            "alpha_ratio": [1, 2],
            "learning_rate": [1e-3, 5e-3],
            "batch_size": [4, 8],
            "dropout": 0.0,
        },
        "default_recipe": {"rank": 4, "alpha": 8, "batch_size": 8},
        "search": {"searcher": "random", "trials": 3, "llm": str(model)},
        "resources": {"cpus_per_host": 1},
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        part = spec
        for name in path:
            part = part.setdefault(name, {})
        part[last] = value
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(spec))
    return file


@pytest.fixture
def write_spec(tiny_model, sums, tmp_path):
    """Write a spec file with `changes` (see `make_spec`) and return its path."""

    def write(**changes) -> Path:
        return make_spec(tmp_path, tiny_model, sums, **changes)

    return write


@pytest.fixture
def quick_fits(monkeypatch) -> None:
    """Forecasts by hardly fitted hyperparameters, for what does not depend on how good they are."""
    monkeypatch.setattr("searchers.surrogate.curves._STEPS", 2)
    monkeypatch.setattr("searchers.surrogate.curves._DRAWS", 2)
    monkeypatch.setattr("raylora.run.pool._MORE", 4.0)


@dataclass(frozen=True)
class Finished:
    """A run that ended, for tests to read: nobody writes into its folder."""

    folder: Path
    spec: Path
    summary: dict


@pytest.fixture(scope="session")
def finished_run(tiny_model, sums, ray_local, made_once) -> Finished:
    """Four trials and the final stage, once for all tests that only look at what a run leaves."""
    from raylora.run import experiment
    from raylora.spec import load

    def make(folder: Path) -> None:
        file = make_spec(folder, tiny_model, sums, search__trials=4, track=["tensorboard"])
        (folder / "summary.json").write_text(json.dumps(experiment.tune(load(file), quiet=True)))

    place = made_once("finished", make)
    return Finished(place / "runs" / "run", place / "spec.yaml", json.loads((place / "summary.json").read_text()))


# ---- run folders of an earlier layout of the code ----------------------------------------------------------

ASSETS = ROOT / "tests" / "assets" / "runs"


@pytest.fixture(scope="session")
def old_model(tmp_path_factory) -> Path:
    """The model that the run folders of `tests/assets/runs` were made with."""
    from trainables.testing import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("old") / "model", hidden=16, layers=1)


@pytest.fixture(scope="session")
def old_rows(tmp_path_factory) -> Path:
    """The rows that they were made with."""
    folder = tmp_path_factory.mktemp("old-rows")
    rows = make_arithmetic_rows(40)
    for name, part in (("train", rows[:32]), ("test", rows[32:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


@pytest.fixture(scope="session")
def copy_old_run(old_model, old_rows):
    """Copies one of them, `finished` or `interrupted`, to a folder, with this machine's paths in it."""

    def copy(name: str, place: Path) -> Path:
        folder = place / name
        shutil.copytree(ASSETS / name, folder)
        paths = {"MODEL_FOLDER": old_model, "DATA_FOLDER": old_rows, "RUNS_FOLDER": place}
        for file in folder.rglob("*"):
            if file.suffix in (".yaml", ".json"):
                text = file.read_text()
                for placeholder, path in paths.items():
                    text = text.replace(placeholder, str(path))
                file.write_text(text)
        return folder

    return copy


@pytest.fixture
def old_run(copy_old_run, tmp_path):
    """A copy of one of them, in the test's own folder."""
    return lambda name: copy_old_run(name, tmp_path)


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": path}


@pytest.fixture
def start_raylora(tmp_path):
    """Start `python -m raylora ...` in a process of its own."""

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "raylora", *map(str, arguments)],
            env=environment(),
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    return start


# Two runs in one process, each with a Ray of its own; the first is what the documentation's examples open.
TWO_RUNS = """
import sys
import raylora
assert not {"torch", "ray", "transformers", "pandas"} & set(sys.modules), "importing raylora is slow"
first = raylora.tune("spec.yaml", name="sums", quiet=True)
second = raylora.tune("spec.yaml", name="again", trials=1, overrides={"final.enabled": False}, quiet=True)
import ray
assert not ray.is_initialized()
print(first.state, second.state)
"""


@pytest.fixture(scope="session")
def workplace(tiny_model, sums, made_once) -> Path:
    """A folder with `spec.yaml`, its finished run `runs/sums` and another one, `runs/again`, without a final stage."""
    return made_once("workplace", functools.partial(make_workplace, tiny_model, sums))


def make_workplace(tiny_model: Path, sums: Path, folder: Path) -> None:
    spec = {
        "model": str(tiny_model),
        "dtype": "float32",
        "storage_path": str(folder / "runs"),
        "task": {"name": "instruct", "path": str(sums), "validation_rows": 8, "proxy": 0.5, "max_new_tokens": 4},
        "space": {"rank": 2, "alpha_ratio": 2, "learning_rate": [1e-3, 5e-3], "batch_size": 8, "dropout": 0.0},
        "default_recipe": {"rank": 4, "alpha": 8, "batch_size": 8},
        "search": {"searcher": "random", "trials": 2},
        "resources": {"cpus_per_host": 1},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    done = subprocess.run(
        [sys.executable, "-c", TWO_RUNS], env=environment(), cwd=folder, text=True, capture_output=True, check=False
    )
    assert done.stdout.strip() == "finished finished", done.stderr


@pytest.fixture
def interrupted(workplace, tmp_path) -> Path:
    """The folder of a run that was killed after its first trial."""
    run = tmp_path / "killed"
    run.mkdir()
    for name in (".raylora", "spec.yaml"):
        (run / name).write_text((workplace / "runs" / "sums" / name).read_text())
    rows = (workplace / "runs" / "sums" / "trials.jsonl").read_text().splitlines(keepends=True)
    (run / "trials.jsonl").write_text("".join(rows[:4]))
    return run
