"""What a run leaves behind: `trials.csv`, `best.yaml`, `summary.json`, `adapter/`; and exports of the adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from raylora.errors import UserError
from raylora.spec import Spec
from trainables.journal import Journal

# Made with a run's folder: resuming any other folder that happens to hold a spec.yaml would rearrange its files.
RUN_MARK = ".raylora"
HIDDEN = ("event", "key", "time", "config", "message", "done", "host")


def trial_table(run_dir: str | Path) -> pd.DataFrame:
    """One line per trial of the journal, in order of start.

    Columns: `trial`, `status` (finished, stopped, diverged, failed or unfinished), the knobs with alpha and
    alpha_ratio both, then the metrics.
    """
    journal = Journal(run_dir)
    concluded = journal.concluded()
    lines = []
    for number, (key, start) in enumerate(journal.started().items(), start=1):
        end = concluded.get(key)
        metrics = {} if end is None else {k: v for k, v in end.items() if k not in (*HIDDEN, "stopped", "diverged")}
        lines.append(
            {"trial": number, "key": key, "status": _status(end), **with_both_alphas(start["config"]), **metrics}
        )
    return pd.DataFrame(lines)


def _status(end: Mapping[str, Any] | None) -> str:
    if end is None:
        return "unfinished"
    if end["event"] == "error":
        return "failed"
    return "diverged" if end.get("diverged") else "stopped" if end.get("stopped") else "finished"


def with_both_alphas(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with `alpha` and `alpha_ratio` (alpha / rank) both spelled out."""
    config = dict(config)
    rank = config.get("rank")
    if rank and "alpha_ratio" in config:
        config.setdefault("alpha", config["alpha_ratio"] * rank)
    elif rank and "alpha" in config:
        config.setdefault("alpha_ratio", config["alpha"] / rank)
    return config


def best_trial(run_dir: str | Path, metric: str, mode: str) -> dict[str, Any]:
    """The journal's best line among trials that ran their whole budget and did not diverge.

    Ties go to the lower validation loss. Trials stopped early compare only where nothing ran to its end.

    Raises:
        UserError: No trial has a result.
    """
    rows = list(Journal(run_dir).concluded().values())
    scored = [r for r in rows if r["event"] == "finish" and r.get(metric) is not None and not r.get("diverged")]
    whole = [r for r in scored if not r.get("stopped")] or scored
    if not whole:
        failed = [r["message"] for r in rows if r["event"] == "error"]
        reason = f"the first failure was: {failed[0]}" if failed else "all of them diverged; try lower learning rates"
        raise UserError(f"search.trials: none of the {len(rows)} trials has a result; {reason}")
    sign = 1.0 if mode == "max" else -1.0

    def merit(row: Mapping[str, Any]) -> tuple[float, float]:
        loss = row.get("validation_loss")
        return sign * row[metric], -(loss if loss is not None else float("inf"))

    return max(whole, key=merit)


def write_trials(run_dir: str | Path) -> Path:
    """`trials.csv` from the journal."""
    path = Path(run_dir) / "trials.csv"
    trial_table(run_dir).to_csv(path, index=False)
    return path


def write_best(run_dir: str | Path, spec: Spec, config: Mapping[str, Any]) -> Path:
    """`best.yaml`: a spec whose space holds the found recipe alone; `raylora tune` trains it again."""
    data = spec.to_dict()
    known = set(type(spec.space).model_fields)
    space: dict[str, Any] = {"placement": data["space"]["placement"]}
    extra = {name: [value] for name, value in config.items() if name not in known}
    space |= {name: [value] for name, value in config.items() if name in known}
    data["space"] = {**space, "extra": extra}
    data["search"] = {"searcher": "random", "trials": 1, "max_failures": spec.search.max_failures}
    data["name"] = None
    path = Path(run_dir) / "best.yaml"
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
    path.write_text(
        "# raylora tune best.yaml\n# The found recipe: trains it on the proxy and the full data again.\n" + text
    )
    return path


def write_summary(run_dir: str | Path, summary: Mapping[str, Any]) -> Path:
    """Write `summary.json` of a run; returns its path."""
    path = Path(run_dir) / "summary.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    return path


def read_run(run_dir: str | Path) -> tuple[Path, Spec]:
    """The folder of a run and the spec that it was started with.

    Raises:
        UserError: It is no run folder.
    """
    from raylora.spec import load

    folder = Path(run_dir).expanduser().absolute()
    if not (folder / "spec.yaml").is_file():
        raise UserError(f"RUN_DIR: {folder} holds no spec.yaml; give the folder of a run that `raylora tune` made")
    if not (folder / RUN_MARK).is_file():
        raise UserError(
            f"RUN_DIR: {folder} holds a spec.yaml but no run; `raylora tune {folder / 'spec.yaml'}` starts one"
        )
    return folder, load(folder / "spec.yaml")


def export(run_dir: str | Path, to: str | Path, *, merge: bool = False) -> Path:
    """Copy the run's adapter to `to`, or write the merged model there.

    Args:
        to: A new or empty folder. Plain `peft` loads the adapter from it; with `merge`, plain
            `transformers` loads the model (float32 weights: bf16 would round the update away).

    Raises:
        UserError: The run has no adapter yet, or `to` is in use.
    """
    folder, spec = read_run(run_dir)
    adapter = folder / "adapter"
    whole = (adapter / "tuned_weights.json").is_file()
    if not whole and not (adapter / "adapter_config.json").is_file():
        raise UserError(f"RUN_DIR: {folder} has no adapter/ yet; finish the run with `raylora resume {folder}`")
    target = Path(to).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--to: {target} exists and is not an empty folder; name a new one")
    if whole and not merge:
        variant = json.loads((adapter / "tuned_weights.json").read_text())["variant"]
        raise UserError(f"RUN_DIR: {folder}/adapter holds whole matrices, as {variant} left them; add --merge")
    if not merge:
        shutil.copytree(adapter, target, dirs_exist_ok=True)
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from raylora.models import resolve
    from trainables.variants.core.export import merge_folder

    base = resolve(spec.model)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = merge_folder(model, adapter)
    merged.save_pretrained(target)
    AutoTokenizer.from_pretrained(base).save_pretrained(target)
    return target
