"""The searches that are disturbed: tiny random models, so that a trial takes a second or two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from raylora.spec.text import put

Promise = Literal["answer", "trials", "nothing"]


@dataclass(frozen=True)
class Scene:
    """A kind of search.

    Args:
        changes: to the spec that all scenes share, by dotted names.
        kinds: what is done to it, see `harms`; the first ones are done in this scene only.
        promised: `answer`: the trials, their figures and the final scores are those of an uninterrupted search.
            `trials`: a configuration that both have tried has the same figures in both.
        nodes: of the Ray cluster that it runs on.
        asked: trials.
    """

    name: str
    kinds: tuple[str, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    promised: Promise = "answer"
    nodes: int = 1
    asked: int = 8


# The name of its uninterrupted search: scenes with equal trials share one.
PLAIN = "plain"

SCENES = {
    scene.name: scene
    for scene in (
        Scene("hosts", ("host", "driver", "read-only")),
        Scene("files", ("disk", "read-only", "driver")),
        Scene("clock", ("clock", "host", "driver")),
        Scene("nodes", ("raylet", "gcs", "host"), {"resources.hosts": 2}, nodes=2),
        # What is proposed depends on which results were in when it was prepared.
        Scene("surrogate", ("surrogate", "driver", "host"), {"search.searcher": "language"}, "trials"),
        # The policy learns from rewards since the last checkpoint twice, or not at all.
        Scene(
            "policy",
            ("policy", "host", "driver"),
            {"space.variant": ["lelora"], "space.extra": {"reward_every": [2, 4]}, "space.dropout": 0.0},
            "nothing",
        ),
        # Of dropout's random numbers only the first worker's are kept.
        Scene(
            "workers",
            ("worker", "driver"),
            {"resources.workers": 2, "space.dropout": 0.0, "final.enabled": False},
            asked=3,
        ),
    )
}


def reference_of(scene: Scene) -> str:
    """The name of the uninterrupted search that a scene is held against."""
    own = {name for name in scene.changes if name != "resources.hosts"}
    return scene.name if own else PLAIN


def make_assets(folder: Path) -> None:
    """The base model and the rows of all searches, in `folder/model` and `folder/rows`, unless they are there."""
    from trainables.testing import make_arithmetic_rows, make_tiny_model

    rows = folder / "rows"
    if (rows / "test.jsonl").is_file():
        return
    make_tiny_model(folder / "model", hidden=16, layers=1)
    rows.mkdir(parents=True, exist_ok=True)
    made = make_arithmetic_rows(60)
    for name, part in (("train", made[:48]), ("test", made[48:])):
        (rows / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))


def write_spec(scene: Scene, assets: Path, storage: Path, file: Path, samples: int) -> None:
    """The scene's spec, with its run in `storage/run`.

    Args:
        samples: of a trial, some 500 a second.
    """
    spec: dict[str, Any] = {
        "model": str(assets / "model"),
        "dtype": "float32",
        "storage_path": str(storage),
        "name": "run",
        "task": {
            "name": "instruct",
            "path": str(assets / "rows"),
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
            "dropout": [0.0, 0.1],
        },
        "default_recipe": {"rank": 4, "alpha": 8, "batch_size": 8},
        "train": {"samples": samples, "reports": 2, "checkpoint_every_s": 0.3},
        # One trial may be unlucky many times.
        "search": {"searcher": "random", "trials": scene.asked, "max_failures": 20},
        "resources": {"hosts": 1, "cpus_per_host": 1 if "resources.workers" not in scene.changes else None},
        "final": {"samples": 8},
    }
    file.write_text(yaml.safe_dump(put(spec, scene.changes)))
