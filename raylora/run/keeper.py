"""Keeping a run within its budget: the plan in the run's folder, what is left of the time, and what still fits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raylora.run.folder import PLAN
from raylora.run.plan.cost import CostModel
from raylora.run.plan.plan import Plan, margin
from raylora.run.plan.planner import ROWS_EVER, SAMPLES_EVER, TEST_ROWS, Costs
from raylora.spec import Spec
from trainables.files import replace_text
from trainables.journal import Ending, Journal, Knobs

VERSION = 1


@dataclass(frozen=True)
class Share:
    """What of the final stage fits: samples, seeds, rows that score; why it is less than planned, in words."""

    samples: int
    seeds: int
    test_rows: int
    validation_rows: int
    notes: tuple[str, ...] = ()


@dataclass
class Keeper:
    """The clock and the plan of a run with a budget; `plan.json` of its folder holds both.

    Args:
        asked: the spec as the user wrote it, with its budget.
        chosen: dotted names of the fields that the user set.
        used_before: seconds that earlier attempts took.
        started: when this attempt began, on the monotonic clock.
        first: the first predictions, which stay in the file beside those that follow from what was measured.
        taken: of each trial that ended, what it was predicted to take and took, in seconds.
        bounded: whether the time still counts; not where the user asks for the final stage after all.
    """

    folder: Path
    asked: Spec
    chosen: frozenset[str]
    used_before: float = 0.0
    started: float = field(default_factory=time.monotonic)
    plan: Plan | None = None
    calibrated: CostModel | None = None
    first: dict[str, object] = field(default_factory=dict)
    taken: dict[str, dict[str, float]] = field(default_factory=dict)
    share: Share | None = None
    bounded: bool = True

    @classmethod
    def begin(cls, folder: Path, spec: Spec, began: float | None = None) -> Keeper | None:
        """Of a new run; None where its spec has no budget. `began`: when, on the monotonic clock, if not now."""
        if spec.budget_s is None:
            return None
        keeper = cls(folder, spec, spec.chosen(), started=time.monotonic() if began is None else began)
        keeper.write()
        return keeper

    @classmethod
    def again(cls, folder: Path, spec: Spec) -> Keeper | None:
        """Of a run that is taken up again: the plan is kept, and so is the time that it has used."""
        if spec.budget_s is None:
            return None
        try:
            told = json.loads((folder / PLAN).read_text())
        except (OSError, ValueError):
            return cls.begin(folder, spec)
        keeper = cls(folder, spec, frozenset(told["chosen"]), used_before=float(told["used_s"]))
        keeper.plan = Plan.from_dict({"pack": spec.resources.pack, **told["plan"]}) if told.get("plan") else None
        keeper.calibrated = CostModel.from_dict(told["cost"]) if told.get("cost") else None
        keeper.first, keeper.taken = told.get("first", {}), told.get("trials", {})
        share = told.get("final")
        keeper.share = Share(**{**share, "notes": tuple(share["notes"])}) if share else None
        return keeper

    # ---- time -------------------------------------------------------------------------------------------

    @property
    def budget_s(self) -> float:
        """Seconds that the user will wait."""
        assert self.asked.budget_s is not None
        return self.asked.budget_s

    @property
    def used_s(self) -> float:
        """Seconds of all attempts."""
        return self.used_before + time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        """Seconds until the user's patience ends."""
        return self.budget_s - self.used_s if self.bounded else math.inf

    @property
    def shown_left_s(self) -> float | None:
        """The same for people; None where there is no end."""
        return self.left_s if self.bounded else None

    def final_s(self) -> float:
        """Seconds to keep for the final stage: what was planned, but no more than was meant to be its part."""
        plan, cost = self._settled()
        if not plan.final:
            return 0.0
        costs = Costs(cost, plan.apply(self.asked))
        now = costs.final(plan.final_samples, plan.seeds, plan.hosts, plan.validation_rows, plan.test_rows)
        least = costs.final(SAMPLES_EVER, 1, plan.hosts, plan.validation_rows, min(ROWS_EVER, plan.test_rows))
        return max(least, min(now, plan.final_s))

    def search_left_s(self) -> float:
        """Seconds left for trials."""
        return self.left_s - margin(self.budget_s) - self.final_s()

    def hard_stop_s(self) -> float:
        """Seconds after which Tune ends the search, should a trial not have kept to its deadline."""
        limit = self.asked.search.time_s
        own = math.inf if limit is None else limit
        # Whatever is left, the first trial may end: without one there is no answer.
        return min(own, max(self.search_left_s() + margin(self.budget_s) / 2, 3 * self._settled()[0].trial_s + 30.0))

    def deadline(self) -> float:
        """When a trial stops training, in seconds since the epoch: it is still to be scored."""
        plan, cost = self._settled()
        # All of a pack are scored then.
        scoring = plan.pack * (cost.evaluation_seconds(plan.validation_rows) + cost.attach_s)
        return time.time() + max(0.0, self.search_left_s() - scoring)

    def _settled(self) -> tuple[Plan, CostModel]:
        """The plan, and what things cost as far as trials have shown it."""
        if self.plan is None or self.calibrated is None:
            raise RuntimeError("there is no plan yet: call settle() first")
        scored = self.plan.validation_rows * self.asked.scorings
        return self.plan, self.calibrated.corrected(self.taken.values(), scored)

    # ---- the plan ---------------------------------------------------------------------------------------

    def settle(self, plan: Plan, cost: CostModel) -> None:
        """Take a plan, and write it down."""
        self.plan, self.calibrated = plan, cost
        if not self.first:
            self.first = {"trial_s": plan.trial_s, "search_s": plan.search_s, "final_s": plan.final_s}
        self.write()

    def write(self) -> None:
        """Replace `plan.json` in one step."""
        told = {
            "version": VERSION,
            "budget_s": self.budget_s,
            "used_s": round(self.used_s, 1),
            "chosen": sorted(self.chosen),
            "plan": self.plan and self.plan.to_dict(),
            "first": self.first,
            "cost": self.calibrated and self.calibrated.to_dict(),
            "trials": self.taken,
            "final": self.share and self.share.__dict__,
        }
        replace_text(self.folder / PLAN, json.dumps(told, indent=2) + "\n")

    # ---- the search -------------------------------------------------------------------------------------

    def most_trials(self) -> int:
        """Trials that the search may come to, should they be quicker than planned."""
        plan, _ = self._settled()
        if "search.trials" in self.chosen:
            return plan.trials
        return min(self.asked.space_size, math.ceil(1.5 * plan.trials))

    def change_trials(self, trials: int) -> None:
        """Somebody asks for another number of trials; the time still counts."""
        plan, _ = self._settled()
        self.plan, self.chosen = replace(plan, trials=trials), self.chosen | {"search.trials"}
        self.write()

    def enough(self, ended: int) -> bool:
        """Whether no further trial should start, now that so many have ended. The first one always may."""
        plan, cost = self._settled()
        if ended == 0:
            return False
        trial = Costs(cost, self.asked).trial(plan.samples, plan.validation_rows, plan.batch_sizes)
        # A trial that is cut off is worth little, and it is cut off only where it costs more than it should.
        # Those of a pack take the time of all of them, should sharing passes gain nothing.
        return trial * plan.pack > self.search_left_s()

    def ended(self, journal: Journal) -> None:
        """A trial has ended: what trials cost, and with that the plan, follow what the journal says."""
        plan, cost = self._settled()
        paused = self.asked.search.scheduler == "curve"
        told = [row for row in journal.rows() if row["event"] in ("start", "continue")]
        starts = {} if paused else {row["key"]: row["time"] for row in told}
        for key, end in journal.concluded().items():
            # What was paused says nothing of how long a whole trial takes.
            known = key in self.taken or (paused and end.stopped)
            figures = None if known else _figures(end, starts.get(key), plan.pack)
            if figures is None:
                continue
            config = figures["variant"], figures["rank"], figures["batch_size"]
            predicted = cost.trial_seconds(*config, figures["samples"], plan.validation_rows)
            self.taken[key] = {"predicted_s": round(predicted, 2), **figures}
        plan, cost = self._settled()
        trial = Costs(cost, self.asked).trial(plan.samples, plan.validation_rows, plan.batch_sizes)
        self.plan = replace(plan, trial_s=trial, left_s=self.left_s, estimated=plan.estimated and not self.taken)
        self.write()

    # ---- the final stage --------------------------------------------------------------------------------

    def final_share(self, best: Knobs, train_rows: int, validation: int, test: int) -> Share | None:
        """What of the final stage fits into what is left; None where nothing does. Kept for a resumed run."""
        plan, cost = self._settled()
        if self.share is not None:
            return self.share
        left = self.left_s - margin(self.budget_s)
        spec = plan.apply(self.asked)
        costs = Costs(cost, spec)
        wanted, seeds, rows = plan.final_samples, plan.seeds, min(plan.test_rows, test)
        # Validation is scored once more beside test: whole, unless test itself has to do with fewer rows.
        few = validation

        def price(samples: int, seeds: int, rows: int) -> float:
            recipe = max(self._recipe(cost, knobs, samples) for knobs in (spec.recipe_to_knobs(), best))
            return costs.final(samples, seeds, plan.hosts, min(validation, max(rows, few)), rows, recipe)

        # Trials that went quicker than planned leave time for more rows.
        if not self.chosen & {"final.samples", "final.epochs"}:
            more = costs.samples_in(0.9 * left, max(wanted, train_rows), lambda n: price(n, seeds, rows))
            wanted = max(wanted, more)
        notes: list[str] = []
        if price(wanted, seeds, rows) > left and seeds > 1:
            notes.append(f"one seed instead of {seeds}")
            seeds = 1
        least = min(wanted, SAMPLES_EVER)
        for fewer in (TEST_ROWS[0], ROWS_EVER):
            if price(least, seeds, rows) > left and rows > fewer:
                notes.append(f"{fewer} test rows instead of {rows}")
                rows, few = fewer, fewer
        if price(wanted, seeds, rows) > left:
            fits = costs.samples_in(left, wanted, lambda n: price(n, seeds, rows))
            if fits < least and price(0, seeds, rows) > left:
                return None
            notes.append(
                f"{fits} samples instead of {wanted}"
                if fits >= least
                else f"as much of {least} samples as there is time for, instead of {wanted}"
            )
            wanted = max(least, fits)
        self.share = Share(wanted, seeds, rows, min(validation, max(rows, few)), tuple(notes))
        self.write()
        return self.share

    def _recipe(self, cost: CostModel, knobs: Knobs, samples: int) -> float:
        train = cost.alone.train_seconds(str(knobs["variant"]), int(knobs["rank"]), int(knobs["batch_size"]), samples)
        return 2 * cost.attach_s + train

    def job_deadline(self, jobs: int, validation: int, test: int) -> float:
        """When a job of the final stage stops training, of `jobs` that a host still has to do."""
        _, cost = self._settled()
        scoring = cost.evaluation_seconds(validation + test)
        left = self.left_s - margin(self.budget_s) / 2 - cost.evaluation_seconds(test)
        return time.time() + max(1.0, left / max(1, jobs) - scoring)


def _figures(end: Ending, started: float | None, pack: int = 1) -> dict[str, Any] | None:
    """What of a trial's ending tells what it cost; None where it does not."""
    told: Mapping[str, Any] = end.metrics
    needed = ("samples", "step", "step_time_s", "eval_s")
    if end.failed or end.diverged or any(told.get(name) is None for name in needed):
        return None
    train = told["step"] * told["step_time_s"]
    attach = told.get("attach_s") or 0.0
    # The others of a pack have their part of that time.
    wall = (end.time - started) / pack if started is not None else train + told["eval_s"] + attach
    return {
        "variant": str(end.config.get("variant", "lora")),
        "rank": int(end.config["rank"]),
        "batch_size": int(end.config["batch_size"]),
        "samples": told["samples"],
        "train_s": round(train, 2),
        "eval_s": round(told["eval_s"], 2),
        "attach_s": round(attach, 2),
        "wall_s": round(wall, 2),
    }
