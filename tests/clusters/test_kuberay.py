"""The manifests are what KubeRay's custom resources take, down to the last field, and their image is built of the lock.

The schemas of the custom resources are used where they are: `RAYLORA_KUBERAY_SCHEMAS`, or a folder `shared/schemas`
in or above the checkout. Elsewhere the fields that the manifests use stand in, `tests/assets/kuberay-fields.json`.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import clusters

ROOT = clusters.FOLDER.parent
KUBERAY = clusters.FOLDER / "kuberay"
MANIFESTS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(KUBERAY.glob("*.yaml"))}
SCHEMAS = {"RayJob": "rayjobs-v1.json", "RayCluster": "rayclusters-v1.json"}
FIELDS = ROOT / "tests" / "assets" / "kuberay-fields.json"
KINDS: dict[str, dict[str, object]] = {"quantity": {"type": ["integer", "string"]}}


def published(kind: str) -> dict[str, Any]:
    """The schema of a custom resource."""
    told = os.environ.get("RAYLORA_KUBERAY_SCHEMAS")
    folders = [Path(told)] if told else [parent / "shared" / "schemas" for parent in Path(__file__).resolve().parents]
    files = [folder / SCHEMAS[kind] for folder in folders if (folder / SCHEMAS[kind]).is_file()]
    if not files:
        pytest.skip("the shared schemas of KubeRay are not here")
    return json.loads(files[0].read_text())


def from_fields(kind: str) -> dict[str, Any]:
    """The schema of the fields that the manifests use: `spec/workerGroupSpecs/[]/replicas: integer`."""
    root: dict[str, Any] = {"type": "object"}
    for path, type_ in json.loads(FIELDS.read_text())[kind].items():
        node = root
        for part in path.split("/"):
            if part in ("[]", "*"):
                node = node.setdefault("items" if part == "[]" else "additionalProperties", {})
            else:
                node = node.setdefault("properties", {}).setdefault(part, {})
        node.update(KINDS.get(type_, {"type": type_}))
    return root


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema where an object has no properties but those that it lists."""
    schema = {key: strict(value) if isinstance(value, dict) else value for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def used(value: object, schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Path and type of everything that a manifest has, as its schema names them."""
    if path:
        yield "/".join(path), "quantity" if "x-kubernetes-int-or-string" in schema else schema["type"]
    if isinstance(value, list):
        for item in value:
            yield from used(item, schema["items"], (*path, "[]"))
    if isinstance(value, dict) and "additionalProperties" in schema:
        for item in value.values():
            yield from used(item, schema["additionalProperties"], (*path, "*"))
    elif isinstance(value, dict):
        for key, item in value.items():
            if "properties" in schema:
                yield from used(item, schema["properties"][key], (*path, key))


@pytest.fixture(params=["published", "fields"])
def errors(request: pytest.FixtureRequest) -> Any:
    """`errors(manifest)`: what is wrong with it, by the published schema and by the list of fields."""
    schema_of = published if request.param == "published" else from_fields

    def errors(manifest: dict[str, Any]) -> list[str]:
        validator = jsonschema.Draft202012Validator(strict(schema_of(manifest["kind"])))
        return [error.message for error in validator.iter_errors(manifest)]

    return errors


def ray_cluster(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = ray_cluster(manifest)
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_is_what_its_custom_resource_takes(name: str, errors: Any) -> None:
    assert errors(MANIFESTS[name]) == []


@pytest.mark.parametrize("name", MANIFESTS)
def test_unknown_field_and_wrong_type_are_found_however_deep(name: str, errors: Any) -> None:
    manifest = copy.deepcopy(MANIFESTS[name])
    pods(manifest)[1]["containers"][0]["imagePullPolicyy"] = "Always"
    (told,) = errors(manifest)
    assert "imagePullPolicyy" in told
    manifest = copy.deepcopy(MANIFESTS[name])
    ray_cluster(manifest)["workerGroupSpecs"][0]["replicas"] = "1"
    (told,) = errors(manifest)
    assert "'1'" in told


def test_list_of_fields_is_what_the_published_schemas_say() -> None:
    listed = json.loads(FIELDS.read_text())
    found = {m["kind"]: dict(sorted(set(used(m, published(m["kind"]))))) for m in MANIFESTS.values()}
    assert listed == found


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_pod_mounts_the_shared_claim_and_runs_as_the_images_user(name: str) -> None:
    for pod in pods(MANIFESTS[name]):
        assert {"name": "shared", "mountPath": "/shared"} in pod["containers"][0]["volumeMounts"]
        assert {"name": "shared", "persistentVolumeClaim": {"claimName": "raylora-shared"}} in pod["volumes"]
        assert pod["securityContext"]["runAsUser"] == 1000


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_names_the_locked_ray_and_asks_for_a_token(name: str) -> None:
    cluster = ray_cluster(MANIFESTS[name])
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert cluster["authOptions"] == {"mode": "token"}


def test_image_is_the_checkout_with_the_lock_as_set_up_anywhere_else() -> None:
    parser = pytest.importorskip("dockerfile_parse").DockerfileParser(
        fileobj=BytesIO((KUBERAY / "Dockerfile").read_bytes())
    )
    steps = [(step["instruction"], step["value"]) for step in parser.structure if step["instruction"] != "COMMENT"]
    names = [name for name, _ in steps]
    assert parser.baseimage.startswith("python:3.11")
    assert ("WORKDIR", "/raylora") in steps and ("COPY", "--chown=raylora . .") in steps
    (setup,) = (place for place, (name, value) in enumerate(steps) if name == "RUN" and "make setup" in value)
    assert names.index("USER") < names.index("COPY") < setup
    assert parser.envs["PATH"].startswith("/raylora/.venv/bin:")
    # `make setup` installs every version of the lock, and no other.
    recipe = re.search(r"^\$\(STAMP\): (.*)\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert (
        recipe and "constraints.txt" in recipe[1] and "--no-deps --no-build-isolation -r constraints.txt" in recipe[2]
    )


def test_image_leaves_out_what_is_this_machines_own() -> None:
    patterns = (KUBERAY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {".git", ".venv", "runs"} <= set(patterns)
    assert not {"Makefile", "constraints.txt", "pyproject.toml", "README.md", "examples"} & set(patterns)
