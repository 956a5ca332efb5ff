"""`raylora curvature`: learning-rate ranges of variants relative to LoRA's, from the curvature at their starts.

"Learning Rate Matters: Vanilla LoRA May Suffice for LLM Fine-tuning", section 4: the best rate and the largest
eigenvalue of the Hessian are inversely related, so the ratio of two starts' eigenvalues on the same block predicts the
ratio of their best rates. `search.knowledge.curvature` hands these predictions to the searcher's prior.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from raylora.cluster import users_errors
from raylora.errors import UserError
from raylora.progress import Progress
from raylora.spec.text import choose

if TYPE_CHECKING:
    from raylora.spec import Spec
    from trainables.curvature import Meter
    from trainables.protocols import Row, TrainSettings

# Share of the blocks that the interval leaves out at each end.
TAIL = 0.1
# Of the Krylov dimensions allowed, those that most blocks use: for the estimate before anything is known.
_USUAL = 0.4


@dataclass(frozen=True)
class Settings:
    """What is measured, apart from what the spec says.

    Attributes:
        variants: names; those of the spec that can be measured if empty. LoRA is always among them.
        layers, types: see `trainables.curvature.choose_blocks`.
        tokens: most in the fixed batch. iterations, tolerance: of Lanczos.
    """

    variants: Sequence[str] = ()
    layers: Sequence[int] | None = None
    types: Sequence[str] | None = None
    tokens: int = 512
    iterations: int = 50
    tolerance: float = 1e-3


class Measurer:
    """Measures variants on the base, which it loads in fp32 with plain attention; also the class of the Ray actor.

    The model is loaded by the first call that needs it: an actor whose constructor raises dies of it, and a user's
    mistake would come back as text.
    """

    def __init__(
        self,
        model_folder: str,
        knobs: Mapping[str, Any],
        rows: Sequence[Row],
        train: TrainSettings,
        settings: Settings,
        threads: int = 0,
    ) -> None:
        self._model_folder, self._knobs, self._rows = model_folder, knobs, rows
        self._train, self._settings, self._threads = train, settings, threads

    @cached_property
    def meter(self) -> Meter:
        """Raises UserError where a layer or a matrix type does not exist."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from trainables.curvature import Meter, choose_blocks
        from trainables.evaluation import pad_token
        from trainables.session import pick_device
        from trainables.variants.core.matrices import select_matrices

        settings, folder = self._settings, self._model_folder
        if self._threads:
            torch.set_num_threads(self._threads)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        model = model.to(pick_device("auto")).eval()
        try:
            placed = select_matrices(model, self._train.placement)
        except ValueError as error:
            raise UserError(f"space.{error}", field="space.placement", value=self._train.placement) from None
        try:
            matrices = choose_blocks(placed, settings.layers, settings.types)
        except ValueError as error:
            raise UserError.around("--", error) from None
        return Meter(
            model,
            self._knobs,
            self._rows,
            self._train,
            pad_id=pad_token(AutoTokenizer.from_pretrained(folder)),
            matrices=matrices,
            tokens=settings.tokens,
            iterations=settings.iterations,
            tolerance=settings.tolerance,
        )

    def measurable(self) -> list[str]:
        """See `trainables.curvature.measurable`: for a process that does not import torch."""
        from trainables.curvature import measurable

        return measurable()

    def about(self) -> dict[str, Any]:
        """`blocks` (names), `rows` and `tokens` (without padding) of the fixed batch, `device`."""
        from trainables.batching import trained_tokens

        batch = self.meter.batch
        return {
            "blocks": self.meter.names,
            "rows": len(batch),
            "tokens": sum(len(row["prompt_ids"]) + len(row["response_ids"]) for row in batch),
            "completion_tokens": sum(trained_tokens(row) for row in batch),
            "device": str(next(self.meter.model.parameters()).device),
        }

    def measure(self, name: str, timed: bool = False) -> Iterator[dict[str, Any]]:
        """A record per block of a variant: `variant, matrix, layer, type, eigenvalue, error, products, ...`.

        Args:
            timed: begin with one record of `product_s` (seconds of a product with the lowest block), `loss` and
                `graph_gb`.

        Raises:
            UserError: the variant cannot be measured on this batch.
        """
        import torch

        from trainables.curvature import layer_of, product_seconds

        try:
            with self.meter.attached(name) as hessians:
                if timed:
                    seconds = product_seconds(hessians, next(iter(hessians.blocks)))
                    yield {"product_s": seconds, "loss": hessians.loss, "graph_gb": hessians.graph_bytes / 1e9}
                for matrix in hessians.blocks:
                    started = time.perf_counter()
                    found = self.meter.largest(hessians, matrix)
                    yield {
                        "variant": name,
                        "matrix": matrix,
                        "layer": layer_of(matrix),
                        "type": matrix.rpartition(".")[2],
                        "eigenvalue": found.value,
                        "error": found.error,
                        "products": found.products,
                        "converged": found.converged,
                        "seconds": time.perf_counter() - started,
                    }
        except (ValueError, torch.OutOfMemoryError) as error:
            raise UserError(
                f"curvature of {name}: {str(error).strip().splitlines()[0]}", field="--variants", value=name
            ) from None


# -- measuring ---------------------------------------------------------------------------------------------------------


def curvature(spec: Spec, settings: Settings, *, quiet: bool = False) -> dict[str, Any]:
    """Measures the variants on the spec's model and task.

    Rank, alpha, batch size and options are the middle values of the spec's space.

    Returns:
        `{"about": {...}, "blocks": [record, ...], "variants": {name: see `relative`}}`, ready for JSON.

    Raises:
        UserError: an unknown variant, layer or type, one that cannot be measured, a batch that does not fit the memory,
            a loss that is not finite.
    """
    from raylora import models
    from raylora.build import build_data, build_task, refuse_head, train_settings
    from raylora.cluster import connected
    from trainables.curvature import measurable

    progress = Progress(quiet=quiet)
    names = choose_variants(spec, settings.variants, measurable(), progress.say)
    with connected():
        refuse_head(spec, "curvature is measured on language models")
        task = build_task(spec)
        folder = str(models.resolve(spec.model, quiet=quiet))
        prepared = build_data(spec, task, folder)
        rows = prepared.proxy
    measurer = Measurer(folder, middle(spec), rows, train_settings(spec, len(rows)), settings)
    return run(spec, names, settings, measurer.about(), measurer.measure, progress.say)


def measure_on_cluster(
    spec: Spec, folder: str, train: TrainSettings, proxy: object, say: Callable[[str], None]
) -> object:
    """As `curvature` with its defaults, in an actor where the hosts will be: this process imports no torch.

    Raises:
        UserError: as `curvature`.
    """
    import ray
    from ray.exceptions import RayActorError

    from trainables.variants import declared

    settings = Settings()
    gpus = min(1.0, spec.resources.gpus_per_host)
    options: dict[str, object] = {"num_cpus": 0, "num_gpus": gpus}
    if gpus and spec.resources.accelerator_type:
        options["accelerator_type"] = spec.resources.accelerator_type
    # All cores: nothing else runs yet.
    threads = os.cpu_count() or 1
    actor = ray.remote(Measurer).options(**options).remote(folder, middle(spec), proxy, train, settings, threads)

    def measure(name: str, timed: bool = False) -> Iterator[dict[str, Any]]:
        for ref in actor.measure.options(num_returns="streaming").remote(name, timed):
            with users_errors():
                record = ray.get(ref)
            yield record

    try:
        with users_errors():
            # The searcher goes by the kin of those that share another's rate, whatever is measured.
            known = [name for name in ray.get(actor.measurable.remote()) if declared(name).rate_of is None]
            names = choose_variants(spec, (), known, say)
            return run(spec, names, settings, ray.get(actor.about.remote()), measure, say)
    except RayActorError as error:
        last = str(error).strip().splitlines()[-1]
        raise UserError(
            f"search.knowledge.curvature: measuring failed ({last}); set it to false, or give more memory",
            field="search.knowledge.curvature",
            value=True,
            allowed=False,
        ) from None
    finally:
        ray.kill(actor)


def run(
    spec: Spec,
    names: Sequence[str],
    settings: Settings,
    about: Mapping[str, Any],
    measure: Callable[..., Iterator[dict[str, Any]]],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The loop over the variants, with progress; see `curvature`.

    A variant that cannot be measured is told and left out, except LoRA, which all are compared with.
    """
    blocks = list(about["blocks"])
    total = len(names) * len(blocks)
    say(
        f"curvature: {len(names)} variants x {len(blocks)} blocks; {about['rows']} rows, {about['tokens']} tokens, "
        f"{about['completion_tokens']} of them completion, on {about['device']}"
    )
    records: list[dict[str, Any]] = []
    cost: dict[str, Any] = {}
    started = time.monotonic()
    for name in names:
        for record in _told(measure(name, not cost), name, say):
            if "product_s" in record:
                cost = record
                say(_estimate(cost["product_s"], blocks, len(names), settings.iterations))
                started = time.monotonic()
                continue
            records.append(record)
            passed = time.monotonic() - started
            left = passed / len(records) * (total - len(records))
            value = f"{record['eigenvalue']:.4g}" + ("" if record["converged"] else " (not converged)")
            say(
                f"[{len(records)}/{total}] {name} {record['matrix']}: {value}, {record['products']} products, "
                f"{record['seconds']:.1f} s; about {_minutes(left)} left"
            )
    with_ratios(records)
    knobs = {k: v for k, v in middle(spec).items() if k != "learning_rate"}
    return {
        "about": {
            "model": spec.model,
            "task": spec.task.name,
            "seed": spec.seed,
            "knobs": knobs,
            "iterations": settings.iterations,
            "tolerance": settings.tolerance,
            **{key: value for key, value in about.items() if key != "blocks"},
            **cost,
            "seconds": round(time.monotonic() - started, 1),
        },
        "blocks": records,
        "variants": relative(records),
    }


def _told(records: Iterator[dict[str, Any]], name: str, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    try:
        yield from records
    except UserError as error:
        if name == "lora":
            raise
        say(f"not measured: {error}")


def _estimate(product_s: float, blocks: Sequence[str], variants: int, iterations: int) -> str:
    """From the time of a product with the lowest block. One higher up costs less: this is from above."""
    usual, most = (variants * len(blocks) * share * iterations * product_s for share in (_USUAL, 1.0))
    return (
        f"one Hessian-vector product takes {product_s:.2g} s on {blocks[0]}, less on higher layers: "
        f"about {_minutes(usual)} in all, at most {_minutes(most)}"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def choose_variants(spec: Spec, wanted: Sequence[str], known: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """LoRA first, then those asked for, or those of the spec's space that can be measured.

    Args:
        known: those that can be measured.

    Raises:
        UserError: a name is unknown, or trains no factors.
    """
    from trainables.variants import available

    for name in wanted:
        if name not in available():
            raise UserError(
                f"--variants {name}: no such variant; {choose(name, available())}",
                field="--variants",
                value=name,
                allowed=available(),
            )
        if name not in known:
            raise UserError(
                f"--variants {name}: it trains no factors of an update; {choose(name, known)}",
                field="--variants",
                value=name,
                allowed=known,
            )
    if not wanted:
        left_out = [name for name in spec.space.variant if name not in known]
        if left_out:
            say(f"not measured: {', '.join(left_out)}, whose rates this does not tell")
        wanted = [name for name in spec.space.variant if name in known]
    return ["lora", *(name for name in dict.fromkeys(wanted) if name != "lora")]


def middle(spec: Spec) -> dict[str, Any]:
    """The middle value of each knob of the space, the larger of two; without the variant."""
    return {name: values[len(values) // 2] for name, values in spec.space.knobs().items() if name != "variant"}


# -- from eigenvalues to rates -----------------------------------------------------------------------------------------


def with_ratios(records: Sequence[dict[str, Any]]) -> None:
    """Sets `ratio` of each record: its eigenvalue over LoRA's on the same matrix; None where either is not above 0."""
    plain = {record["matrix"]: record["eigenvalue"] for record in records if record["variant"] == "lora"}
    for record in records:
        base, value = plain.get(record["matrix"]), record["eigenvalue"]
        record["ratio"] = value / base if base is not None and base > 0 and value > 0 else None


def relative(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per variant, over its blocks: `curvature`, the median ratio to LoRA, and `rate`, its inverse.

    `curvature_low`, `curvature_high` and `rate_low`, `rate_high` are the quantiles TAIL and 1 - TAIL over the blocks,
    interpolated on a logarithmic scale; `blocks` is how many ratios there were. Variants without one are left out.
    """
    found = {}
    for name in dict.fromkeys(record["variant"] for record in records):
        ratios = [record["ratio"] for record in records if record["variant"] == name and record["ratio"] is not None]
        if not ratios:
            continue
        logs = np.log(ratios)
        low, high = (float(np.exp(np.quantile(logs, q))) for q in (TAIL, 1 - TAIL))
        centre = math.exp(median(logs.tolist()))
        found[name] = {
            "curvature": centre,
            "curvature_low": low,
            "curvature_high": high,
            "rate": 1 / centre,
            "rate_low": 1 / high,
            "rate_high": 1 / low,
            "blocks": len(ratios),
        }
    return found


def prior_ratios(figures: Mapping[str, Any]) -> dict[str, float]:
    """What replaces the published ratios in `searchers.surrogate.knowledge.Knowledge`: best rates over LoRA's.

    Knowledge compares *effective* rates (rate times scale), so a variant whose scale is not LoRA's at the same rank and
    alpha is converted.
    """
    from searchers.surrogate.facts import scale_of
    from trainables.variants import scale_rules

    knobs, rules = figures["about"]["knobs"], scale_rules()
    plain = scale_of(knobs)
    return {
        name: row["rate"] * scale_of(knobs, rules.get(name)) / plain
        for name, row in figures["variants"].items()
        if name != "lora"
    }
