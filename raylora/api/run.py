"""A run by its folder, as Python sees it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from raylora.errors import UserError
from raylora.run.predictions import LABELS
from raylora.spec import RecipeSpec, Spec

if TYPE_CHECKING:
    import pandas as pd

    from raylora.api.tuned import TunedModel
    from raylora.run.requests import Answer
    from raylora.run.state import RunStatus, State
    from raylora.run.summary import Summary

_OWN = ("variant", "rank", "alpha", "learning_rate", "batch_size", "dropout")


class Run:
    """A run of `raylora.tune`, finished or not; what it says is read from its folder at the moment of asking.

    Args:
        run_dir: the run's folder.

    Raises:
        UserError: It is no run folder.

    Example:
        >>> run = raylora.Run("runs/sums")
        >>> run.state, run.best.variant, len(run.trials())
        ('finished', 'lora', 2)
    """

    folder: Path
    spec: Spec

    def __init__(self, run_dir: str | Path) -> None:
        from raylora.run.folder import read_run

        self._shown = str(run_dir)
        self.folder, self.spec = read_run(run_dir)

    @property
    def state(self) -> State:
        """`finished`, `running` (some process works on it now) or `interrupted` (`raylora.resume` goes on).

        Example:
            >>> raylora.open_run("runs/sums").state
            'finished'
        """
        from raylora.run.state import run_state

        return run_state(self.folder)

    @property
    def status(self) -> RunStatus:
        """Where the run stands, as `raylora status --json` tells it: state, trials by outcome, best so far.

        Example:
            >>> raylora.open_run("runs/sums").status["counts"]["finished"]
            2
        """
        from raylora.run.state import run_status

        return run_status(self.folder)

    @property
    def summary(self) -> Summary:
        """What `summary.json` holds: scores of the base, the default and the found recipe, and what it cost.

        Raises:
            UserError: The run is not finished.

        Example:
            >>> summary = raylora.open_run("runs/sums").summary
            >>> summary["metric"], summary["trials"]
            ('accuracy', 2)
        """
        file = self.folder / "summary.json"
        if not file.is_file():
            raise UserError.at(
                "RUN_DIR",
                f"{self.folder} has no summary yet; finish the run with `raylora resume` first",
                value=str(self.folder),
            )
        return json.loads(file.read_text())

    @property
    def best(self) -> RecipeSpec:
        """The best recipe, of an unfinished run the best one so far; fields as in the spec's `default_recipe`.

        Raises:
            UserError: No trial has a result yet.

        Example:
            >>> best = raylora.open_run("runs/sums").best
            >>> best.rank, best.alpha
            (2, 4.0)
        """
        if (self.folder / "summary.json").is_file():
            config = self.summary["best"]["config"]
        else:
            found = self.status["best"]
            if found is None:
                raise UserError.at(
                    "RUN_DIR",
                    f"no trial of {self.folder} has a result yet; `raylora resume` goes on",
                    value=str(self.folder),
                )
            config = found["config"]
        # The rows say 8 where the recipe says 8.0; what is left over belongs to the variant.
        own = {name: config[name] for name in _OWN if name in config}
        extra = {name: value for name, value in config.items() if name not in (*_OWN, "alpha_ratio")}
        return RecipeSpec(**own, extra=extra)

    def trials(self) -> pd.DataFrame:
        """One row per trial in order of start: `trial`, `key`, `status`, the knobs, the metrics.

        Example:
            >>> raylora.open_run("runs/sums").trials()[["trial", "status", "variant"]].values.tolist()
            [[1, 'finished', 'lora'], [2, 'finished', 'lora']]
        """
        from raylora.run.trials import trial_table

        return trial_table(self.folder)

    def predictions(self, split: str = "test", *, seed: int = 0) -> pd.DataFrame:
        """Rows of a split with the answers to them, from the final stage.

        Args:
            split: `test`, or `validation`, which the untouched base did not answer.
            seed: which training of each recipe, counted from 0 (`final.seeds`).

        Returns:
            `row` (index in the split), `prompt` (as the model read it), `answer` (the right one), then per model
            (`found`, `default`, `base`) its answer under that name and `<name>_score`.

        Raises:
            UserError: The final stage has not written that split.

        Example:
            >>> answers = raylora.open_run("runs/sums").predictions("test")
            >>> list(answers)[:5]
            ['row', 'prompt', 'answer', 'found', 'found_score']
        """
        from raylora.run.predictions import read_predictions
        from raylora.run.stored import fetch_results

        fetch_results(self.folder)
        return read_predictions(self.folder, split, seed=seed)

    @property
    def adapter_dir(self) -> Path:
        """The folder of the found recipe's adapter.

        Raises:
            UserError: There is none: the run is not finished, or `final.enabled` is false.

        Example:
            >>> raylora.open_run("runs/sums").adapter_dir.name
            'adapter'
        """
        from raylora.run.stored import fetch_results

        fetch_results(self.folder)
        folder = self.folder / "adapter"
        if not folder.is_dir():
            from raylora.run.folder import no_adapter

            raise UserError.at("RUN_DIR", no_adapter(self.folder, self.spec), value=str(self.folder))
        return folder

    def export(
        self,
        to: str | Path,
        *,
        format: Literal["peft", "merged", "gguf"] | None = None,
        merge: bool = False,
    ) -> Path:
        """See `raylora.export`.

        Example:
            >>> raylora.open_run("runs/sums").export("merged", merge=True).name
            'merged'
        """
        from raylora.run.export import export

        return export(self.folder, to, format=format, merge=merge)

    def load(self, *, device: str = "auto") -> TunedModel:
        """The tuned model, ready to answer: the base with the found recipe's adapter over it, and the tokenizer.

        Args:
            device: `cpu`, `cuda`, ...; `auto` is the GPU where there is one.

        Raises:
            UserError: The run has no adapter.

        Example:
            >>> tuned = raylora.open_run("runs/sums").load()
            >>> len(tuned.answer(["2 + 2 = ?", "3 + 4 = ?"]))
            2
            >>> model, tokenizer = tuned
        """
        from raylora.api.tuned import load_tuned
        from raylora.run.heads import head_of_run

        return load_tuned(self.spec, self.adapter_dir, device, head_of_run(self.folder, self.spec))

    def stop(self, trial: int | str | None = None) -> Answer:
        """While a search runs, ask for a trial's end, or without one for that of the search: `raylora stop`.

        A trial ends at its next step and is scored as it stands. Where nobody runs the search, this holds when it goes
        on.

        Args:
            trial: its number, or the first digits of its key.

        Returns:
            `request`, `state` (`taken`, or `waiting` where nobody has looked yet) and `told`, that in words.

        Raises:
            UserError: No such trial, one that is over, or a run that is finished.

        Example:
            >>> raylora.open_run("runs/sums").stop(2)
            Traceback (most recent call last):
            ...
            raylora.errors.UserError: RUN_DIR: ... is finished; for more trials raise search.trials ...
        """
        from raylora.run.requests import end_search, stop_trial

        return end_search(self.folder) if trial is None else stop_trial(self.folder, trial)

    def add(self, *, trials: int | None = None, **knobs: Any) -> Answer:
        """While a search runs, give it a configuration to try next, or another number of trials: `raylora add`.

        Args:
            trials: how many are to finish, instead of a configuration.
            knobs: changes to the default recipe, such as `rank=16`; values need not be in the space.

        Returns:
            As `stop`.

        Raises:
            UserError: A knob or a value that there is not, a configuration that was tried, or a run that is finished.

        Example:
            >>> raylora.open_run("runs/sums").add(rank=16, learning_rate=1e-4)
            Traceback (most recent call last):
            ...
            raylora.errors.UserError: RUN_DIR: ... is finished; for more trials raise search.trials ...
        """
        from raylora.run.requests import add_trial, change_trials

        return add_trial(self.folder, knobs) if trials is None else change_trials(self.folder, trials)

    def clone(self, trial: int | str, **knobs: Any) -> Answer:
        """While a search runs, have a trial's configuration tried next with some knobs changed: `raylora clone`.

        Args:
            trial: its number, or the first digits of its key.
            knobs: what is changed; values need not be in the space.

        Returns:
            As `stop`.

        Raises:
            UserError: As `add`, and for a trial that there is not.

        Example:
            >>> raylora.open_run("runs/sums").clone(1, rank=16)
            Traceback (most recent call last):
            ...
            raylora.errors.UserError: RUN_DIR: ... is finished; for more trials raise search.trials ...
        """
        from raylora.run.requests import clone_trial

        return clone_trial(self.folder, trial, knobs)

    def __repr__(self) -> str:
        done = sum(count for name, count in self.status["counts"].items() if name != "unfinished")
        return f"Run({self._shown!r}): {self.state}, {done} of {self.spec.search.trials} trials"

    def _repr_html_(self) -> str:
        """A notebook's view: the answer as a table, of an unfinished run how far it is."""
        head = f"<p><b>{html.escape(repr(self))}</b></p>"
        if self.state != "finished":
            return head
        import pandas as pd

        from raylora.progress import describe

        summary = self.summary
        rows = []
        for label, name in LABELS.items():
            entry = cast(Mapping[str, Any], summary.get(label, {}))
            if entry:
                recipe = describe({k: v for k, v in entry.get("config", {}).items() if k != "alpha_ratio"})
                rows.append([name, recipe, entry.get("validation"), entry.get("test"), entry.get("test_se")])
        table = pd.DataFrame(rows, columns=["model", "recipe", "validation", "test", "± test"])
        return head + f"<p>{html.escape(summary['metric'])}</p>" + table.to_html(index=False, na_rep="")
