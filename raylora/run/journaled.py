"""Search state that survives anything: a searcher tied to the run's journal."""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from raylora.run.folder import STATE_FILE, STATE_MARK
from raylora.run.requests import taken
from searchers.surrogate.link import loss_of
from trainables.files import replace_text
from trainables.journal import Ending, Journal, Knobs, trial_key

if TYPE_CHECKING:
    from searchers.base import SpaceSearcher


# So many trials that fail before any has finished end the search.
_HOPELESS = 3


class JournaledSearcher(Searcher):
    """A searcher whose state is on disk after every suggestion and every result.

    Tune's own snapshots are periodic. Here `RUN_DIR/searcher.pkl` follows each change, and `catch_up` settles
    what a killed driver left between it and the journal, `trials.jsonl`, which has the last word:

    - a configuration that finished is handed to Tune once more, so that the new experiment lists it; its
      trial is answered from the journal, and the searcher is told only if its state does not know the result;
    - a configuration that had started goes first, and continues from its checkpoint.

    The state is a pickle: it is read only where it lies in the run's folder itself, belongs to the user, and
    `searcher.json`, written beside it, names its SHA-256; and left where it does not load (its classes have moved
    since). The searcher then knows what the journal tells, which is every
    result; only its random draws begin anew.

    Trials that fail are replaced: the search is over when `trials` have finished, or as many have failed, or the first
    three did.
    """

    def __init__(
        self,
        inner: SpaceSearcher | None = None,
        run_dir: str | None = None,
        metric: str | None = None,
        mode: str | None = None,
        trials: int | None = None,
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self.inner, self.run_dir, self.trials = inner, run_dir, trials
        self._replays: list[dict[str, object]] = []
        self._passive: set[str] = set()
        # Asked before a new trial: whether there is to be none.
        self.enough: Callable[[], bool] | None = None
        # Asked before each trial: how many there may be at a time; None where Tune sees to that.
        self.places: Callable[[], int] | None = None
        self.choosing = False
        self._running: set[str] = set()
        # Asked for by people, outside the space; and the trials of such configurations.
        self._asked: list[dict[str, Any]] = []
        self._outside: set[str] = set()
        self.finished = self.failed = 0
        # Of those that ran in this attempt; a resumed one may have been mended.
        self._failed_now = 0

    @property
    def hopeless(self) -> bool:
        """Whether the first trials all failed, which says that the next ones will."""
        return not self.finished and self._failed_now >= min(_HOPELESS, self.trials or _HOPELESS)

    @property
    def state_path(self) -> Path:
        return Path(str(self.run_dir)) / STATE_FILE

    @property
    def mark_path(self) -> Path:
        return Path(str(self.run_dir)) / STATE_MARK

    def catch_up(self, say: Callable[[str], None] = lambda line: None) -> None:
        """Take over the state on disk and reconcile it with the journal; `say` is told where the state is no use."""
        inner, journal = self._inner(), Journal(str(self.run_dir))
        problem = self._take_over()
        if problem is not None:
            say(f"searcher: rebuilt from the journal, since {STATE_FILE} {problem}")
            # Its first draws would be those of the trials that there are.
            inner.reseed(inner.seed + len(journal.started()))
        space, concluded = inner.space, journal.concluded()
        if space is None:
            raise ValueError("the searcher has no space to catch up in")
        known = {observation.index for observation in inner.observations}
        asked = {key for what, key, _ in taken(Path(str(self.run_dir))) if what == "add"}
        for key, start in journal.started().items():
            if start.config not in space:
                # Of a space that was not fitted to the model: what came of it stands, the searcher cannot place it.
                if key in concluded:
                    self._replays.append(dict(start.config))
                elif key in asked:
                    self._asked.append(dict(start.config))
                continue
            config = self._respell(start.config)
            if key not in concluded:
                self._unfinished(config)
                continue
            end = concluded[key]
            if space.encode(config) not in known:
                self._record(config, end)
            self._replays.append(config)
        for trial_id, config in inner.pending.items():
            # Proposed, but its host never heard of it: propose it again. The old trial id is dead either way.
            key = trial_key(config)
            if key in concluded:
                inner.forget(trial_id)
            elif key not in journal.started():
                inner.enqueue([config])

    def _unfinished(self, config: dict[str, Any]) -> None:
        """A configuration has begun and is not over: it goes first."""
        self._inner().enqueue([config])

    def ask_for(self, config: Knobs) -> None:
        """Propose a configuration next; one outside the space is tried as well, but nothing is learnt from it."""
        inner = self._inner()
        if inner.space is not None and config in inner.space:
            inner.enqueue([self._respell(config)])
        else:
            self._asked.append(dict(config))

    def knows_of(self, config: Knobs) -> bool:
        """Whether a configuration that has not begun is about to."""
        return trial_key(config) in map(trial_key, self._inner().pending.values())

    def _record(self, config: Knobs, end: Ending) -> None:
        """Tell the searcher of a trial that its state does not know."""
        value, error = (end.metrics.get(name) for name in (str(self._metric), f"{self._metric}_se"))
        samples = end.metrics.get("samples")
        whole = None if samples is None else int(samples)
        self._inner().record(config, value, whole, error or 0.0, loss_of(end.metrics))

    def _take_over(self) -> str | None:
        """Restore the state on disk; says what is wrong with it where that cannot be."""
        if not self.state_path.exists():
            return None
        try:
            data = _own_bytes(self.state_path)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if hashlib.sha256(data).hexdigest() not in self._marked():
            return f"is not what {STATE_MARK} says was written" if self._marked() else f"has no {STATE_MARK}"
        inner = self._inner()
        blank = copy.copy(inner.__dict__)
        try:
            inner.restore_bytes(data)
        except Exception as error:  # a pickle of other classes raises whatever they raise
            return self._give_back(blank, f"does not load ({type(error).__name__}: {' '.join(str(error).split())})")
        if blank["space"] is not None and inner.space != blank["space"]:
            return self._give_back(blank, "is of another space")
        return None

    def _give_back(self, blank: Mapping[str, object], problem: str) -> str:
        """Take the searcher back to what it was before a state that is no use."""
        inner = self._inner()
        inner.__dict__.clear()
        inner.__dict__.update(blank)
        return problem

    def _marked(self) -> list[str]:
        """The SHA-256 of the states that may be on disk: the last one and, should a writer die, the one before."""
        try:
            found = json.loads(self.mark_path.read_text())["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return [str(digest) for digest in found]

    def _respell(self, config: Knobs) -> dict[str, object]:
        """The configuration in the space's own spelling of the values."""
        space = self._inner().space
        assert space is not None
        return space.decode(space.encode(config))

    def _inner(self) -> SpaceSearcher:
        if self.inner is None:
            raise ValueError("this searcher is blank: restore it first")
        return self.inner

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, object], **spec: object
    ) -> bool:
        return self._inner().set_search_properties(metric, mode, config, **spec)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.places is not None and len(self._running) + len(self._passive) >= self.places():
            return None
        if self._replays:
            self._passive.add(trial_id)
            return self._replays.pop(0)
        if self.enough is not None and self.enough():
            return Searcher.FINISHED
        if self.trials is not None:
            if self.finished >= self.trials or self.failed >= self.trials or self.hopeless:
                return Searcher.FINISHED
            if self.finished + len(self._running) + len(self._passive) >= self.trials:
                return None  # one of those that run may have to be replaced
        if self._asked:
            self._running.add(trial_id)
            self._outside.add(trial_id)
            return self._asked.pop(0)
        self.choosing = True
        try:
            suggestion = self._inner().suggest(trial_id)
        finally:
            self.choosing = False
        if isinstance(suggestion, dict):
            self._running.add(trial_id)
            self._write()
        return suggestion

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id not in self._passive | self._outside:
            self._inner().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        failed = error or bool((result or {}).get("failed"))
        self.failed += failed
        self.finished += not failed
        if trial_id in self._passive:
            self._passive.discard(trial_id)
            return
        self._failed_now += failed
        self._running.discard(trial_id)
        if trial_id in self._outside:
            self._outside.discard(trial_id)
            return
        self._inner().on_trial_complete(trial_id, result, error)
        self._write()

    def _write(self) -> None:
        """Replace the state on disk in one step; where that cannot be, the journal makes good what is not in it."""
        with contextlib.suppress(OSError):
            self._replace_state()

    def _replace_state(self) -> None:
        fresh = self.state_path.with_suffix(".fresh")
        self._inner().save(str(fresh))
        digest = hashlib.sha256(fresh.read_bytes()).hexdigest()
        # Before the state: whichever of the two a killed writer leaves there, the mark names it.
        named = {"sha256": list(dict.fromkeys([digest, *self._marked()[:1]]))}
        replace_text(self.mark_path, json.dumps(named) + "\n")
        os.replace(fresh, self.state_path)

    def save(self, checkpoint_path: str) -> None:
        """Tune's snapshot, in which nothing is: the state beside the journal is always the newer one."""
        Path(checkpoint_path).write_text(f"{STATE_FILE}, in the run's folder\n")

    def restore(self, checkpoint_path: str) -> None:
        """Tune's restore. What it kept itself is not read, for nothing says who wrote it; the journal is."""
        inner = self._inner()
        self._take_over()
        known = {observation.index for observation in inner.observations}
        for end in Journal(str(self.run_dir)).concluded().values():
            if inner.space is not None and end.config in inner.space and inner.space.encode(end.config) not in known:
                self._record(self._respell(end.config), end)


def _own_bytes(file: Path) -> bytes:
    """What is in a file that nobody else can have put there. OSError: it is another user's, or a link."""
    if file.is_symlink():
        raise PermissionError(errno.EPERM, "it is a link")
    with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
        kept = os.fstat(stream.fileno())
        if kept.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user")
        if kept.st_mode & stat.S_IWOTH:
            raise PermissionError(errno.EPERM, "every user may write it")
        return stream.read()
