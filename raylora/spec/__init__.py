"""The spec: one YAML file that says what to tune, on what, with which budget. Pure: it knows nothing of runs."""

from raylora.spec.model import (
    DEFAULT_LLM,
    FinalSpec,
    KnowledgeSpec,
    RecipeSpec,
    SearchSpec,
    Spec,
    TrainSpec,
    from_dict,
    load,
)
from raylora.spec.resources import EvaluateSpec, ResourcesSpec
from raylora.spec.space import SpaceSpec
from raylora.spec.task import TaskSpec

__all__ = [
    "DEFAULT_LLM",
    "EvaluateSpec",
    "FinalSpec",
    "KnowledgeSpec",
    "RecipeSpec",
    "ResourcesSpec",
    "SearchSpec",
    "SpaceSpec",
    "Spec",
    "TaskSpec",
    "TrainSpec",
    "from_dict",
    "load",
]
