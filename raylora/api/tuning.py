"""Start, resume, open and export a run from Python. Imports neither torch nor ray until a run begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from raylora.api.run import Run
from raylora.spec import Spec, from_dict
from raylora.spec.text import put, read_yaml

SpecLike = str | Path | Mapping[str, Any] | Spec


def load_spec(spec: SpecLike, *, overrides: Mapping[str, Any] | None = None) -> Spec:
    """A spec from a YAML file, plain data, or another spec, with changes.

    Args:
        spec: path of a YAML file, a mapping such as the file would hold, or a `Spec`.
        overrides: values by dotted key, put in before the spec is checked.

    Returns:
        The spec, checked in itself; `tune` holds it against this machine as well.

    Raises:
        UserError: one line, for everything that can be wrong within it.

    Example:
        >>> spec = raylora.load_spec("spec.yaml", overrides={"search.trials": 2, "space.rank": [2, 4]})
        >>> spec.search.trials, spec.space.rank
        (2, [2, 4])
    """
    if isinstance(spec, Spec):
        # What was not set stays unset: checks and searchers ask whether the user chose a value.
        data = spec.model_dump(mode="python", exclude_unset=True)
    else:
        data = dict(spec) if isinstance(spec, Mapping) else read_yaml(Path(spec))
    return from_dict(put(data, overrides or {}))


def tune(
    spec: SpecLike,
    *,
    model: str | None = None,
    path: str | None = None,
    budget: str | None = None,
    variants: str | Sequence[str] | None = None,
    trials: int | None = None,
    searcher: str | None = None,
    hosts: int | Literal["auto"] | None = None,
    seed: int | None = None,
    name: str | None = None,
    storage_path: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Run:
    """Search, train the best recipe on the full data, and write the run's folder: `raylora tune`.

    Connects to the running Ray where there is one (in a job, or where `ray.init` was called), else starts a local one
    for the duration. Works in a notebook, and any number of times in one process.

    Args:
        spec: path of a YAML file, a mapping such as the file would hold, or a `Spec`.
        model: base model: alias, local folder or hub id.
        path: `task.path`: file, folder or hub id of the rows.
        budget: time to wait for everything, such as `20m` or `6h`.
        variants: `space.variant`.
        trials: `search.trials`.
        searcher: `search.searcher`; the options of the spec's own searcher are left out where another one is named.
        hosts: `resources.hosts`: trials at a time, or `auto`.
        seed: of everything that is drawn.
        name: the run's folder below `storage_path`.
        storage_path: folder or URI above the run's folder.
        overrides: any other field by dotted key, such as `{"train.epochs": 2}`; they win over the arguments above.
        quiet: no lines of progress.

    Returns:
        The finished run.

    Raises:
        UserError: a mistake in the spec, a folder that is in use, or no trial with a result.
        KeyboardInterrupt: Ctrl-C; `resume` goes on.

    Example:
        >>> run = raylora.tune("spec.yaml", trials=1, name="first", overrides={"final.enabled": False}, quiet=True)
        >>> run.state
        'finished'
    """
    from raylora.run.checks import check_world

    common: dict[str, Any] = {
        "model": model,
        "task.path": path,
        "budget": budget,
        "space.variant": [variants] if isinstance(variants, str) else variants and list(variants),
        "search.trials": trials,
        "search.searcher": searcher,
        "resources.hosts": hosts,
        "seed": seed,
        "name": name,
        "storage_path": None if storage_path is None else str(storage_path),
    }
    changes = {key: value for key, value in common.items() if value is not None}
    if searcher is not None and load_spec(spec).search.searcher != searcher:
        changes["search.options"] = {}
    checked = load_spec(spec, overrides={**changes, **(overrides or {})})
    check_world(checked)
    return tune_checked(checked, quiet=quiet)


def tune_checked(spec: Spec, *, quiet: bool = False, began: float | None = None) -> Run:
    """A whole run, with its report, of a spec that was held against this machine (`check_world`).

    Args:
        began: when its user began to wait, on the monotonic clock; default: now. A budget is counted from then.
    """
    from raylora.run import experiment

    return Run(experiment.tune(spec, quiet=quiet, began=began, when_done=_write_report)["run_dir"])


def resume(run_dir: str | Path | Run, *, quiet: bool = False) -> Run:
    """Finish a run that was interrupted at any moment: `raylora resume`.

    Finished trials are not trained again, and interrupted ones go on from their checkpoints. A finished run is
    returned as it is, unless its spec.yaml asks for more trials by now.

    Raises:
        UserError: It is no run folder, or another process runs it.

    Example:
        >>> raylora.resume("runs/sums", quiet=True).state
        'finished'
    """
    from raylora.run import experiment

    run = _opened(run_dir)
    experiment.resume(run.folder, quiet=quiet, when_done=_write_report)
    return run


def finish(run_dir: str | Path | Run, *, quiet: bool = False) -> Run:
    """End an interrupted run with the trials that it has: `raylora finish`.

    Raises:
        UserError: It is no run folder, another process runs it, or no trial has a result.

    Example:
        >>> raylora.finish("runs/sums", quiet=True).state
        'finished'
    """
    from raylora.run import experiment

    run = _opened(run_dir)
    experiment.finish(run.folder, quiet=quiet, when_done=_write_report)
    return run


def _opened(run_dir: str | Path | Run) -> Run:
    return run_dir if isinstance(run_dir, Run) else Run(run_dir)


def _write_report(folder: Path, say: Callable[[str], None]) -> None:
    """`report.html` in a run's folder; a run is not lost to what is wrong with its picture."""
    from raylora.reports.page.page import PAGE, write_page

    try:
        say(f"report: {write_page([folder], folder / PAGE)}")
    except Exception as error:
        say(f"report: not written, {type(error).__name__}: {error}; `raylora report {folder}` tries again")


def open_run(run_dir: str | Path) -> Run:
    """A run by its folder, finished or not.

    Raises:
        UserError: It is no run folder.

    Example:
        >>> raylora.open_run("runs/sums")
        Run('runs/sums'): finished, 2 of 2 trials
    """
    return Run(run_dir)


def export(
    run_dir: str | Path | Run,
    to: str | Path,
    *,
    format: Literal["peft", "merged", "gguf"] | None = None,
    merge: bool = False,
) -> Path:
    """Write a run's adapter to `to`, its merged model, or GGUF files for llama.cpp: `raylora export`.

    Args:
        run_dir: a finished run, or its folder.
        to: a new or empty folder. Plain `peft` loads the adapter from it; of `merged`, plain `transformers` loads the
            model (float32); of `gguf`, llama.cpp loads `base.gguf` with `adapter.gguf`, or `model.gguf` where it cannot
            have the adapter.
        format: default: `peft`, or `merged` with `merge`.
        merge: write the merged model; with `gguf` as one file.

    Raises:
        UserError: The run has no adapter yet, `to` is in use, or llama.cpp's converters are not there.

    Example:
        >>> sorted(path.name for path in raylora.export("runs/sums", "adapter").glob("adapter_*"))
        ['adapter_config.json', 'adapter_model.safetensors']
    """
    return _opened(run_dir).export(to, format=format, merge=merge)
