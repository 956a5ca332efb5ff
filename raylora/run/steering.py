"""Taking what people ask of a search (`raylora.run.requests`), between two steps of Tune's loop."""

from __future__ import annotations

import time
from typing import Any

from ray.tune import Callback

from raylora.errors import UserError
from raylora.progress import describe
from raylora.run.booking import RunCallback
from raylora.run.folder import read_run
from raylora.run.journaled import JournaledSearcher
from raylora.run.prepare import Run
from raylora.run.requests import Request, book, taken, waiting, with_trials
from trainables.files import replace_text
from trainables.journal import Journal
from trainables.stops import ask_to_stop

# Seconds between two looks into the folder.
EVERY_S = 0.5


class Steering(Callback):
    """Answers each request once, and says what came of it.

    What was taken holds for a run that is resumed as well: stops are marks in the folder, the number of trials stands
    in its spec.yaml or its plan, and configurations that were asked for are found in the journal.
    """

    def __init__(self, run: Run, searcher: JournaledSearcher, booking: RunCallback) -> None:
        self.run, self.searcher, self.booking = run, searcher, booking
        self._looked = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # Tune keeps callbacks in its snapshots, which nothing of a running process belongs into.
        return {}

    def go_on(self) -> None:
        """Propose what was asked for before the search was interrupted and has not begun."""
        begun = Journal(self.run.folder).started()
        for what, key, config in taken(self.run.folder):
            if what == "add" and key not in begun:
                self.searcher.ask_for(config)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._looked >= EVERY_S:
            self.look()
            self._looked = time.monotonic()

    def look(self) -> None:
        """Answer what waits."""
        for request in waiting(self.run.folder):
            try:
                told = self._take(request)
            except UserError as error:
                self._answer(request, str(error), taken=False)
            else:
                self._answer(request, told)
                # After the answer: what is booked is proposed, also by a process that takes up from here.
                if request.what == "add":
                    self.searcher.ask_for(request.config)

    def refuse(self) -> None:
        """Answer what came too late."""
        for request in waiting(self.run.folder):
            self._answer(request, "the search is over", taken=False)

    def _answer(self, request: Request, told: str, taken: bool = True) -> None:
        book(self.run.folder, request, taken, told)
        self.run.progress.say(f"asked to {_asked(request)}: {told}")

    def _take(self, request: Request) -> str:
        """Do it, or find out that it cannot be done; says what follows. Doing it twice is doing it once."""
        journal = Journal(self.run.folder)
        begun, over = list(journal.started()), journal.concluded()
        if request.what == "stop":
            if request.key not in begun or request.key in over:
                raise UserError("the trial is over" if request.key in over else "no such trial")
            ask_to_stop(self.run.folder, request.key)
            return f"trial {begun.index(request.key) + 1} stops at its next step and is scored as it stands"
        if request.what == "end":
            return self._end(begun, over)
        if request.what == "trials" and request.trials is not None:
            self._change_trials(request.trials)
            return f"the search ends when {request.trials} trials have finished"
        if request.what == "add" and request.config:
            booked = {key for what, key, _ in taken(self.run.folder) if what == "add"}
            if request.key in begun or request.key in booked or self.searcher.knows_of(request.config):
                raise UserError("this configuration was tried, or is next already")
            return "tried next"
        raise UserError(f"{request.what!r} is nothing that can be asked of a search")

    def _end(self, begun: list[str], over: Any) -> str:
        running = [key for key in begun if key not in over]
        finished = sum(not end.failed for end in over.values())
        if not finished + len(running):
            raise UserError("no trial has begun; Ctrl-C ends the run")
        for key in running:
            ask_to_stop(self.run.folder, key)
        self._change_trials(finished + len(running))
        self.searcher.enough = lambda: True
        return f"no further trial; {len(running)} that run stop as they stand"

    def _change_trials(self, trials: int) -> None:
        run = self.run
        run.spec = with_trials(run.spec, trials)
        if run.keeper is not None:
            run.keeper.change_trials(trials)
        else:
            file = run.folder / "spec.yaml"
            replace_text(file, with_trials(read_run(run.folder)[1], trials).to_yaml())
        self.searcher.trials = trials
        self.booking.total = run.trials


def _asked(request: Request) -> str:
    if request.what == "add":
        return f"try {describe(request.config)}"
    return {"stop": "stop a trial", "end": "end the search", "trials": f"run {request.trials} trials"}.get(
        request.what, request.what
    )
