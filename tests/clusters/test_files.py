"""The cluster files are well formed and ask for what the examples need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import clusters
from clusters import deepspeed_config

YAMLS = sorted(clusters.FOLDER.rglob("*.yaml"))
JSONS = sorted(clusters.FOLDER.rglob("*.json"))


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_yaml_parses_and_begins_with_its_command(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)
    assert path.read_text().startswith(("# ray up ", "# kubectl apply "))


@pytest.mark.parametrize("path", JSONS, ids=lambda path: path.stem)
def test_deepspeed_file_parses_and_is_found_by_its_name(path: Path) -> None:
    config = json.loads(path.read_text())
    assert config["zero_optimization"]["stage"] in (1, 2, 3)
    assert deepspeed_config(path.stem) == path


def test_own_deepspeed_file_is_taken_and_a_missing_one_refused(tmp_path: Path) -> None:
    own = tmp_path / "mine.json"
    own.write_text("{}")
    assert deepspeed_config(str(own)) == own.resolve()
    with pytest.raises(ValueError, match="zero2"):
        deepspeed_config("zero9")


@pytest.fixture(params=["aws", "gcp", "local"])
def launcher(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load((clusters.FOLDER / f"{request.param}.yaml").read_text())


def test_launcher_file_is_what_ray_up_takes(launcher: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(launcher))
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute'"):
        validate_config(prepare_config({**launcher, "idle_timeout_minute": 15}))


def test_launcher_gives_every_node_the_token_and_nothing_that_is_this_machines_own(launcher: dict[str, Any]) -> None:
    home = "~" if launcher["provider"]["type"] == "local" else "/home/ubuntu"
    assert launcher["file_mounts"][f"{home}/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in (launcher["head_start_ray_commands"], launcher["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token ray start" in commands[-1]
    # Of the checkout, where it is copied, without what git leaves out.
    assert launcher.get("rsync_filter", []) == ([".gitignore"] if "." in launcher["file_mounts"].values() else [])


def test_importing_clusters_imports_no_torch() -> None:
    code = "import sys, clusters, clusters.storage, clusters.submit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=clusters.FOLDER.parent).returncode == 0
