"""From a budget and a cost model to a plan: how many trials, of what size, and what the final stage gets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raylora.data.split import DEFAULT_VALIDATION_ROWS
from raylora.run.plan.cost import CostModel
from raylora.run.plan.packs import gain, memory_gb, pack_of, why_alone, with_pack
from raylora.run.plan.plan import Plan, in_words, margin
from raylora.spec import Spec
from raylora.spec.budget import duration

# Trials below which a searcher has nothing to learn from, and beyond which a small space of recipes is known.
TRIALS_AT_LEAST, TRIALS_AT_MOST = 4, 100
# Rows that a trial should see at least: below this, trials are ordered by luck.
SAMPLES_AT_LEAST, SAMPLES_EVER = 64, 16
# The part of the time that the final stage may take where the user did not say what it has to do.
FINAL_SHARE = 0.4
VALIDATION_ROWS, VALIDATION_SHARE = (16, 256), 0.25
TEST_ROWS, TEST_SHARE = (16, 1000), 0.06
EPOCHS_AT_MOST, SEEDS_AT_MOST = 3.0, 3
ROWS_EVER = 4
# Steps of a trial that a batch size should leave.
STEPS_AT_LEAST = 4


@dataclass(frozen=True)
class Costs:
    """The cost model over a spec's space and its final stage."""

    model: CostModel
    spec: Spec

    def trial(self, samples: int, evaluated: int, batch_sizes: Sequence[int] | None = None) -> float:
        """Mean seconds of a trial over the space."""
        space = self.spec.space
        seconds = [
            self.model.trial_seconds(variant, rank, batch, samples, evaluated * self.spec.scorings)
            for variant in space.variant
            for rank in space.rank
            for batch in batch_sizes or space.batch_size
        ]
        return float(np.mean(seconds))

    def final(
        self, samples: int, seeds: int, hosts: int, validation: int, test: int, recipe_s: float | None = None
    ) -> float:
        """Seconds of the final stage: default and best recipe, seed by seed, and the base, side by side over hosts.

        Args:
            recipe_s: seconds to train a recipe, where the best one is known.
        """
        train = self.recipe(samples) if recipe_s is None else recipe_s
        one = train + self.model.evaluation_seconds(validation + test)
        base = self.model.evaluation_seconds(test)
        jobs = 2 * seeds
        if hosts == 1:
            return jobs * one + base
        return max(math.ceil((jobs + 1) / hosts) * one, one + base if hosts <= jobs else one)

    def recipe(self, samples: int) -> float:
        """Seconds to train a recipe of the final stage, the dearer of the default and a middling one of the space."""
        default, space = self.spec.default_recipe, self.spec.space
        batch = sorted(space.batch_size)[len(space.batch_size) // 2]
        middling = [(variant, rank, batch) for variant in space.variant for rank in space.rank]
        train = self.model.alone.train_seconds
        own = train(default.variant, default.rank, default.batch_size, samples)
        # The export is loaded once more, so an adapter is attached twice.
        return 2 * self.model.attach_s + max(own, float(np.mean([train(*one, samples) for one in middling])))

    def samples_in(self, seconds: float, most: int, price: Any) -> int:
        """The largest number of samples up to `most` for which `price(samples)` is within `seconds`; 0 for none."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if price(middle) <= seconds else (low, middle - 1)
        return low


def make_plan(
    spec: Spec, rows: Mapping[str, int], cost: CostModel, *, left_s: float, chosen: frozenset[str] | None = None
) -> Plan:
    """The plan for what is left of a budget.

    Args:
        spec: with a budget.
        rows: counts of `train` and `validation` as they were built, and of `source` rows.
        cost: of trials one after the other.
        left_s: seconds until the user's patience ends, of which the margin is kept back here.
        chosen: dotted names of the fields that the user set, which are respected; by default `spec.chosen()`.
    """
    return _Planner(spec, rows, cost, left_s, spec.chosen() if chosen is None else chosen).plan()


def as_told(spec: Spec, rows: Mapping[str, int], cost: CostModel) -> Plan:
    """What a spec without a budget says, with what it will cost; arguments as `make_plan`."""
    cost, faster, reasons = _packed(spec, cost)
    proxy = max(1, round(spec.task.proxy * rows["train"]))
    samples, validation = spec.train.budget(proxy), rows["validation"]
    final_samples, test = spec.final.budget(rows["train"]), min(TEST_ROWS[1], spec.task.test_rows or TEST_ROWS[1])
    costs, hosts = Costs(cost, spec), spec.resources.at_a_time
    trial_s = costs.trial(samples, validation)
    search_s = math.ceil(spec.search.trials / hosts) * trial_s
    final_s = costs.final(final_samples, spec.final.seeds, hosts, validation, test) if spec.final.enabled else 0.0
    return Plan(
        budget_s=0.0,
        left_s=math.inf,
        hosts=hosts,
        proxy=spec.task.proxy,
        samples=samples,
        validation_rows=validation,
        trials=spec.search.trials,
        batch_sizes=tuple(spec.space.batch_size),
        final=spec.final.enabled,
        final_samples=final_samples,
        seeds=spec.final.seeds,
        test_rows=test,
        trial_s=trial_s,
        search_s=search_s,
        final_s=final_s,
        memory_gb=memory_gb(spec, cost),
        estimated=not cost.measured,
        pack=cost.pack,
        gain=faster,
        reasons=reasons,
    )


def _packed(spec: Spec, alone: CostModel) -> tuple[CostModel, float, tuple[str, ...]]:
    """The costs of trials as they are packed, how many times as many samples an hour that makes, and what to say."""
    pack = pack_of(spec, alone)
    told = (why_alone(spec, alone),) if spec.resources.pack == "auto" and pack == 1 else ()
    return with_pack(spec, alone, pack), gain(spec, alone, pack), told


class _Planner:
    def __init__(
        self, spec: Spec, rows: Mapping[str, int], cost: CostModel, left_s: float, chosen: frozenset[str]
    ) -> None:
        assert spec.budget_s is not None
        self.spec, self.rows, self.chosen, self.budget_s, self.left_s = spec, rows, chosen, spec.budget_s, left_s
        self.cost, self.gain, packs = _packed(spec, cost)
        self.costs = Costs(self.cost, spec)
        self.hosts = spec.resources.at_a_time
        self.seconds = max(1.0, left_s - margin(self.budget_s))
        limit = spec.search.time_s
        self.search_limit = math.inf if limit is None else limit
        self.train = max(1, rows["train"])
        self.reasons = list(packs)
        self.contradictions: list[str] = []

    def plan(self) -> Plan:
        spec = self.spec
        validation, test = self._validation_rows(), self._test_rows()
        final, final_samples, seeds = self._final(validation, test)
        final_s = self.costs.final(final_samples, seeds, self.hosts, validation, test) if final else 0.0
        search_s = min(max(0.0, self.seconds - final_s), self.search_limit)
        trials, samples = self._search(search_s, validation)
        batches = self._batches(samples)
        trial_s = self.costs.trial(samples, validation, batches)
        planned = min(search_s, math.ceil(trials / self.hosts) * trial_s)
        if self._sets("search.trials") or self._sets_samples():
            planned = math.ceil(trials / self.hosts) * trial_s
        made = Plan(
            budget_s=self.budget_s,
            left_s=self.left_s,
            hosts=self.hosts,
            proxy=self._proxy(samples),
            samples=samples,
            validation_rows=validation,
            trials=trials,
            batch_sizes=batches,
            final=final,
            final_samples=final_samples,
            seeds=seeds,
            test_rows=test,
            trial_s=trial_s,
            search_s=planned,
            final_s=final_s,
            memory_gb=memory_gb(spec, self.cost),
            estimated=not self.cost.measured,
            pack=self.cost.pack,
            gain=self.gain,
        )
        self._contradict(made)
        spare = self.left_s - made.total_s
        if spare > 0.3 * self.left_s:
            self.reasons.append(f"this needs less than the budget: about {duration(spare)} will be left")
        return replace(made, reasons=tuple(self.reasons), contradictions=tuple(self.contradictions))

    def _sets(self, *names: str) -> bool:
        return bool(self.chosen & set(names))

    def _sets_samples(self) -> bool:
        return self._sets("train.samples", "train.epochs")

    # ---- rows that score --------------------------------------------------------------------------------

    def _validation_rows(self) -> int:
        """Enough to tell recipes apart, cheap beside the training of a trial."""
        if self._sets("task.validation_rows") and self.spec.task.validation_rows is not None:
            return self.spec.task.validation_rows
        least, most = self._least(VALIDATION_ROWS[0]), VALIDATION_ROWS[1]
        there = self.rows["validation"] + self.train
        wanted = min(most, max(least, round(0.1 * there)))
        share = VALIDATION_SHARE * (1 - FINAL_SHARE) * self.seconds * self.hosts
        aim = self.spec.search.trials if self._sets("search.trials") else self._aimed_trials()
        affordable = int(share / aim / max(1e-9, self.cost.evaluation_row_s * self.spec.scorings))
        found = max(1, min(wanted, max(least, affordable), there // 4))
        # A split of the source's own may have fewer: then all of it is there already.
        if self.rows["validation"] < (self.spec.task.validation_rows or DEFAULT_VALIDATION_ROWS):
            found = min(found, self.rows["validation"])
        if found < wanted:
            self.reasons.append(
                f"{found} validation rows, for scoring one takes {self.cost.evaluation_row_s:.2g} s"
                if affordable < wanted
                else f"{found} validation rows: there are few rows"
            )
        return found

    def _least(self, rows: int) -> int:
        """That many rows at least, or even fewer where scoring them would take a tenth of the time."""
        return max(1, min(rows, max(ROWS_EVER, int(0.1 * self.seconds / max(1e-9, self.cost.evaluation_row_s)))))

    def _test_rows(self) -> int:
        least, most = self._least(TEST_ROWS[0]), TEST_ROWS[1]
        told = self.spec.task.test_rows
        if told is not None:
            return told
        affordable = int(TEST_SHARE * self.seconds / max(1e-9, self.cost.evaluation_row_s))
        # How many there are is not known before the final stage reads them: a quarter of the source is a lot.
        return max(least, min(most, affordable, self.rows.get("source", most) // 4))

    def _aimed_trials(self) -> int:
        return self.spec.search.trials if self._sets("search.trials") else min(30, self.spec.space_size)

    # ---- the final stage --------------------------------------------------------------------------------

    def _final(self, validation: int, test: int) -> tuple[bool, int, int]:
        """Whether there is one, samples for each recipe, seeds."""
        spec, costs = self.spec, self.costs
        wanted = spec.final.budget(self.train)
        if not spec.final.enabled:
            return False, wanted, spec.final.seeds

        def price(samples: int, seeds: int = spec.final.seeds) -> float:
            return costs.final(samples, seeds, self.hosts, validation, test)

        if self._sets("final.samples", "final.epochs"):
            return True, wanted, spec.final.seeds
        allowed = FINAL_SHARE * self.seconds
        if price(wanted) > allowed:
            fits = costs.samples_in(allowed, wanted, price)
            if fits < wanted:
                wanted = max(min(wanted, SAMPLES_EVER), fits)
                self.reasons.append(
                    f"the final stage sees {wanted} of {self.train} rows: more would take over "
                    f"{100 * FINAL_SHARE:.0f} % of the time"
                )
            return True, wanted, spec.final.seeds
        seeds = spec.final.seeds
        if not self._sets("final.seeds"):
            while seeds < SEEDS_AT_MOST and price(wanted, seeds + 1) <= 0.5 * allowed:
                seeds += 1
        return True, wanted, seeds

    # ---- the search -------------------------------------------------------------------------------------

    def _search(self, seconds: float, validation: int) -> tuple[int, int]:
        """Trials and samples of each, within that many seconds."""
        slots = seconds * self.hosts
        most = max(1, round(EPOCHS_AT_MOST * self.train))
        whole = self.train

        def price(samples: int) -> float:
            return self.costs.trial(samples, validation)

        if self._sets_samples():
            samples = self.spec.train.budget(max(1, round(self.spec.task.proxy * self.train)))
            return self._trials_of(price(samples), slots), samples
        if self._sets("search.trials"):
            trials = self.spec.search.trials
            fits = self.costs.samples_in(slots / trials, whole, price)
            return trials, _rounded(max(min(whole, SAMPLES_EVER), fits))
        trials = self._aimed_trials()
        fits = self.costs.samples_in(slots / trials, whole, price)
        least = min(whole, SAMPLES_AT_LEAST)
        if fits >= whole:
            trials = self._trials_of(price(whole), slots)
            self.reasons.append("trials train on all rows: no proxy is needed")
            # More trials add little: what is left goes into longer ones.
            longer = self.costs.samples_in(slots / trials, most, price)
            return trials, max(whole, longer if trials == self._most_trials() else whole)
        if fits >= least:
            return trials, _rounded(fits)
        fewer = max(1, min(trials, int(slots / max(1e-9, price(least)))))
        if fewer >= TRIALS_AT_LEAST:
            self.reasons.append(f"{fewer} trials instead of {trials}, so that each sees {least} samples")
            return fewer, least
        fewer = min(trials, TRIALS_AT_LEAST)
        while fewer > 1 and self.costs.samples_in(slots / fewer, least, price) < min(whole, SAMPLES_EVER):
            fewer -= 1
        samples = max(min(whole, SAMPLES_EVER), self.costs.samples_in(slots / fewer, least, price))
        self.reasons.append(
            f"the budget is small for this model: {in_words(fewer)} of {samples} samples can say little about a recipe"
        )
        return fewer, samples

    def _most_trials(self) -> int:
        return min(self.spec.space_size, TRIALS_AT_MOST)

    def _trials_of(self, trial_s: float, slots: float) -> int:
        """How many trials of that length: the user's number, or what fits."""
        if self._sets("search.trials"):
            return self.spec.search.trials
        return max(1, min(self._most_trials(), int(slots / max(1e-9, trial_s))))

    def _batches(self, samples: int) -> tuple[int, ...]:
        """Batch sizes of the space that leave a trial enough steps."""
        given = self.spec.space.batch_size
        if self._sets("space.batch_size"):
            return tuple(given)
        limit = max(self.spec.default_recipe.batch_size, samples // STEPS_AT_LEAST)
        kept = tuple(batch for batch in given if batch <= limit) or (min(given),)
        if len(kept) < len(given):
            self.reasons.append(f"batches up to {max(kept)}: larger ones leave a trial fewer than 4 steps")
        return kept

    def _proxy(self, samples: int) -> float:
        """The part of train that a trial sees once; the user's, or what the samples need."""
        if self._sets("task.proxy"):
            return self.spec.task.proxy
        return min(1.0, samples / self.train)

    def _contradict(self, plan: Plan) -> None:
        """What the user's own values need beyond the budget, or trials beyond the memory, a line each."""
        free = self.cost.available_gb + self.cost.resident_gb
        if self.cost.available_gb and plan.memory_gb * self.hosts > free:
            told = f"{self.hosts} hosts" if self.hosts > 1 else "a host"
            self.contradictions.append(
                f"train.micro_batch_tokens = {self.spec.train.micro_batch_tokens}: {told} would need about "
                f"{plan.memory_gb * self.hosts:.0f} GB at the largest rank, {free:.0f} GB can be had; it is halved "
                "where memory runs out"
            )
        if plan.total_s <= 1.05 * max(self.left_s, 1.0):
            return
        own = {
            "search.trials": plan.trials,
            "train.samples": plan.samples,
            "train.epochs": self.spec.train.epochs,
            "task.validation_rows": plan.validation_rows,
            "final.samples": plan.final_samples,
            "final.epochs": self.spec.final.epochs,
            "final.seeds": plan.seeds,
            "task.test_rows": plan.test_rows,
        }
        told = ", ".join(f"{name} = {value:g}" for name, value in own.items() if self._sets(name) and value is not None)
        blamed = told or f"the smallest run with {self.spec.model}"
        self.contradictions.append(
            f"budget = {self.spec.budget!r}: {blamed} would take about {duration(plan.total_s)}, "
            f"{duration(max(0.0, self.left_s))} are left; what fits is done, beginning with what the answer needs"
        )


def _rounded(samples: int) -> int:
    """Down to a multiple of eight, which batches divide."""
    return samples - samples % 8 if samples >= 16 else samples
