"""Score any adapter or model from Python. Imports neither torch nor ray until it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raylora.api.run import Run
from raylora.api.tuning import SpecLike, load_spec
from raylora.run.evaluate import Evaluation

__all__ = ["Evaluation", "evaluate"]


def evaluate(
    target: str | Path | Run,
    data: str | Path | Sequence[str | Path] | Mapping[str, str | Path] | None = None,
    *,
    spec: SpecLike | None = None,
    task: str | None = None,
    metrics: str | Sequence[str | Mapping[str, Any]] | None = None,
    split: str | None = None,
    rows: int | None = None,
    base: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Score an adapter, a run or a model as the final stage would: `raylora evaluate`.

    The rows are read, put to the model, batched and marked as those of a run's final stage. A run is scored on its own
    test rows where nothing else is asked: the figure is that of its summary.

    Args:
        target: a run (its tuned adapter), an adapter's folder or hub id (whatever PEFT loads over a causal language
            model, trained here or elsewhere, or a folder of `raylora.export`), or a model: alias, folder or hub id.
        data: the rows to score on: a file, glob, folder, URL or hub id, several of them, or a mapping of names to them.
            Its test split where it has one, else all of it. Its columns are recognised, as a run's are.
        spec: instead of `data`: a spec whose task says which rows, as for a run of it.
        task: `task.name`; default: the run's, or `instruct`.
        metrics: `task.metrics`; default: the run's, or the task's.
        split: `train`, `validation`, `test`, or a part such as `test[:10%]`.
        rows: at most so many of each set, drawn by a constant seed.
        base: base model of the adapter, instead of the one that it names.
        overrides: any other field of a spec by dotted key, such as `{"task.max_new_tokens": 8}`.
        quiet: no lines of progress.

    Raises:
        UserError: nothing to score or to score on, an adapter whose base cannot be had or that does not fit it.

    Example:
        >>> scored = raylora.evaluate("runs/sums", quiet=True)
        >>> scored.value == raylora.open_run("runs/sums").summary["best"]["test"]
        True
        >>> sorted(scored.answers[0])
        ['answer', 'completion', 'prompt', 'row', 'scores', 'set']
    """
    from raylora.run.evaluate import evaluate

    changes: dict[str, Any] = {} if task is None else {"task.name": task}
    if metrics is not None:
        changes["task.metrics"] = [metrics] if isinstance(metrics, str) else list(metrics)
    told = None if spec is None else load_spec(spec).model_dump(mode="python", exclude_unset=True)
    return evaluate(
        str(target.folder if isinstance(target, Run) else target),
        spec=told,
        data=_sources(data),
        changes={**changes, **(overrides or {})},
        split=split,
        rows=rows,
        base=base,
        quiet=quiet,
    )


def _sources(data: str | Path | Sequence[str | Path] | Mapping[str, str | Path] | None) -> list[str]:
    if data is None:
        return []
    if isinstance(data, Mapping):
        return [f"{name}={path}" for name, path in data.items()]
    return [str(data)] if isinstance(data, str | Path) else [str(path) for path in data]
