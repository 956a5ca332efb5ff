"""The part of a spec that says what is learned, and how it is scored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from raylora.errors import UserError
from raylora.spec.parts import Part, Scalar

_SET_NAME = re.compile(r"[^/\s](?:[^/]*[^/\s])?")
_Source = str | dict[str, Scalar | None]
_Sources = _Source | list[_Source] | None


def _as_entries(value: Any) -> object:
    """One metric is a list of one; a mapping is a list of its pairs."""
    if isinstance(value, Mapping):
        return [{key: inner} for key, inner in value.items()]
    return [value] if isinstance(value, str) else value


class SamplingSpec(Part):
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


class TaskSpec(Part):
    """What the model learns and how it is scored."""

    name: str = Field("instruct", description="Task: instruct (rows of your own) or one that `raylora tasks` lists.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the task itself.")
    head: Literal["language", "classifier", "regression"] = Field(
        "language",
        description="What answers: the language model, or a classification head over a decoder or an encoder.",
    )
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
    list_labels: bool = Field(
        True, description="Labelled rows: the prompt lists the labels that train has, where they are 2 to 20."
    )
    train_rows: int | None = Field(None, ge=2, description="Rows read from train, validation rows included.")
    validation_rows: int | None = Field(
        None, ge=1, description="Rows that score trials; default: 64, or a fifth of train where it has fewer than 320."
    )
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

    @field_validator("test_sets")
    @classmethod
    def _named_sets(cls, value: dict[str, _Sources]) -> dict[str, _Sources]:
        for name, source in value.items():
            if not _SET_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name; allowed: text without a slash")
            if not source:
                raise ValueError(f"{name} has no source; allowed: a path, a mapping with path and split, or a list")
        return value

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
        if self.train_rows is not None and (self.validation_rows or 0) >= self.train_rows:
            raise UserError(
                f"validation_rows = {self.validation_rows} leaves nothing of train_rows = {self.train_rows} "
                "to train on; allowed: fewer validation rows than train rows",
                field="validation_rows",
                value=self.validation_rows,
                allowed=f"below {self.train_rows}",
            )
        return self
