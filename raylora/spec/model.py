"""The spec: one YAML file that says what to tune, on what, with which budget.

`load("spec.yaml", ["search.trials=20"])` gives a validated `Spec`; every mistake in it is one `UserError`
line that names the field, its value and what is allowed, before anything starts. Types and contradictions
inside the file are checked by pydantic when the `Spec` is made; what needs the world outside it (registries,
folders, storage) by `Spec.check()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from raylora.errors import UserError
from raylora.spec.budget import ALLOWED, budget_seconds, is_budget
from raylora.spec.parts import Listed, Part, Scalar
from raylora.spec.paths import absolute_storage
from raylora.spec.resources import EvaluateSpec, ResourcesSpec
from raylora.spec.space import PAPER_RATES, SpaceSpec
from raylora.spec.task import TaskSpec
from raylora.spec.text import apply_overrides, explain, read_yaml, short

if TYPE_CHECKING:
    from searchers.space import Space

DEFAULT_LLM = "smollm2-135m"
# Of the form of specs: goes up when an older release would misread a newer spec.
VERSION = 1


class _Budget(Part):
    samples: int | None = Field(None, ge=1, description="Training rows seen; not together with epochs.")
    epochs: float | None = Field(None, gt=0, description="Passes over the rows; 1 where samples is not given either.")

    @model_validator(mode="after")
    def _one_budget(self) -> _Budget:
        if self.samples is not None and self.epochs is not None:
            raise UserError(
                f"contradictory budget: samples = {self.samples} and epochs = {self.epochs:g}; allowed: one "
                "of them (null switches the other off)",
                field="samples",
                value=self.samples,
            )
        return self

    def budget(self, rows: int) -> int:
        """Samples to train on, given the number of rows: at least one."""
        if self.samples is not None:
            return self.samples
        return max(1, round((1.0 if self.epochs is None else self.epochs) * rows))


class TrainSpec(_Budget):
    """How one trial is trained; the budget counts rows of the proxy subset."""

    micro_batch_tokens: int = Field(4096, ge=1, description="Padded tokens per forward pass; bounds the memory.")
    weight_decay: float = Field(0.0, ge=0)
    warmup_ratio: float = Field(0.03, ge=0, le=1, description="Part of the steps that warms up.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Of the rate after the warm-up.")
    max_grad_norm: float = Field(1.0, gt=0)
    reports: int | None = Field(
        None, ge=1, description="Validations per trial; default 1, 4 where asha or median compare, 5 under curve."
    )
    match_parameters: Literal["lora"] | None = Field(
        None, description="lora: each variant at the rank nearest to LoRA's number of parameters at space.rank."
    )
    checkpoint_every_s: float = Field(30.0, gt=0, description="Seconds between a trial's checkpoints.")
    gradient_checkpointing: bool = Field(False, description="Compute blocks again in the backward pass: less memory.")
    pack_sequences: bool = Field(False, description="Short rows share a sequence, each attending to itself alone.")
    attention: Literal["auto", "sdpa", "flash", "eager"] = Field(
        "auto", description="auto: FlashAttention 2 where it runs, else what the model has."
    )
    adapter_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the trained weights and the optimizer's state."
    )
    compile: bool = Field(False, description="torch.compile of the blocks for training; needs a compiler.")
    liger: bool | Literal["auto"] = Field(
        False, description="Liger's kernels; auto: where there is a GPU and they are."
    )


class KnowledgeSpec(Part):
    """Where the language searcher's published knowledge gives way to what is measured."""

    curvature: bool = Field(
        False, description="Measure how variants' best rates relate to LoRA's from the loss's curvature, before trials."
    )


class SearchSpec(Part):
    """What to try next, and how often."""

    searcher: str = Field("language", description="`raylora searchers` lists them.")
    objective: str | list[str] | None = Field(
        None, description="What is optimised: a metric, several for their mean, or loss; default: the task's."
    )
    trials: int = Field(30, ge=1, description="Configurations to train; under curve, as many trials' samples.")
    scheduler: Literal["none", "asha", "median", "curve"] = Field(
        "none", description="Early stopping of poor trials; curve pauses them, and goes on with those worth it."
    )
    configurations: int | None = Field(
        None, ge=1, description="Most configurations that curve begins; default: four times trials."
    )
    max_failures: int = Field(3, ge=0, description="Restarts of a trial whose host died.")
    llm: str = Field(DEFAULT_LLM, description="Language model of the language searcher: alias, folder or hub id.")
    prompt: str | None = Field(None, description="Text file to use instead of the language searcher's own prompt.")
    prior: dict[str, Scalar] = Field(
        default_factory=dict,
        description="Own beliefs, {knob: value believed best}, and how sure under strength (1: as published facts).",
    )
    learn_from: list[str] = Field(
        default_factory=list, description="Earlier runs' folders or grids (CSV) on other tasks or models to learn from."
    )
    knowledge: KnowledgeSpec = Field(default_factory=KnowledgeSpec)
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the searcher itself.")
    time_s: float | None = Field(None, gt=0, description="No new trial starts after this many seconds.")

    @field_validator("scheduler", "llm", mode="before")
    @classmethod
    def _null(cls, value: Any, info: Any) -> Any:
        return {"scheduler": "none", "llm": DEFAULT_LLM}[info.field_name] if value is None else value


class RecipeSpec(Part):
    """The recipe that the one found is compared with."""

    variant: str = "lora"
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    learning_rate: float = Field(2e-4, gt=0)
    batch_size: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    extra: dict[str, Scalar] = Field(default_factory=dict)


class FinalSpec(_Budget):
    """The final stage: default and best recipe trained on the full data, scored on the test split."""

    enabled: bool = True
    seeds: int = Field(1, ge=1, description="Trainings per recipe, each with its own seed.")


# A name, or the name with options.
_Tracker = str | Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]


class Spec(Part):
    """A whole experiment. `load` reads one from YAML, `to_yaml` writes one that `load` reads back equal.

    Example:
        >>> raylora.Spec(model="smollm2-135m", task={"name": "instruct", "path": "rows.jsonl"}).search.trials
        30
    """

    version: int = Field(VERSION, ge=1, description="Of the spec's form; one of a later release is refused.")
    model: str = Field(description="Base model: bundled alias, local folder or hub id.")
    dtype: Literal["auto", "bfloat16", "float32"] = Field("auto", description="Of the base weights.")
    quantization: Literal["none", "nf4", "int8"] = Field(
        "none", description="The base's matrices in 4 or 8 bits while adapters are trained and scored."
    )
    seed: int = Field(0, ge=0, lt=2**31)
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The run's folder name.")
    storage_path: str = Field("runs", min_length=1, description="Folder or URI above the run's folder.")
    execution: Literal["hosted", "train"] | None = Field(None, description="Default: train if workers > 1.")
    budget: str | None = Field(
        None, description="Time to wait for the whole run, such as 20m, 6h or 100gpuh; plans what is not set."
    )
    track: Annotated[list[_Tracker], Listed] = Field(
        default_factory=list,
        description="Trackers of the run: [mlflow, {wandb: {mode: offline}}]; `raylora trackers` lists them.",
    )
    task: TaskSpec
    space: SpaceSpec = Field(default_factory=SpaceSpec)
    train: TrainSpec = Field(default_factory=TrainSpec)
    search: SearchSpec = Field(default_factory=SearchSpec)
    default_recipe: RecipeSpec = Field(default_factory=RecipeSpec)
    final: FinalSpec = Field(default_factory=FinalSpec)
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec)
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)

    @field_validator("budget", mode="before")
    @classmethod
    def _time(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, str) and is_budget(value)):
            raise ValueError(f"allowed: {ALLOWED}")
        return value

    @model_validator(mode="after")
    def _table_1(self) -> Spec:
        """Preset `paper` searches the paper's rates, where none are given."""
        published = self.search.searcher == "language" and self.search.options.get("preset") == "paper"
        if published and "learning_rate" not in self.space.model_fields_set:
            chosen = set(self.model_fields_set)
            self.space = self.space.model_copy(update={"learning_rate": list(PAPER_RATES)})
            # They are a default all the same: nobody set them.
            self.space.model_fields_set.discard("learning_rate")
            self.model_fields_set.intersection_update(chosen)
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Spec:
        self.budget_s  # noqa: B018 (says what is wrong with it)
        if self.search.trials > self.space_size:
            raise UserError(
                f"search.trials = {self.search.trials}: the space has only {self.space_size} configurations; "
                f"allowed: 1 to {self.space_size}, or more values under space",
                field="search.trials",
                value=self.search.trials,
                allowed=f"1 to {self.space_size}",
            )
        if self.execution == "hosted" and (self.resources.workers > 1 or self.resources.strategy != "ddp"):
            raise UserError(
                f"execution = 'hosted' with resources.workers = {self.resources.workers} and resources.strategy = "
                f"{self.resources.strategy!r}; allowed: execution = 'train', or one worker with ddp",
                field="execution",
                value=self.execution,
            )
        if self.quantization != "none" and self.resources.strategy != "ddp":
            raise UserError(
                f"quantization = {self.quantization!r} with resources.strategy = {self.resources.strategy!r}, which "
                "cannot divide quantised weights among workers; allowed: none, or strategy = 'ddp'",
                field="quantization",
                value=self.quantization,
                allowed=["none"],
            )
        if self.evaluate.engine == "vllm" and self.quantization != "none":
            raise UserError(
                f"evaluate.engine = 'vllm' with quantization = {self.quantization!r}, which vLLM would not hold; "
                "allowed: transformers, or quantization = 'none'",
                field="evaluate.engine",
                value="vllm",
                allowed=["transformers"],
            )
        if self.evaluate.engine == "vllm" and self.task.head != "language":
            raise UserError(
                f"evaluate.engine = 'vllm' with task.head = {self.task.head!r}, which writes no text; allowed: "
                "transformers",
                field="evaluate.engine",
                value="vllm",
                allowed=["transformers"],
            )
        if self.mode == "train" and self.resources.pack != 1:
            raise UserError(
                f"resources.pack = {self.resources.pack}: trials of Ray Train worker groups are not packed; "
                "allowed: 1, or execution = 'hosted'",
                field="resources.pack",
                value=self.resources.pack,
            )
        if self.search.scheduler == "curve":
            self._check_pausing()
        if self.search.configurations is not None and self.search.scheduler != "curve":
            raise UserError(
                f"search.configurations = {self.search.configurations} with search.scheduler = "
                f"{self.search.scheduler!r}; allowed: scheduler = 'curve', or search.trials for their number",
                field="search.configurations",
                value=self.search.configurations,
            )
        if self.reports < 2 and self.search.scheduler != "none":
            raise UserError(
                f"train.reports = {self.train.reports} with search.scheduler = {self.search.scheduler!r}: "
                "nothing to stop early; allowed: 2 or more reports",
                field="train.reports",
                value=self.train.reports,
                allowed="2 or more reports",
            )
        smallest = min(*self.space.batch_size, self.default_recipe.batch_size)
        if smallest < self.resources.workers:
            raise UserError(
                f"resources.workers = {self.resources.workers}: more than the rows of the smallest batch "
                f"({smallest}); allowed: at most one worker per row of space.batch_size and default_recipe.batch_size",
                field="resources.workers",
                value=self.resources.workers,
                allowed=f"at most {smallest}",
            )
        return self

    def _check_pausing(self) -> None:
        """Refuses what cannot be paused trial by trial."""
        for field, value, fits in (
            ("execution", self.mode, self.mode == "hosted"),
            ("resources.pack", self.resources.pack, self.resources.pack == 1),
            ("resources.hosts", self.resources.hosts, self.resources.hosts == 1),
        ):
            if not fits:
                raise UserError(
                    f"search.scheduler = 'curve' with {field} = {value!r}: trials are paused on one host that trains "
                    "one at a time; allowed: none, asha, median, or one host with resources.pack = 1",
                    field="search.scheduler",
                    value="curve",
                    allowed=["none", "asha", "median"],
                )

    @property
    def budget_s(self) -> float | None:
        """Seconds to wait for the whole run; None where the user set no budget.

        Example:
            >>> raylora.load_spec("spec.yaml", overrides={"budget": "20m"}).budget_s
            1200.0
        """
        if self.budget is None:
            return None
        resources, hosts = self.resources, self.resources.hosts
        gpus = None if hosts == "auto" else hosts * resources.workers * resources.gpus_per_host
        try:
            return budget_seconds(self.budget, gpus)
        except ValueError as error:
            raise UserError(f"budget = {self.budget!r}: {error}", field="budget", value=self.budget) from None

    def chosen(self) -> frozenset[str]:
        """Dotted names of the fields that were set to a value, as against left to their defaults.

        Example:
            >>> spec = raylora.Spec(model="smollm2-135m", task={"path": "rows.jsonl"}, search={"trials": 4})
            >>> sorted(spec.chosen())
            ['model', 'search.trials', 'task.path']
        """
        return frozenset(_chosen(self))

    @property
    def space_size(self) -> int:
        """Number of configurations in the space.

        Example:
            >>> raylora.load_spec("spec.yaml", overrides={"space.rank": [2, 4, 8]}).space_size
            6
        """
        return len(self.to_space())

    @property
    def reports(self) -> int:
        """Validations per trial, with the default filled in.

        Example:
            >>> raylora.load_spec("spec.yaml", overrides={"search.scheduler": "asha"}).reports
            4
        """
        return self.train.reports or {"none": 1, "curve": 5}.get(self.search.scheduler, 4)

    @property
    def scorings(self) -> int:
        """Reports of a trial that are whole: under `curve`, those before the last tell the validation loss alone.

        Example:
            >>> raylora.load_spec("spec.yaml", overrides={"search.scheduler": "curve"}).scorings
            1
        """
        return 1 if self.search.scheduler == "curve" else self.reports

    @property
    def mode(self) -> Literal["hosted", "train"]:
        """Where trials run: on ModelHosts, or each in a Ray Train worker group.

        Example:
            >>> raylora.load_spec("spec.yaml").mode
            'hosted'
        """
        if self.execution is not None:
            return self.execution
        return "train" if self.resources.workers > 1 or self.resources.strategy != "ddp" else "hosted"

    def packed(self, pack: int) -> Spec:
        """The spec with that many trials at a time on a host.

        Example:
            >>> raylora.load_spec("spec.yaml").packed(4).resources.pack
            4
        """
        resources = self.resources.model_copy(update={"pack": pack})
        return self.model_copy(update={"resources": resources})

    def counted(self, hosts: int) -> Spec:
        """The spec with that many hosts where it leaves their number to the cluster.

        Example:
            >>> raylora.load_spec("spec.yaml", overrides={"resources.hosts": "auto"}).counted(3).resources.at_a_time
            3
        """
        if self.resources.hosts != "auto":
            return self
        return self.model_copy(update={"resources": self.resources.model_copy(update={"hosts": hosts})})

    def storage(self) -> str:
        """`storage_path` as an absolute path, or the URI that it is (see `paths.absolute_storage`).

        Example:
            >>> raylora.load_spec("spec.yaml", overrides={"storage_path": "s3://bucket/runs"}).storage()
            's3://bucket/runs'
        """
        return absolute_storage(self.storage_path)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, every default written out; `from_dict` gives an equal spec back.

        Example:
            >>> spec = raylora.load_spec("spec.yaml")
            >>> raylora.load_spec(spec.to_dict()) == spec
            True
        """
        return self.model_dump(mode="python")

    def to_yaml(self) -> str:
        """YAML that `load` reads back as an equal spec.

        Example:
            >>> raylora.load_spec("spec.yaml").to_yaml().splitlines()[0]
            'version: 1'
        """
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=110)

    def to_space(self) -> Space:
        """The search space; knobs with one value are fixed ones, extra ones apply to the variants that read them.

        Example:
            >>> raylora.load_spec("spec.yaml").to_space().decode(0)["learning_rate"]
            0.001
        """
        from searchers.space import Space

        return Space.from_dict(self.space.knobs(), when=self.space.conditions())

    def recipe_to_knobs(self) -> dict[str, Any]:
        """The default recipe as a configuration: the keys of the space, values that need not be in it.

        Example:
            >>> recipe = raylora.load_spec("spec.yaml").recipe_to_knobs()
            >>> recipe["rank"], recipe["alpha_ratio"]
            (4, 2.0)
        """
        recipe = self.default_recipe
        scale = {"alpha": recipe.alpha} if self.space.alpha is not None else {"alpha_ratio": recipe.alpha / recipe.rank}
        return {
            "variant": recipe.variant,
            "rank": recipe.rank,
            **scale,
            "batch_size": recipe.batch_size,
            "learning_rate": recipe.learning_rate,
            "dropout": recipe.dropout,
            **recipe.extra,
        }


def _chosen(part: BaseModel, before: str = "") -> Iterator[str]:
    for name in part.model_fields_set:
        value = getattr(part, name)
        if isinstance(value, Part):
            yield from _chosen(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}"


def from_dict(data: Mapping[str, Any]) -> Spec:
    """A spec from plain data, not checked against this machine. Errors: UserError, one line."""
    version = data.get("version", VERSION)
    # First: of a later form, everything else may be unknown too.
    if isinstance(version, int) and version > VERSION:
        raise UserError(
            f"version = {short(version)}: the spec is of a later release; allowed: up to {VERSION}, or upgrade raylora",
            field="version",
            value=version,
            allowed=VERSION,
        )
    try:
        return Spec.model_validate(dict(data))
    except ValidationError as error:
        raise explain(error, Spec) from None


def load(path: str | Path, overrides: Iterable[str] = ()) -> Spec:
    """Reads a spec from YAML and applies dotted overrides; `raylora.run.checks` holds it against this machine.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value`, the value read as YAML (`space.rank=[4,8]`, `train.epochs=null`).

    Raises:
        UserError: one line, for everything that can be wrong within the file.
    """
    return from_dict(apply_overrides(read_yaml(Path(path)), overrides))
