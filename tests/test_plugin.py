"""The package in examples/plugin, installed beside a broken one: whatever it adds works as if it were built in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "examples" / "plugin"
BROKEN = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "raylora-broken"
version = "0.3"
[project.entry-points."raylora.variants"]
no_import = "raylora_broken:Missing"
[project.entry-points."raylora.searchers"]
random = "raylora_broken:Thing"
[project.entry-points."raylora.tasks"]
no_task = "raylora_broken:Thing"
[project.entry-points."raylora.metrics"]
no_metric = "raylora_broken.nowhere:Thing"
[project.entry-points."raylora.trackers"]
no_tracker = "raylora_broken:Thing"
[tool.setuptools]
py-modules = ["raylora_broken"]
"""

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both packages, as pip installs them."""
    folder = tmp_path_factory.mktemp("plugins")
    broken = folder / "broken"
    broken.mkdir()
    (broken / "pyproject.toml").write_text(BROKEN)
    (broken / "raylora_broken.py").write_text("class Thing:\n    name = 'random'\n")
    good = folder / "good"
    # Built from a copy: setuptools leaves its work beside the sources.
    for file in [PLUGIN / "pyproject.toml", PLUGIN / "README.md", *(PLUGIN / "raylora_example").glob("*.py")]:
        copy = good / file.relative_to(PLUGIN)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site")]
    subprocess.run([*command, str(good), str(broken)], check=True)
    return folder / "site"


def run(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`python ...` with the packages on the path."""
    path = os.pathsep.join([str(ROOT), str(site)])
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": path}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=site.parent, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("kind", "added", "built_in", "problem"),
    [
        ("variants", "slow_a", "lora", "no_import = raylora_broken:Missing: cannot be imported (AttributeError: "),
        ("searchers", "farthest", "random", "random = raylora_broken:Thing: there is a built-in one of that name; "),
        ("tasks", "backwards", "gsm8k", "no_task = raylora_broken:Thing: is no subclass of raylora.tasks.base.Task"),
        ("metrics", "letters", "exact", "no_metric = raylora_broken.nowhere:Thing: cannot be imported (ModuleNotFound"),
        (
            "trackers",
            "diary",
            "diary",
            "no_tracker = raylora_broken:Thing: is no subclass of raylora.run.trackers.base.",
        ),
    ],
)
def test_a_list_has_what_works_and_a_line_for_what_does_not(
    kind: str, added: str, built_in: str, problem: str, site: Path
) -> None:
    done = run(site, "-m", "raylora", kind, "--json", "-")
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("plug-in of ")]
    assert len(told) == 1
    assert told[0].startswith(f"plug-in of raylora-broken 0.3: raylora.{kind}: {problem}")
    assert {added, built_in} <= set(done.stdout.replace('"', " ").split())


def write_spec(folder: Path, model: Path, **space: object) -> Path:
    spec = yaml.safe_load((PLUGIN / "spec.yaml").read_text())
    spec |= {"model": str(model), "dtype": "float32", "storage_path": str(folder / "runs"), "name": "run"}
    spec["task"] |= {"train_rows": 24, "test_rows": 8, "validation_rows": 8, "max_new_tokens": 4}
    spec["space"] |= space
    spec["search"] |= {"options": {"sample": 16}}
    spec["resources"] = {"cpus_per_host": 1}
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(spec))
    return file


def test_a_spec_of_plugins_alone_is_searched_and_exported(site: Path, tiny_model: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, tiny_model, variant=["slow_a"], rank=[2, 4])
    done = run(site, "-m", "raylora", "tune", spec, "--quiet")
    assert "timed out during startup" not in done.stderr, "Ray did not start"
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs" / "run" / "summary.json").read_text())
    assert (summary["metric"], summary["trials"]) == ("letters", 4)
    assert summary["best"]["config"]["variant"] == "slow_a" and "share" in summary["best"]["config"]
    assert 0 <= summary["best"]["test"] <= 1
    assert (tmp_path / "runs" / "run" / "adapter" / "adapter_config.json").is_file()


def test_a_spec_that_names_a_broken_plugin_is_refused_in_one_line(site: Path, tiny_model: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, tiny_model, variant=["no_import"], extra={})
    done = run(site, "-m", "raylora", "tune", spec, "--quiet")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("raylora: space.variant = 'no_import': plug-in of raylora-broken 0.3: raylora.variants: ")


def test_its_classes_pass_the_shipped_conformance_suites(site: Path) -> None:
    tests = PLUGIN / "tests"
    done = run(site, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--rootdir", tests, tests)
    assert done.returncode == 0, done.stdout[-4000:]
