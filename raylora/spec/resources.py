"""What of a cluster an experiment uses, and who writes the answers: `resources` and `evaluate` of a spec."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from raylora.errors import UserError
from raylora.spec.parts import Part


def _whole_or_auto(value: Any, info: ValidationInfo) -> object:
    """A union's own errors name its branches: this one says all that is allowed in a line."""
    most = 64 if info.field_name == "pack" else None
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1 and (most is None or value <= most)
    if not whole and value != "auto":
        raise ValueError("allowed: auto, or a whole number of at least 1" + (f" and at most {most}" if most else ""))
    return value


class EvaluateSpec(Part):
    """Who writes the answers that are scored; likelihoods are always the hosts'."""

    engine: Literal["transformers", "vllm"] = Field(
        "transformers", description="vllm: one engine beside the hosts, which all adapters are loaded into."
    )
    gpus: float | None = Field(
        None, ge=0, description="GPUs of vLLM's engine; below 1 for a share of one; default: as gpus_per_host."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> EvaluateSpec:
        if self.gpus is not None and self.engine != "vllm":
            raise UserError(
                f"gpus = {self.gpus:g} with engine = {self.engine!r}; allowed: engine = 'vllm'",
                field="gpus",
                value=self.gpus,
            )
        if self.gpus is not None and self.gpus > 1 and self.gpus != math.floor(self.gpus):
            raise UserError(
                f"gpus = {self.gpus:g}; allowed: a whole number, or a share below 1", field="gpus", value=self.gpus
            )
        return self


class ResourcesSpec(Part):
    """What one experiment uses. Hosts run trials side by side; workers share one trial (Ray Train)."""

    hosts: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1, description="Trials at a time; auto: as many as the cluster has room for, while it grows and shrinks."
    )
    pack: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        1, description="Trials that a host trains together over one base model; auto: as memory and speed have it."
    )
    cpus_per_host: int | None = Field(None, ge=1, description="CPU threads per host or worker; default: share evenly.")
    gpus_per_host: float = Field(0.0, ge=0, description="GPUs per host or worker; below 1 for a share of one.")
    workers: int = Field(1, ge=1, description="Ray Train workers per trial.")
    accelerator_type: str | None = Field(None, description="Ray accelerator type, e.g. A100.")
    strategy: Literal["ddp", "fsdp", "deepspeed"] = Field("ddp", description="How the workers of a trial share it.")
    deepspeed_config: str | None = Field(None, description="zero1 to 3, zero3-offload or a JSON file; default zero2.")

    _one_line = field_validator("hosts", "pack", mode="before")(_whole_or_auto)

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
                f"deepspeed_config = {self.deepspeed_config!r} with strategy = {self.strategy!r}; allowed: "
                "strategy = 'deepspeed'",
                field="deepspeed_config",
                value=self.deepspeed_config,
            )
        return self

    @property
    def at_a_time(self) -> int:
        """Hosts to reckon with: of `auto` one, as long as nobody has counted them (`Spec.counted`)."""
        return 1 if self.hosts == "auto" else self.hosts
