"""The cluster files are well formed and ask for what the examples need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
    assert config["zero_optimization"]["stage"] in (1, 2)
    assert deepspeed_config(path.stem) == path


def test_own_deepspeed_file_is_taken_and_a_missing_one_refused(tmp_path: Path) -> None:
    own = tmp_path / "mine.json"
    own.write_text("{}")
    assert deepspeed_config(str(own)) == own.resolve()
    with pytest.raises(ValueError, match="zero2"):
        deepspeed_config("zero9")


def test_launcher_file_is_valid_for_ray() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    launcher = yaml.safe_load((clusters.FOLDER / "a100.yaml").read_text())
    jsonschema.validate(launcher, schema)
    assert launcher["head_node_type"] in launcher["available_node_types"]


def test_importing_clusters_imports_no_torch() -> None:
    code = "import sys, clusters, clusters.storage, clusters.submit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=clusters.FOLDER.parent).returncode == 0
