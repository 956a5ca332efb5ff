"""Pack: the trials that run together on one host, and the thread that trains them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from trainables.evaluation import pad_token
from trainables.exhausted import is_exhausted
from trainables.journal import Ending, Knobs, Metrics, trial_key
from trainables.packed.evaluation import evaluate_together
from trainables.packed.member import Member, Waiting
from trainables.packed.passes import make_pass
from trainables.packed.run import PackedRun
from trainables.packed.session import Crowded, PackedSession
from trainables.packed.shares import choose
from trainables.packed.trunk import Trunk, why_not
from trainables.packed.twin import twin
from trainables.protocols import TrialSetup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Seconds that a pass waits for trials that have just been given their report: they come back after a word with Tune.
SETTLE_S = 0.3

# Part of the way from one report to the next that a trial has left when others wait to be scored with it.
NEAR = 0.125

# Seconds after its report in which nobody has asked for a trial's next one, when another may take its place.
ABANDONED_S = 60.0

Answer = TypeVar("Answer")


class Pack:
    """Up to `setup.pack` trials over one base, each as it would be alone.

    All work on tensors is done by one thread, which owns everything here; methods may be called from any thread and
    return when it is done. Between two passes that thread does what was asked of it meanwhile: so a trial may join,
    report or leave at any step of the others.

    Trials whose reports are due together are scored together, and wait for those that are nearly there.
    A pass takes a micro-batch of several trials, `settings.micro_batch_tokens` in all (`shares.choose`). Where memory
    runs out the passes become smaller, not the trials' own micro-batches.

    Args:
        setup: what all trials share.
        model: the base; it is not changed.
    """

    def __init__(self, setup: TrialSetup, model: nn.Module, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
        self.model, self.tokenizer, self.where = model, tokenizer, where
        self.unshared = why_not(model)
        self.trunk = None if self.unshared else Trunk(model)
        self.members: dict[str, Member] = {}
        self._waiting: list[Waiting] = []
        self._twins: list[nn.Module] = []
        self._adopt(setup)
        self._calls: list[Callable[[], None]] = []
        self._closed = False
        self._changed = threading.Condition()
        threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._work, args=(threads,), name="pack", daemon=True)
        self._thread.start()

    # ---- from any thread ------------------------------------------------------------------------------

    def call(self, work: Callable[[], Answer]) -> Answer:
        """Have `work` done by the pack's thread, between two passes."""
        done: Future[Answer] = Future()

        def do() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self._post(do)
        return done.result()

    def begin(self, owner: str, knobs: Knobs, trial_id: str = "", halvings: int = 0) -> Ending | None:
        """As `ModelHost.begin`."""
        found = self.call(lambda: self._join(owner, knobs, trial_id, halvings))
        return found if isinstance(found, Ending) else None

    def advance(self, owner: str, knobs: Knobs, trial_id: str = "", halvings: int = 0) -> Metrics | Ending:
        """As `ModelHost.advance`."""
        asked: Future[Metrics | Ending] = Future()
        self._post(lambda: self._ask(Waiting(owner, knobs, trial_id, halvings, asked)))
        return asked.result()

    def end(self, owner: str) -> None:
        """As `ModelHost.end`."""
        self.call(lambda: self._leave(owner))

    def save(self, owner: str, folder: str) -> None:
        """As `ModelHost.save`."""
        self.call(lambda: self.members[owner].run.save(folder) if owner in self.members else None)

    def load(self, owner: str, folder: str, step: int) -> None:
        """Go on from a state of that step that `save` wrote, unless the trial is further."""

        def load() -> None:
            member = self.members.get(owner)
            if member is not None and step > member.run.step:
                member.run.load(folder)

        self.call(load)

    def adopt(self, setup: TrialSetup) -> None:
        """Put all trials aside, and run further ones under another setup."""

        def change() -> None:
            self._leave_all()
            self._adopt(setup)

        self.call(change)

    def outside(self, work: Callable[[], Answer]) -> Answer:
        """Put all trials aside and have `work` done with the base alone."""

        def do() -> Answer:
            self._leave_all()
            return work()

        return self.call(do)

    def close(self) -> None:
        """Put all trials aside and end the thread; nothing can be asked of the pack after it."""

        def do() -> None:
            self._leave_all()
            self._closed = True

        self.call(do)
        self._thread.join()

    def _post(self, call: Callable[[], None]) -> None:
        with self._changed:
            self._calls.append(call)
            self._changed.notify()

    # ---- the thread -----------------------------------------------------------------------------------

    def _work(self, threads: int) -> None:
        torch.set_num_threads(threads)
        while not self._closed:
            with self._changed:
                while not self._calls and not self._wanted():
                    self._changed.wait(self._settling())
                calls, self._calls = self._calls, []
            for call in calls:
                call()
            if self._wanted():
                try:
                    self._turn()
                except Exception as error:  # of the pack itself: nobody is to wait for an answer in vain
                    self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Let all who wait know that the pack has failed; their trials go on from their checkpoints."""
        waiting, self._waiting = self._waiting, []
        members, self.members = list(self.members.values()), {}
        for asked in [one.asked for one in waiting] + [member.asked for member in members]:
            if asked is not None:
                asked.set_exception(error)
        for member in members:
            member.session.leave()

    def _adopt(self, setup: TrialSetup) -> None:
        self.setup = setup
        self.limit = self.most = max(1, setup.pack)
        self.most_tokens = setup.settings.micro_batch_tokens
        if self.trunk is not None:
            self.trunk.recompute(setup.settings.gradient_checkpointing)

    def _asked(self) -> list[Member]:
        return [member for member in self.members.values() if member.asked is not None]

    def _settling(self) -> float | None:
        """Seconds until the trials that have just reported are waited for no longer; None where there are none."""
        if not self._asked():
            return None
        idle = [member.answered for member in self.members.values() if member.asked is None]
        left = max(idle, default=0.0) + SETTLE_S - time.monotonic()
        return left if left > 0 else None

    def _wanted(self) -> bool:
        """Whether there is something to compute now."""
        return bool(self._asked()) and self._settling() is None

    def _turn(self) -> None:
        """A report that is due, a step of a trial on its own, or a pass."""
        asked = self._asked()
        due = [member for member in asked if member.reached]
        going = [member for member in asked if not member.reached]
        if due and not self._nearly(due, going):
            self._report(due)
        else:
            self._train(going)
        self._fill()

    def _nearly(self, due: Sequence[Member], going: Sequence[Member]) -> bool:
        """Whether those that are due wait for others that will be soon, to be scored with them."""
        if any(member.late or not member.scored_together for member in due):
            return False
        settings = self.setup.settings
        near = NEAR * settings.samples / max(1, settings.reports)
        return any(member.run.shares and member.target - member.run.samples <= near for member in going)

    # ---- who is there ---------------------------------------------------------------------------------

    def _ask(self, one: Waiting) -> None:
        try:
            full = len(self._others(one.owner)) >= self._limit(one.halvings)
            if self._known(one.owner, one.knobs) is None and full and not self._put_idle_aside():
                self._waiting.append(one)
                return
            found = self._join(one.owner, one.knobs, one.trial_id, one.halvings)
        except Crowded:
            self.limit = max(1, len(self.members))
            self._waiting.append(one)
            return
        except BaseException as error:
            one.asked.set_exception(error)
            return
        if isinstance(found, Ending):
            one.asked.set_result(found)
            return
        found.asked, found.target, found.late = one.asked, found.session.next_report(), False

    def _known(self, owner: str, knobs: Knobs) -> Member | None:
        member = self.members.get(owner)
        return member if member is not None and member.session.key == trial_key(knobs) else None

    def _others(self, owner: str) -> list[Member]:
        return [member for member in self.members.values() if member.owner != owner]

    def _limit(self, halvings: int) -> int:
        """Places, fewer where the kernel has ended hosts for want of memory."""
        self.limit = max(1, min(self.limit, self.most >> halvings))
        return self.limit

    def _join(self, owner: str, knobs: Knobs, trial_id: str, halvings: int) -> Member | Ending:
        """Give a trial a place, or answer with how it ended."""
        known = self._known(owner, knobs)
        if known is not None:
            return known
        self._leave(owner)
        for member in list(self.members.values()):
            if member.session.key == trial_key(knobs):  # of an owner that is gone
                self._leave(member.owner)
            else:
                member.run.note_peak()
        place = min(set(range(len(self.members) + 1)) - {member.place for member in self.members.values()})
        model = self._twins.pop() if self._twins else twin(self.model)
        session = PackedSession(
            self.setup,
            model,
            self.tokenizer,
            trunk=self.trunk,
            where=self.where,
            place=place,
            crowded=lambda: bool(self.members),
        )
        spared = self.most.bit_length() - 1
        try:
            over = session.begin(knobs, trial_id, max(0, halvings - spared))
        finally:
            if session.run is None:
                self._keep(model)
        if over is not None:
            return over
        member = Member(owner, place, session, knobs)
        member.served = min((other.served for other in self.members.values()), default=0.0)
        self.members[owner] = member
        return member

    def _leave(self, owner: str) -> None:
        """Put a trial aside; a later `begin` goes on from there."""
        self._waiting = [one for one in self._waiting if one.owner != owner]
        member = self.members.pop(owner, None)
        if member is None:
            return
        member.session.leave()
        self._keep(member.session.model)
        if member.asked is not None:
            member.asked.set_exception(RuntimeError("the trial was put aside"))
        self._fill()

    def _keep(self, model: nn.Module) -> None:
        """A twin that is free again, unless a variant has left it with storage of its own."""
        pairs = zip(model.parameters(), self.model.parameters(), strict=True)
        if all(own.data_ptr() == shared.data_ptr() for own, shared in pairs):
            self._twins.append(model)

    def _leave_all(self) -> None:
        for owner in list(self.members):
            self._leave(owner)

    def _put_idle_aside(self) -> bool:
        """Make a place by putting the trial aside that nobody has asked for longest. Returns whether there is one."""
        now = time.monotonic()
        idle = [m for m in self.members.values() if m.asked is None and now - m.answered > ABANDONED_S]
        if not idle:
            return False
        self._leave(min(idle, key=lambda member: member.answered).owner)
        return True

    def _fill(self) -> None:
        """Give free places to those that wait."""
        while self._waiting and len(self.members) < self.limit:
            self._ask(self._waiting.pop(0))

    def _answer(self, member: Member, answer: Metrics | Ending) -> None:
        """Give a report, or an ending, to who waits for it; a trial that is over leaves."""
        asked, member.asked, member.answered = member.asked, None, time.monotonic()
        if isinstance(answer, Ending) or answer["done"]:
            self.members.pop(member.owner, None)
            self._keep(member.session.model)
        if asked is not None:
            asked.set_result(answer)

    def _fail(self, member: Member, error: Exception) -> None:
        self._answer(member, member.session.abandon(member.knobs, error))

    # ---- training -------------------------------------------------------------------------------------

    def _train(self, training: Sequence[Member]) -> None:
        """A pass of those whose turn it is."""
        ready = [member for member in training if self._ready(member)]
        if not ready:
            return
        first = min(ready, key=lambda member: (member.served, member.place))
        if not first.run.shares:
            self._step_alone(first)
            return
        sharing = [member for member in ready if member.run.shares]
        self._pass(choose(sharing, Member.size, self.most_tokens))

    def _ready(self, member: Member) -> bool:
        """Whether its next micro-batch is there."""
        try:
            if member.run.shares:
                member.run.group()
            return True
        except Exception as error:
            self._fail(member, error)
            return False

    def _step_alone(self, member: Member) -> None:
        before = member.run.tokens
        try:
            member.run.train_step()
            member.served += member.run.tokens - before
            member.late = member.session.stepped(member.target)
        except Exception as error:
            self._fail(member, error)

    def _pass(self, chosen: Sequence[Member]) -> None:
        """Forward, backward, and the steps that end with it; smaller, or one by one, where that fails."""
        tokens = [math.prod(member.size()) for member in chosen]
        started = time.perf_counter()
        try:
            assert self.trunk is not None
            losses = make_pass(self.trunk, [member.run for member in chosen], pad_token(self.tokenizer))
        except Exception as error:
            self._mend(chosen, error)
            return
        seconds = (time.perf_counter() - started) / sum(tokens)
        for member, loss, own in zip(chosen, losses, tokens, strict=True):
            member.served += own
            try:
                member.run.took(loss, own * seconds)
                if not member.run.in_step:
                    member.late = member.session.stepped(member.target)
            except Exception as error:
                self._fail(member, error)

    def _mend(self, chosen: Sequence[Member], error: Exception) -> None:
        """After a pass that failed: all of its trials repeat their steps, in passes that tell whose fault it was."""
        exhausted = is_exhausted(error)
        if len(chosen) == 1:
            (member,) = chosen
            try:
                if not exhausted:
                    raise error
                member.run.repeat_step(error)
            except Exception as final:
                self._fail(member, final)
            return
        error.__traceback__ = None  # its frames hold what did not fit
        if exhausted:
            rows, width = zip(*map(Member.size, chosen), strict=True)
            self.most_tokens = max(1, sum(rows) * max(width) // 2)
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        for member in chosen:
            member.run.repeat_step()
        if not exhausted:
            for member in chosen:
                self._pass([member])

    # ---- reports --------------------------------------------------------------------------------------

    def _report(self, due: Sequence[Member]) -> None:
        """Score those that can be scored together, else the first one, and give their reports."""
        chosen = [member for member in due if member.scored_together] or [due[0]]
        for member, judge in zip(chosen, self._figures(chosen), strict=True):
            try:
                answer = member.session.report(judge(), member.late)
            except Exception as error:
                self._fail(member, error)
            else:
                self._answer(member, answer)

    def _figures(self, members: Sequence[Member]) -> list[Callable[[], Metrics]]:
        """A call for the figures of each, which raises what its trial fails for."""
        first, scorer = members[0], self.setup.scorer
        for member in members:
            member.session.scoring()
        rows = first.session.validation
        if first.run.diverged:
            return [lambda: scorer.worst_figures("validation")]
        if not first.run.shares:
            return [lambda: first.run.evaluate(rows, scorer, self.tokenizer)]

        def together(runs: Sequence[PackedRun]) -> list[Callable[[], Metrics]]:
            assert self.trunk is not None
            return evaluate_together(self.trunk, runs, rows, scorer, self.tokenizer)

        def alone(run: PackedRun) -> Metrics:
            return together([run])[0]()

        calls: list[Callable[[], Metrics]] = [partial(alone, member.run) for member in members]
        if len(members) == 1:
            return calls
        try:
            return together([member.run for member in members])
        except Exception as error:
            error.__traceback__ = None  # its frames hold what did not fit
            return calls
