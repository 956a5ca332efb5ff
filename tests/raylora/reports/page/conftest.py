"""Runs made of files alone: what a search of any length would have left, without training anything."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raylora.run.folder import RUN_MARK
from raylora.run.trials import write_trials
from raylora.spec import from_dict
from trainables.journal import VERSION, trial_key

RATES = {"lora": 1e-3, "rslora": 5e-4, "dora": 8e-4, "pissa": 1e-4}
SPACE: dict[str, list[Any]] = {
    "variant": list(RATES),
    "rank": [4, 8, 16, 32],
    "alpha_ratio": [0.5, 1.0, 2.0, 4.0],
    "batch_size": [8, 16, 32],
    "learning_rate": [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3],
    "dropout": [0.0, 0.1],
}
HOSTS = 4
BEGIN = 1_795_000_000.0


def quality(config: dict[str, Any]) -> tuple[float, float]:
    """Accuracy and loss of a configuration, with an optimal rate per variant."""
    off = math.log10(config["learning_rate"] * math.sqrt(config["alpha_ratio"]) / RATES[config["variant"]])
    better = 0.05 * math.log2(config["rank"] / 4)
    return max(0.0, 0.5 + better - 0.18 * off**2), 1.2 - better + 0.35 * off**2


def write_run(
    folder: Path,
    *,
    trials: int = 200,
    finished: bool = True,
    searcher: str = "random",
    rows: int = 60,
    prompt: str = "",
    seed: int = 0,
    message: str = "out of memory",
) -> Path:
    """A run's folder: journal, spec, and of a finished one summary and answers.

    Of 12 trials one diverges, of 40 one fails, the fifth is interrupted and resumed, a third is stopped early.
    """
    folder.mkdir(parents=True)
    (folder / RUN_MARK).write_text("raylora 0.2.0\n")
    spec = from_dict(
        {
            "model": "smollm2-135m",
            "name": folder.name,
            "seed": seed,
            "storage_path": str(folder.parent),
            "task": {"name": "reasoning_gym/chain_sum", "train_rows": 2000, "test_rows": rows},
            "space": SPACE,
            "search": {"searcher": searcher, "trials": trials, "scheduler": "asha"},
            "resources": {"hosts": HOSTS},
        }
    )
    (folder / "spec.yaml").write_text(spec.to_yaml())
    lines = [{"event": "journal", "version": VERSION}]
    rng = np.random.default_rng(seed)
    space, free = spec.to_space(), [BEGIN] * HOSTS
    best: tuple[float, dict[str, Any]] = (-1.0, {})
    for number, index in enumerate(space.sample(rng, trials), start=1):
        config = space.decode(index)
        host = int(np.argmin(free))
        events, free[host], value = _trial(config, number, free[host], host, rng, message)
        unfinished = not finished and number > trials - HOSTS
        lines += events[: -1 if unfinished else None]
        if value is not None and value > best[0]:
            best = value, config
    if finished:
        lines += _finish(folder, spec, best[1], max(free), rows, prompt, trials, rng)
    lines[1:] = sorted(lines[1:], key=lambda line: line["time"])
    (folder / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        write_trials(folder)
    return folder


def _trial(
    config: dict[str, Any], number: int, now: float, host: int, rng: np.random.Generator, message: str
) -> tuple[list[dict[str, Any]], float, float | None]:
    key = trial_key(config)
    shared = {"key": key, "host": f"host-{host}", "trial_id": f"{number:08x}"}
    events: list[dict[str, Any]] = [{"event": "start", "time": now, "config": config, **shared}]
    if number % 40 == 0:
        return (
            [*events, {"event": "error", "key": key, "time": now + 5, "config": config, "message": message}],
            now + 6,
            None,
        )
    accuracy, loss = quality(config)
    accuracy, loss = max(0.0, accuracy + rng.normal(0, 0.015)), loss + rng.normal(0, 0.02)
    if number % 12 == 0:
        ended = {
            "diverged": True,
            "accuracy": 0,
            "accuracy_se": 0,
            "validation_loss": None,
            "samples": 50,
            "loss": None,
        }
        line = {"event": "finish", "key": key, "time": now + 20, "config": config, "stopped": False, **ended}
        return [*events, line], now + 21, None
    stop = 2 if number % 3 == 0 else 4
    for report in range(1, stop + 1):
        now += 30 + 2 * math.log2(config["rank"])
        if number == 5 and report == 3:
            now += 600
            events.append({"event": "continue", "time": now, "from_step": 10, **shared})
            now += 20
        share = 1 - 0.6 * math.exp(-report)
        figures = {
            "accuracy": accuracy * share,
            "accuracy_se": 0.02,
            "validation_loss": loss / share,
            "loss": loss / share + 0.05,
            "samples": 50 * report,
            "step": 50 * report // config["batch_size"],
            "tokens": 5000 * report,
            "train_s": 20.0 + config["rank"] / 2 + 40 / config["batch_size"] + rng.random(),
            "eval_s": 4.0,
            "attach_s": 0.5,
            "peak_memory_gb": 1.5 + config["batch_size"] / 20 + config["rank"] / 200,
            "trainable_parameters": 150_000 * config["rank"],
            "diverged": False,
        }
        last = report == stop
        more = {"config": config, "stopped": stop < 4, "done": True} if last else {}
        events.append({"event": "finish" if last else "report", "key": key, "time": now, **figures, **more})
    return events, now + 1, accuracy if stop == 4 else None


def _finish(
    folder: Path,
    spec: Any,
    best: dict[str, Any],
    now: float,
    rows: int,
    prompt: str,
    trials: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """The final stage's files and lines."""
    lines = []
    chances = {"base": 0.05, "default-0": 0.4, "best-0": 0.6}
    tests, scores = rng.random(rows), {}
    for label, chance in chances.items():
        right = tests < chance
        (folder / "final" / label).mkdir(parents=True)
        table = pd.DataFrame(
            {
                "row": range(rows),
                "prompt": [f"{prompt}What is {n} + {n + 3}?" for n in range(rows)],
                "answer": [str(2 * n + 3) for n in range(rows)],
                "completion": [str(2 * n + 3) if ok else f"{label} says {n}" for n, ok in enumerate(right)],
                "score": right.astype(float),
            }
        )
        table.to_parquet(folder / "final" / label / "test.parquet", index=False)
        scores[label] = {"test": float(right.mean()), "test_se": float(right.std(ddof=1) / math.sqrt(rows))}
        now += 120
        result = {"train_s": 100.0, "peak_memory_gb": 2.5, "test": {"accuracy": scores[label]["test"]}}
        lines.append({"event": "final", "key": f"{label:0>16}", "label": label, "time": now, "result": result})
    both = {"validation": 0.45, "validation_se": 0.02}
    summary = {
        "metric": "accuracy",
        "mode": "max",
        "trials": trials,
        "base": scores["base"],
        "default": {"config": spec.recipe_to_knobs(), **both, **scores["default-0"]},
        "best": {"config": best, **both, **scores["best-0"]},
        "run_dir": str(folder),
        "wall_s": 1000.0,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return lines


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_run(name, **how)`: a new run's folder, see `write_run`."""

    def make(name: str = "made", **how: Any) -> Path:
        return write_run(tmp_path_factory.mktemp("runs") / name, **how)

    return make


@pytest.fixture(scope="session")
def long_run(make_run: Callable[..., Path]) -> Path:
    """200 trials, finished."""
    return make_run("long")
