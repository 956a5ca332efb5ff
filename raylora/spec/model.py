"""The spec: one YAML file that says what to tune, on what, with which budget.

`load("spec.yaml", ["search.trials=20"])` gives a validated `Spec`; every mistake in it is one `UserError`
line that names the field, its value and what is allowed, before anything starts. Types and contradictions
inside the file are checked by pydantic when the `Spec` is made; what needs the world outside it (registries,
folders, storage) by `Spec.check()`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from raylora.errors import UserError
from raylora.spec.budget import ALLOWED, budget_seconds, is_budget
from raylora.spec.paths import absolute_storage
from raylora.spec.text import apply_overrides, explain, read_yaml

if TYPE_CHECKING:
    from searchers.space import Space

DEFAULT_LLM = "smollm2-135m"
# Of the form of specs: goes up when an older release would misread a newer spec.
VERSION = 1


class _Part(BaseModel):
    """Strict (no string is taken for a number), finite numbers, and no key that nobody reads."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=False)


def _as_list(value: Any) -> Any:
    """A scalar is a list of one (a fixed knob); a list may not repeat a value."""
    values = value if isinstance(value, list) else [value]
    seen: list[Any] = []
    for item in values:
        if any(item == other and isinstance(item, bool) == isinstance(other, bool) for other in seen):
            raise ValueError(f"the value {item!r} is there twice")
        seen.append(item)
    return values


_Listed = BeforeValidator(_as_list)
_Scalar = bool | int | float | str


_Source = str | dict[str, _Scalar | None]
_Sources = _Source | list[_Source] | None


def _as_entries(value: Any) -> Any:
    """One metric is a list of one; a mapping is a list of its pairs."""
    if isinstance(value, Mapping):
        return [{key: inner} for key, inner in value.items()]
    return [value] if isinstance(value, str) else value


class SamplingSpec(_Part):
    """How answers are generated, for the metrics that read them."""

    temperature: float | None = Field(None, ge=0, description="0: the likeliest token each time; default: the task's.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the most likely tokens of this much probability.")
    n: int = Field(1, ge=1, description="Answers per row; a metric such as pass@k may ask for more.")
    stop: list[str] | None = Field(None, description="Texts before which an answer ends; default: the task's.")
    max_new_tokens: int | None = Field(None, ge=1, description="The same as task.max_new_tokens.")

    @field_validator("stop")
    @classmethod
    def _stop(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not all(value):
            raise ValueError("an empty text would end every answer; allowed: texts of at least one character")
        return value


class TaskSpec(_Part):
    """What the model learns and how it is scored."""

    name: str = Field("instruct", description="Task: instruct (rows of your own) or one that `raylora tasks` lists.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the task itself.")
    path: str | None = Field(None, description="File, glob, folder, URL or hub id of the rows (instruct, gsm8k).")
    train: _Sources = Field(
        None,
        description="Source of train: a path, a part of path (train[:80%]), {path, split, name, weight}, or a list.",
    )
    validation: _Sources = Field(
        None, description="Source of validation, as train; default: path's own, or rows of train."
    )
    test: _Sources = Field(None, description="Source of test, as train; default: path's own, or rows of train.")
    test_sets: dict[str, _Sources] = Field(
        default_factory=dict, description="Several test sets by name, each a source as train; each has its own row."
    )
    metrics: Annotated[list[str | dict[str, Any]], BeforeValidator(_as_entries)] | None = Field(
        None,
        min_length=1,
        description="What is measured: names, {name: options} or {test set: name}; default: the task's.",
    )
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    columns: dict[str, str] | None = Field(
        None, description="Role -> column where the names say too little: {prompt: input, response: output}."
    )
    train_rows: int | None = Field(None, ge=2, description="Rows read from train, validation rows included.")
    validation_rows: int = Field(64, ge=1, description="Rows carved from train to score trials.")
    test_rows: int | None = Field(None, ge=1, description="Rows of the test split; only the final stage reads them.")
    proxy: float = Field(0.1, gt=0, le=1, description="Part of train that trials train on.")
    max_length: int | None = Field(
        None, ge=8, description="Longest prompt plus response, tokens; default 1024, or the model's positions if fewer."
    )
    truncate: Literal["drop", "left", "right"] = Field(
        "drop", description="Rows over max_length: drop them, cut the prompt's beginning, or the response's end."
    )
    train_on: Literal["all", "last"] = Field(
        "all", description="Assistant turns of a conversation that are trained on."
    )
    allow_broken: bool | Annotated[float, Field(ge=0, le=1)] = Field(
        False, description="Share of rows that may be unusable (true: any); by default 5 % end the run."
    )
    control_tokens: bool | None = Field(
        None, description="Read control tokens that rows spell as such; default: in plain text rows only."
    )
    max_new_tokens: int | None = Field(None, ge=1, description="Longest generated answer; default: the task's.")
    system: str | None = Field(None, description="System message; '' for none, null for the template's own.")
    chat_template: bool = Field(True, description="Use the model's chat template where it has one.")

    @model_validator(mode="after")
    def _one_length(self) -> TaskSpec:
        inner = self.sampling.max_new_tokens
        if inner is not None and self.max_new_tokens not in (None, inner):
            raise UserError(
                f"max_new_tokens = {self.max_new_tokens} and sampling.max_new_tokens = {inner} contradict each other; "
                "allowed: one of them",
                field="max_new_tokens",
                value=self.max_new_tokens,
                allowed=inner,
            )
        return self

    @model_validator(mode="after")
    def _leaves_rows(self) -> TaskSpec:
        if self.train_rows is not None and self.validation_rows >= self.train_rows:
            raise UserError(
                f"validation_rows = {self.validation_rows} leaves nothing of train_rows = {self.train_rows} "
                "to train on; allowed: fewer validation rows than train rows",
                field="validation_rows",
                value=self.validation_rows,
                allowed=f"below {self.train_rows}",
            )
        return self


class SpaceSpec(_Part):
    """The values to search. A scalar fixes a knob; an omitted knob takes the default table.

    The default is table 1 of the paper on language-aided Bayesian optimisation for LoRA: 45,360
    configurations.
    """

    variant: Annotated[list[str], _Listed] = Field(["lora"], min_length=1, description="LoRA variants.")
    rank: Annotated[list[Annotated[int, Field(ge=1)]], _Listed] = Field(
        [2**k for k in range(9)], min_length=1, description="Rank of the update."
    )
    alpha: Annotated[list[Annotated[float, Field(gt=0)]], _Listed] | None = Field(
        None, min_length=1, description="Scale alpha itself, instead of alpha_ratio."
    )
    alpha_ratio: Annotated[list[Annotated[float, Field(gt=0)]], _Listed] | None = Field(
        None, min_length=1, description="alpha / rank; default 1/2, 1, 2, .. 128."
    )
    batch_size: Annotated[list[Annotated[int, Field(ge=1)]], _Listed] = Field(
        [2**k for k in range(1, 9)], min_length=1, description="Rows per optimizer step, over all workers."
    )
    learning_rate: Annotated[list[Annotated[float, Field(gt=0)]], _Listed] = Field(
        [1e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3],
        min_length=1,
        description="Peak learning rate.",
    )
    dropout: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], _Listed] = Field(
        [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3], min_length=1, description="Dropout before the adapter."
    )
    placement: Any = Field("all-linear", description="Fixed: 'all-linear' or a list of matrix types (q_proj, ...).")
    extra: dict[str, Annotated[list[_Scalar], Field(min_length=1), _Listed]] = Field(
        default_factory=dict, description="Further knobs, by name; each applies to the variants that read it."
    )

    @field_validator("placement")
    @classmethod
    def _placement(cls, value: Any) -> Any:
        if value != "all-linear" and not (
            isinstance(value, list) and value and all(isinstance(name, str) and name for name in value)
        ):
            raise ValueError("allowed: 'all-linear' or a list of matrix types such as [q_proj, v_proj]")
        return value

    @model_validator(mode="after")
    def _one_alpha(self) -> SpaceSpec:
        if self.alpha is not None and self.alpha_ratio is not None:
            raise UserError(
                f"alpha = {self.alpha} and alpha_ratio = {self.alpha_ratio} contradict each other; "
                "allowed: one of them",
                field="alpha",
                value=self.alpha,
            )
        taken = sorted(set(self.extra) & set(SpaceSpec.model_fields))
        if taken:
            raise UserError(
                f"extra.{taken[0]} has the name of a knob of its own; allowed: space.{taken[0]}",
                field=f"extra.{taken[0]}",
                value=self.extra[taken[0]],
                allowed=f"space.{taken[0]}",
            )
        return self

    def knobs(self) -> dict[str, list[Any]]:
        """Knob name -> its values, in the order of the space (placement is fixed, so it is no knob)."""
        scale: dict[str, list[Any]]
        if self.alpha is not None:
            scale = {"alpha": self.alpha}
        else:
            scale = {"alpha_ratio": self.alpha_ratio or [2.0**k for k in range(-1, 8)]}
        return {
            "variant": self.variant,
            "rank": self.rank,
            **scale,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "dropout": self.dropout,
            **{name: values for name, values in self.extra.items() if name not in self._unread()},
        }

    def conditions(self) -> dict[str, dict[str, list[str]]]:
        """`{extra knob: {"variant": its readers}}` for the knobs that some of the variants here do not read."""
        readers = self._readers()
        return {
            name: {"variant": read_by}
            for name, read_by in readers.items()
            if read_by and len(read_by) < len(self.variant)
        }

    def _unread(self) -> list[str]:
        """Extra knobs that no variant here reads: they would only repeat configurations."""
        return [name for name, read_by in self._readers().items() if not read_by]

    def _readers(self) -> dict[str, list[str]]:
        """For each extra knob that is an option of some registered variant, the variants here that have it.

        A name that is no registered variant is taken to read everything: `Spec.check` refuses it by name.
        """
        if not self.extra:
            # Asking variants for their options imports torch: only where there is something to ask.
            return {}
        from trainables.variants import VARIANTS

        options = {name: set(variant.options) for name, variant in VARIANTS.classes().items()}
        return {
            knob: [name for name in self.variant if name not in options or knob in options[name]]
            for knob in self.extra
            if any(knob in known for known in options.values())
        }


class _Budget(_Part):
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
    max_grad_norm: float = Field(1.0, gt=0)
    reports: int | None = Field(
        None, ge=1, description="Validations per trial; default 1, or 4 where a scheduler has to compare."
    )
    match_parameters: Literal["lora"] | None = Field(
        None, description="lora: each variant at the rank nearest to LoRA's number of parameters at space.rank."
    )
    checkpoint_every_s: float = Field(30.0, gt=0, description="Seconds between a trial's checkpoints.")


class KnowledgeSpec(_Part):
    """Where the language searcher's published knowledge gives way to what is measured."""

    curvature: bool = Field(
        False, description="Measure how variants' best rates relate to LoRA's from the loss's curvature, before trials."
    )


class SearchSpec(_Part):
    """What to try next, and how often."""

    searcher: str = Field("language", description="`raylora searchers` lists them.")
    objective: str | list[str] | None = Field(
        None, description="What is optimised: a metric, several for their mean, or loss; default: the task's."
    )
    trials: int = Field(30, ge=1, description="Configurations to train.")
    scheduler: Literal["none", "asha", "median"] = Field("none", description="Early stopping of poor trials.")
    max_failures: int = Field(3, ge=0, description="Restarts of a trial whose host died.")
    llm: str = Field(DEFAULT_LLM, description="Language model of the language searcher: alias, folder or hub id.")
    prompt: str | None = Field(None, description="Text file to use instead of the language searcher's own prompt.")
    prior: dict[str, _Scalar] = Field(
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


class RecipeSpec(_Part):
    """The recipe that the one found is compared with."""

    variant: str = "lora"
    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    learning_rate: float = Field(2e-4, gt=0)
    batch_size: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    extra: dict[str, _Scalar] = Field(default_factory=dict)


class FinalSpec(_Budget):
    """The final stage: default and best recipe trained on the full data, scored on the test split."""

    enabled: bool = True
    seeds: int = Field(1, ge=1, description="Trainings per recipe, each with its own seed.")


class ResourcesSpec(_Part):
    """What one experiment uses. Hosts run trials side by side; workers share one trial (Ray Train)."""

    hosts: int = Field(1, ge=1, description="Trials at a time.")
    cpus_per_host: int | None = Field(None, ge=1, description="CPU threads per host or worker; default: share evenly.")
    gpus_per_host: float = Field(0.0, ge=0, description="GPUs per host or worker; below 1 for a share of one.")
    workers: int = Field(1, ge=1, description="Ray Train workers per trial.")
    accelerator_type: str | None = Field(None, description="Ray accelerator type, e.g. A100.")
    strategy: Literal["ddp", "deepspeed"] = Field("ddp", description="How the workers of a trial share it.")
    deepspeed_config: str | None = Field(None, description="zero1, zero2 or a JSON file; default zero2.")

    @model_validator(mode="after")
    def _fits_together(self) -> ResourcesSpec:
        if self.gpus_per_host > 1 and self.gpus_per_host != math.floor(self.gpus_per_host):
            raise UserError(
                f"gpus_per_host = {self.gpus_per_host:g}; allowed: a whole number, or a share below 1",
                field="gpus_per_host",
                value=self.gpus_per_host,
                allowed="a whole number, or a share below 1",
            )
        if self.accelerator_type is not None and self.gpus_per_host == 0:
            raise UserError(
                f"accelerator_type = {self.accelerator_type!r} with gpus_per_host = 0; allowed: gpus_per_host above 0",
                field="accelerator_type",
                value=self.accelerator_type,
            )
        if self.deepspeed_config is not None and self.strategy != "deepspeed":
            raise UserError(
                f"deepspeed_config = {self.deepspeed_config!r} with strategy = 'ddp'; allowed: strategy = 'deepspeed'",
                field="deepspeed_config",
                value=self.deepspeed_config,
            )
        return self


# A name, or the name with options.
_Tracker = str | Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]


class Spec(_Part):
    """A whole experiment. `load` reads one from YAML, `to_yaml` writes one that `load` reads back equal.

    Example:
        >>> raylora.Spec(model="smollm2-135m", task={"name": "instruct", "path": "rows.jsonl"}).search.trials
        30
    """

    version: int = Field(VERSION, ge=1, description="Of the spec's form; one of a later release is refused.")
    model: str = Field(description="Base model: bundled alias, local folder or hub id.")
    dtype: Literal["auto", "bfloat16", "float32"] = Field("auto", description="Of the base weights.")
    seed: int = Field(0, ge=0, lt=2**31)
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The run's folder name.")
    storage_path: str = Field("runs", min_length=1, description="Folder or URI above the run's folder.")
    execution: Literal["hosted", "train"] | None = Field(None, description="Default: train if workers > 1.")
    budget: str | None = Field(
        None, description="Time to wait for the whole run, such as 20m, 6h or 100gpuh; plans what is not set."
    )
    track: Annotated[list[_Tracker], _Listed] = Field(
        default_factory=list,
        description="Trackers of the run: [mlflow, {wandb: {mode: offline}}]; `raylora trackers` lists them.",
    )
    task: TaskSpec
    space: SpaceSpec = Field(default_factory=SpaceSpec)
    train: TrainSpec = Field(default_factory=TrainSpec)
    search: SearchSpec = Field(default_factory=SearchSpec)
    default_recipe: RecipeSpec = Field(default_factory=RecipeSpec)
    final: FinalSpec = Field(default_factory=FinalSpec)
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)

    @field_validator("budget", mode="before")
    @classmethod
    def _time(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, str) and is_budget(value)):
            raise ValueError(f"allowed: {ALLOWED}")
        return value

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
        if self.execution == "hosted" and (self.resources.workers > 1 or self.resources.strategy == "deepspeed"):
            raise UserError(
                f"execution = 'hosted' with resources.workers = {self.resources.workers} and resources.strategy = "
                f"{self.resources.strategy!r}; allowed: execution = 'train', or one worker with ddp",
                field="execution",
                value=self.execution,
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

    @property
    def budget_s(self) -> float | None:
        """Seconds to wait for the whole run; None where the user set no budget."""
        if self.budget is None:
            return None
        resources = self.resources
        try:
            return budget_seconds(self.budget, resources.hosts * resources.workers * resources.gpus_per_host)
        except ValueError as error:
            raise UserError(f"budget = {self.budget!r}: {error}", field="budget", value=self.budget) from None

    def chosen(self) -> frozenset[str]:
        """Dotted names of the fields that were set to a value, as against left to their defaults."""
        return frozenset(_chosen(self))

    @property
    def space_size(self) -> int:
        """Number of configurations in the space."""
        return len(self.to_space())

    @property
    def reports(self) -> int:
        """Validations per trial, with the default filled in."""
        return self.train.reports or (1 if self.search.scheduler == "none" else 4)

    @property
    def mode(self) -> Literal["hosted", "train"]:
        """Where trials run: on ModelHosts, or each in a Ray Train worker group."""
        if self.execution is not None:
            return self.execution
        return "train" if self.resources.workers > 1 or self.resources.strategy == "deepspeed" else "hosted"

    def storage(self) -> str:
        """`storage_path` as an absolute path, or the URI that it is (see `paths.absolute_storage`)."""
        return absolute_storage(self.storage_path)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, every default written out; `from_dict` gives an equal spec back."""
        return self.model_dump(mode="python")

    def to_yaml(self) -> str:
        """YAML that `load` reads back as an equal spec."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=110)

    def to_space(self) -> Space:
        """The search space; knobs with one value are fixed ones, extra ones apply to the variants that read them."""
        from searchers.space import Space

        return Space.from_dict(self.space.knobs(), when=self.space.conditions())

    def recipe_to_knobs(self) -> dict[str, Any]:
        """The default recipe as a configuration: the keys of the space, values that need not be in it."""
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
        if isinstance(value, _Part):
            yield from _chosen(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}"


def from_dict(data: Mapping[str, Any]) -> Spec:
    """A spec from plain data, not checked against this machine. Errors: UserError, one line."""
    version = data.get("version", VERSION)
    # First: of a later form, everything else may be unknown too.
    if isinstance(version, int) and version > VERSION:
        raise UserError(
            f"version = {version}: the spec is of a later release; allowed: up to {VERSION}, or upgrade raylora",
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
