"""What a run will do within its budget, as data and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from raylora.spec import Spec
from raylora.spec.budget import duration

# Kept back for what no model of costs knows: the end of Ray, files, a machine that others use too.
MARGIN, MARGIN_AT_LEAST_S = 0.04, 6.0


@dataclass(frozen=True)
class Plan:
    """What a run will do within its budget.

    Args:
        budget_s: seconds that the user will wait, 0 for no bound; `left_s` of them were left when the plan was made.
        hosts: trials side by side.
        proxy: part of the train rows that trials train on.
        samples: rows that a trial sees.
        validation_rows: rows that score a trial.
        trials: configurations to train.
        batch_sizes: of the space, those that leave enough steps.
        final: whether there is a final stage, its `final_samples` and `seeds` for each of its two recipes, and at most
            `test_rows` rows for their scores.
        trial_s, search_s, final_s: predicted seconds of a trial, of all of them, of the final stage. Trials that share
            passes have their part of the host's time each.
        memory_gb: predicted peak of a host.
        pack: trials that share passes on a host, and `gain`: how many times as many samples an hour that makes.
        estimated: whether the costs are guesses from the model's shape, not measured.
        reasons: why, in words. `contradictions`: what the user's own values and the budget do not allow together.
    """

    budget_s: float
    left_s: float
    hosts: int
    proxy: float
    samples: int
    validation_rows: int
    trials: int
    batch_sizes: tuple[int, ...]
    final: bool
    final_samples: int
    seeds: int
    test_rows: int
    trial_s: float
    search_s: float
    final_s: float
    memory_gb: float
    pack: int = 1
    gain: float = 1.0
    estimated: bool = False
    reasons: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()

    @property
    def total_s(self) -> float:
        """Seconds from now to the end of the run."""
        return self.search_s + self.final_s + margin(self.budget_s)

    def apply(self, spec: Spec) -> Spec:
        """The spec with what was planned filled in, and without a budget of its own."""
        data = spec.model_dump(mode="python", exclude_unset=True)
        for part in ("task", "train", "search", "space", "final", "resources"):
            data.setdefault(part, {})
        data["budget"] = None
        data["task"] |= {"proxy": self.proxy, "validation_rows": self.validation_rows}
        data["train"] |= {"samples": self.samples, "epochs": None}
        data["search"]["trials"] = self.trials
        data["space"]["batch_size"] = list(self.batch_sizes)
        data["final"] |= {"samples": self.final_samples, "epochs": None, "enabled": self.final, "seeds": self.seeds}
        data["resources"] |= {"pack": self.pack}
        if spec.resources.hosts != "auto":
            data["resources"]["hosts"] = self.hosts
        return Spec.model_validate(data)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `from_dict` gives an equal plan back. No budget is null there, JSON has no infinity."""
        return {**asdict(self), "left_s": self.left_s if math.isfinite(self.left_s) else None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Back from `to_dict`."""
        listed = {name: tuple(data[name]) for name in ("batch_sizes", "reasons", "contradictions")}
        left = math.inf if data["left_s"] is None else data["left_s"]
        return cls(**{**data, **listed, "left_s": left})

    def lines(self) -> list[str]:
        """The plan in words."""
        guess = " (estimated, not measured)" if self.estimated else ""
        told = [
            f"plan{guess}: {in_words(self.trials)} of {self.samples} samples on {self.proxy:.2g} of train, "
            f"{self.validation_rows} validation rows; about {duration(self.trial_s)} each, "
            f"{duration(self.search_s)} in all" + (f" on {self.hosts} hosts" if self.hosts > 1 else "")
        ]
        if self.final:
            told.append(
                f"plan: final stage of {self.final_samples} samples"
                + (f", {self.seeds} seeds" if self.seeds > 1 else "")
                + f", up to {self.test_rows} test rows: about {duration(self.final_s)}"
            )
        if self.pack > 1:
            told.append(
                f"plan: {self.pack} trials at a time on a host share passes: about {self.gain:.2g} times as many "
                "samples an hour as one trial after the other"
            )
        left = f" of the {duration(max(0.0, self.left_s))} left" if math.isfinite(self.left_s) else ""
        told.append(f"plan: about {duration(self.total_s)}{left}; a host needs {self.memory_gb:.1f} GB")
        told += [f"plan: {reason}" for reason in self.reasons]
        told += [f"plan: {line}" for line in self.contradictions]
        return told


def in_words(trials: int) -> str:
    """So many trials."""
    return f"{trials} trial" if trials == 1 else f"{trials} trials"


def margin(budget_s: float) -> float:
    """Seconds kept back at the end."""
    return max(MARGIN_AT_LEAST_S, MARGIN * budget_s)
