"""Answers to requests as they come, told piece by piece: requests that wait together are continued together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from trainables.batching import pad_left
from trainables.decode import CACHE_BYTES, ROWS, cache_bytes, prompt_batches
from trainables.evaluation import pad_token
from trainables.exhausted import is_exhausted
from trainables.generation import Ends, Prompted, continue_all, read_prompts
from trainables.protocols import Sampling
from trainables.sampling import Choose, chooser, cut

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Reason = Literal["stop", "length"]

# Padded tokens of prompts that go through the model at once.
_PROMPT_TOKENS = 8192
# Decoded in place of a character of which a token holds a part alone.
_UNFINISHED = "\ufffd"


@dataclass(frozen=True)
class Piece:
    """What an answer goes on with.

    Attributes:
        answer: which of the answers to the request, counted from 0.
        text: never a part of a character, nor of a stop string.
        tokens: of the answer so far, the one that ended it included.
        reason: why it is over: `stop`, an end token or a stop string; `length`, its limit. None where it goes on.
    """

    answer: int
    text: str
    tokens: int
    reason: Reason | None = None


@dataclass(eq=False)
class Request:
    """A prompt to go on from.

    Attributes:
        prompt_ids: token ids, one at least.
        sampling: `n` answers, each of `max_new_tokens` at most.
        tell: called in the thread of `Answers` with each piece, or with the error that ended the request.
        cancelled: set it, and the answers end at their next token.
    """

    prompt_ids: Sequence[int]
    sampling: Sampling
    tell: Callable[[Piece | Exception], None]
    cancelled: bool = False
    begun: bool = field(default=False, init=False)


class Written:
    """The text of an answer as its tokens come.

    A character may take several tokens, and so may a stop string: what can still become part of one is held back.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self.ids: list[int] = []
        self.stopped = False
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._longest = max(map(len, self._stop), default=0)
        self._text, self._given = "", 0
        # Decoding starts again some tokens before the last that are sure: a token alone may lack its space.
        self._start = self._sure = 0

    def add(self, token: int) -> None:
        """Take the next token; `stopped` tells whether a stop string is whole."""
        self.ids.append(token)
        known, now = self._decode(self.ids[self._start : self._sure]), self._decode(self.ids[self._start :])
        if len(now) <= len(known) or now.endswith(_UNFINISHED):
            return
        before = len(self._text)
        self._text += now[len(known) :]
        self._start, self._sure = self._sure, len(self.ids)
        recent = self._text[max(0, before - self._longest) :]
        self.stopped = any(one in recent for one in self._stop)

    def take(self) -> str:
        """What can be told since the last call."""
        upto = len(self._text) - self._held()
        piece, self._given = self._text[self._given : upto], max(self._given, upto)
        return piece

    def rest(self) -> str:
        """What is left to tell of the answer, which is over: up to the first stop string."""
        return cut(self._decode(self.ids), self._stop)[self._given :]

    def _held(self) -> int:
        """Characters at the end that a stop string may begin with."""
        ends = (n for n in range(min(self._longest, len(self._text)), 0, -1))
        return next((n for n in ends if any(one.startswith(self._text[-n:]) for one in self._stop)), 0)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


class Answers:
    """A thread in which one model answers; closing it ends what it is at.

    Args:
        model: in evaluation mode, on its device.
        ends: tokens that end an answer.

    Attributes:
        closing: whether all answers are to end.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> None:
        self.model, self.tokenizer, self.ends = model, tokenizer, frozenset(map(int, ends))
        self.device = next(model.parameters()).device
        self.closing = False
        self._pad = pad_token(tokenizer)
        self._tokens = max(_PROMPT_TOKENS, CACHE_BYTES // cache_bytes(model))
        self._queue: queue.SimpleQueue[Sequence[Request]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[Request]) -> None:
        """Have requests answered, together as far as their keys and values have room; returns at once."""
        self._queue.put(requests)

    def close(self) -> None:
        """End all answers at their next token, and the thread."""
        self.closing = True
        self._queue.put([])
        self._thread.join(timeout=10)

    def _work(self) -> None:
        waiting: list[Request] = []
        while not self.closing:
            if not waiting:
                waiting += self._queue.get()
            while not self._queue.empty():
                waiting += self._queue.get()
            waiting = [request for request in waiting if not request.cancelled]
            if waiting and not self.closing:
                batch = self._together(waiting)
                waiting = [request for request in waiting if request not in batch]
                self._answer(batch)

    def _together(self, waiting: Sequence[Request]) -> list[Request]:
        """The first of those that wait, and those behind it that fit beside it."""
        n = waiting[0].sampling.n
        batch: list[Request] = []
        width = 0
        for request in waiting:
            wide = max(width, len(request.prompt_ids) + request.sampling.max_new_tokens)
            rows = (len(batch) + 1) * n
            if batch and (request.sampling.n != n or rows > ROWS or rows * wide > self._tokens):
                continue
            batch.append(request)
            width = wide
        return batch

    def _answer(self, batch: Sequence[Request]) -> None:
        try:
            with torch.inference_mode():
                self._continue(batch)
        except Exception as error:
            error.__traceback__ = None  # its frames hold what did not fit
            if len(batch) > 1 and is_exhausted(error) and not any(request.begun for request in batch):
                for request in batch:
                    self._answer([request])
                return
            for request in batch:
                request.tell(error)

    def _continue(self, batch: Sequence[Request]) -> None:
        rows = [{"prompt_ids": request.prompt_ids} for request in batch]
        read: list[tuple[list[Request], Prompted]] = []
        for places in prompt_batches(rows, _PROMPT_TOKENS, 0):
            inputs = pad_left([batch[place].prompt_ids for place in places], self._pad)
            on_device = {name: tensor.to(self.device) for name, tensor in inputs.items()}
            read.append(([batch[place] for place in places], read_prompts(self.model, on_device)))
        joined = [read] if all(part.joinable for _, part in read) else [[one] for one in read]
        while joined:
            parts = joined.pop()
            _Round(self, [request for requests, _ in parts for request in requests]).run([part for _, part in parts])


class _Round:
    """Requests that are continued together, each with as many answers as the others."""

    def __init__(self, answers: Answers, requests: Sequence[Request]) -> None:
        self.answers, self.requests = answers, requests
        self.n = requests[0].sampling.n
        self.written = [Written(answers.tokenizer, one.sampling.stop) for one in requests for _ in range(self.n)]
        self.over = [False] * len(self.written)
        self.draws: dict[int, Choose] = {
            place: chooser(one.sampling, [{"prompt_ids": one.prompt_ids}], answers.device)
            for place, one in enumerate(requests)
            if one.sampling.temperature > 0
        }

    def run(self, parts: Sequence[Prompted]) -> None:
        """Continue them to the end, and tell the pieces."""
        longest = max(request.sampling.max_new_tokens for request in self.requests)
        ends = _Ends(self.answers.ends, longest, go=self._reached)
        continue_all(self.answers.model, parts, ends, self._choose, self.n)

    def _choose(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        tokens = logits.argmax(-1, keepdim=True)
        for request, draw in self.draws.items():
            places = [place for place, row in enumerate(rows) if row // self.n == request and not self.over[row]]
            if places:
                tokens[places] = draw(logits[places], [rows[place] % self.n for place in places], step)
        for row, token in zip(rows, tokens[:, 0].tolist(), strict=True):
            if token in self.answers.ends and not self.over[row]:
                self._end(row, "stop", len(self.written[row].ids) + 1)
        return tokens

    def _reached(self, row: int, answer: Sequence[int]) -> bool:
        """Takes the token that an answer has got; tells whether the answer is over."""
        request, written = self.requests[row // self.n], self.written[row]
        written.add(answer[-1])
        if written.stopped:
            self._end(row, "stop", len(answer))
        elif len(answer) >= request.sampling.max_new_tokens or request.cancelled or self.answers.closing:
            self._end(row, "length", len(answer))
        elif piece := written.take():
            self._tell(row, Piece(row % self.n, piece, len(answer)))
        return self.over[row]

    def _end(self, row: int, reason: Reason, tokens: int) -> None:
        self.over[row] = True
        self._tell(row, Piece(row % self.n, self.written[row].rest(), tokens, reason))

    def _tell(self, row: int, piece: Piece) -> None:
        request = self.requests[row // self.n]
        request.begun = True
        request.tell(piece)


@dataclass(frozen=True)
class _Ends(Ends):
    """Ends that each request has of its own."""

    go: Callable[[int, Sequence[int]], bool] | None = None

    def reached(self, row: int, answer: Sequence[int]) -> bool:
        """Whether the answer to a row is over, apart from its end token."""
        assert self.go is not None
        return self.go(row, answer)
