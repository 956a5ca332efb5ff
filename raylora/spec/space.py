"""The part of a spec that says what is searched."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from raylora.errors import UserError
from raylora.spec.parts import Listed, Part, Scalar

PAPER_RATES = [1e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3]
"""Learning rates of table 1 of the paper on language-aided Bayesian optimisation for LoRA."""

# With two that published recipes use.
RATES = sorted([*PAPER_RATES, 3e-5, 3e-4])


class SpaceSpec(Part):
    """The values to search. A scalar fixes a knob; an omitted knob takes the default table.

    The default is table 1 of the paper on language-aided Bayesian optimisation for LoRA with the learning rates 3e-5
    and 3e-4 added: 54,432 configurations. Preset `paper` of searcher `language` keeps the table: 45,360.
    """

    variant: Annotated[list[str], Listed] = Field(["lora"], min_length=1, description="LoRA variants.")
    rank: Annotated[list[Annotated[int, Field(ge=1)]], Listed] = Field(
        [2**k for k in range(9)], min_length=1, description="Rank of the update."
    )
    alpha: Annotated[list[Annotated[float, Field(gt=0)]], Listed] | None = Field(
        None, min_length=1, description="Scale alpha itself, instead of alpha_ratio."
    )
    alpha_ratio: Annotated[list[Annotated[float, Field(gt=0)]], Listed] | None = Field(
        None, min_length=1, description="alpha / rank; default 1/2, 1, 2, .. 128."
    )
    batch_size: Annotated[list[Annotated[int, Field(ge=1)]], Listed] = Field(
        [2**k for k in range(1, 9)], min_length=1, description="Rows per optimizer step, over all workers."
    )
    learning_rate: Annotated[list[Annotated[float, Field(gt=0)]], Listed] = Field(
        RATES, min_length=1, description="Peak learning rate; under preset paper without 3e-5 and 3e-4."
    )
    dropout: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Listed] = Field(
        [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3], min_length=1, description="Dropout before the adapter."
    )
    placement: Any = Field("all-linear", description="Fixed: 'all-linear' or a list of matrix types (q_proj, ...).")
    extra: dict[str, Annotated[list[Scalar], Field(min_length=1), Listed]] = Field(
        default_factory=dict, description="Further knobs, by name; each applies to the variants that read it."
    )

    @field_validator("placement")
    @classmethod
    def _placement(cls, value: Any) -> object:
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
