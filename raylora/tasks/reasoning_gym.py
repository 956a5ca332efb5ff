"""Generated, verifiable tasks: every generator of the `reasoning-gym` package.

Rows are made on the spot, offline, by seed. The package's own scorer marks the completions.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import logging
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raylora.data.rows import Row, Source
from raylora.errors import UserError
from raylora.tasks.base import Task, check_lengths, check_positive

PREFIX = "reasoning_gym/"
# A generator that repeats itself this often in a row is taken to have run out of new questions.
_STALE_AFTER = 2_000

log = logging.getLogger(__name__)


def _placeholder_pycosat() -> types.ModuleType:
    """Stands in for pycosat, which needs a compiler and which only the zebra puzzles use."""

    def itersolve(*args: object, **kwargs: object) -> object:
        raise ImportError("pycosat is not installed; reasoning_gym/zebra_puzzles needs it: pip install pycosat")

    module = types.ModuleType("pycosat")
    module.itersolve = itersolve  # type: ignore[attr-defined]
    return module


def _package() -> Any:
    """The imported `reasoning_gym`, whether or not pycosat could be built here."""
    if "reasoning_gym" not in sys.modules:
        if importlib.util.find_spec("reasoning_gym") is None:
            raise UserError.at(
                "task", "reasoning_gym/... needs the package reasoning-gym; install it with: pip install raylora[gym]"
            )
        if "pycosat" not in sys.modules and importlib.util.find_spec("pycosat") is None:
            sys.modules["pycosat"] = _placeholder_pycosat()
    import reasoning_gym

    return reasoning_gym


def generators() -> list[str]:
    """Names of every generator installed, sorted; UserError where reasoning-gym is missing."""
    _package()
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS)


# --- metadata <-> JSON ---
# Scorers compare metadata with ==, so a tuple must come back as a tuple and an integer key as an integer.


def pack(value: object) -> object:
    """`value` in plain JSON types; `unpack` can tell the tuples and the dicts with other keys than str."""
    if isinstance(value, dict):
        if all(type(key) is str for key in value) and "__tuple__" not in value and "__items__" not in value:
            return {key: pack(item) for key, item in value.items()}
        return {"__items__": [[pack(key), pack(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"__tuple__": [pack(item) for item in value]}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if hasattr(value, "tolist"):  # numpy; its float64 and str_ are float and str as well
        return pack(value.tolist())
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def unpack(value: object) -> object:
    """Inverse of `pack`."""
    if isinstance(value, dict):
        if "__tuple__" in value:
            return tuple(unpack(item) for item in value["__tuple__"])
        if "__items__" in value:
            return {unpack(key): unpack(item) for key, item in value["__items__"]}
        return {key: unpack(item) for key, item in value.items()}
    return [unpack(item) for item in value] if isinstance(value, list) else value


class ReasoningGymTask(Task):
    """Rows of one reasoning-gym generator, for example `reasoning_gym/chain_sum`.

    Train and test come from two seeded streams. Questions are unique within a split, and a question of the
    test
    split never occurs in train: the test set depends on the generator, its options, `seed` and `test_rows`
    alone, and train skips what is in it (the questions are compared as text; the test answers are not used).
    Each split is the same for the same arguments, except for the few generators that iterate over Python sets
    (`isomorphic_strings`, `knight_swap`, `polynomial_multiplication`, `ransom_note`, `word_ladder`), whose
    rows also depend on PYTHONHASHSEED.

    Score: 1 where the package's scorer gives full credit for the stripped completion, else 0. The scorers'
    partial credit (0.01 for any text, a share where the answer is somewhere inside) would make a rambling
    model look better than it is, so it does not count. A scorer that raises on a malformed completion scores
    it 0. Note that the scorers of some generators (such as `puzzle24`) parse the completion as an expression
    with sympy.

    Args:
        generator: a name from `generators()`.
        train_rows, test_rows: number of distinct rows per split.
        seed: of the two streams; not the experiment's seed.
        max_new_tokens: longest completion to generate, in tokens.
        options: passed to the generator's configuration, such as `min_digits=2` for `chain_sum`. `composite`
            takes `datasets=[{"name": "gcd", "weight": 1.0, "config": {...}}, ...]`.

    Raises:
        UserError: unknown generator (with close matches) or option, a generator without reference answers, or
            one that cannot give that many distinct questions.
    """

    name = "reasoning_gym"
    summary = "generated puzzles and sums with exact scorers"
    part = "generator"

    def __init__(
        self,
        generator: str,
        *,
        train_rows: int = 1000,
        test_rows: int = 500,
        seed: int = 0,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> None:
        known = generators()
        if generator not in known:
            near = difflib.get_close_matches(generator, known, n=3, cutoff=0.5) or known[:3]
            raise UserError.at(
                "task",
                f"reasoning_gym has no generator {generator!r}; did you mean {', '.join(near)}? "
                f"(`raylora tasks` lists all {len(known)})",
                value=generator,
                allowed=near,
            )
        check_positive("train_rows", train_rows)
        check_positive("test_rows", test_rows)
        check_positive("max_new_tokens", max_new_tokens)
        for field in ("size", "dataset_name"):
            if field in options:
                raise UserError.at(
                    f"task.{field}",
                    f"{options[field]!r} cannot be set; use train_rows and test_rows",
                    value=options[field],
                )
        self.name = PREFIX + generator
        self.generator = generator
        self.train_rows: int = train_rows
        self.test_rows: int = test_rows
        self.seed = seed
        self.max_new_tokens = max_new_tokens
        self.options = options
        self._scorer: Any = None
        self._dataset(0, 1)  # a wrong option is reported now, not by the first trial

    @classmethod
    def offers(cls) -> list[str]:
        try:
            return [PREFIX + generator for generator in generators()]
        except UserError:
            return []

    def __getstate__(self) -> dict[str, object]:
        return {
            **self.__dict__,
            "_scorer": None,
        }  # generators may hold open resources; each process makes its own

    def _dataset(self, seed: int, size: int) -> Any:
        options = dict(self.options)
        if self.generator == "composite" and isinstance(options.get("datasets"), list):
            from reasoning_gym.composite import DatasetSpec

            options["datasets"] = [
                DatasetSpec(**{"weight": 1.0, "config": {}, **part}) if isinstance(part, Mapping) else part
                for part in options["datasets"]
            ]
        try:
            return _package().create_dataset(self.generator, seed=seed, size=size, **options)
        except (TypeError, AssertionError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            given = ", ".join(f"{key}={value!r}" for key, value in self.options.items()) or "none"
            raise UserError.at(
                "task.options", f"{self.name} refuses the options ({given}): {reason}", value=self.options
            ) from error

    def _entries(self, split: str, chunk: int) -> Iterator[tuple[int, int, dict[str, object]]]:
        """Endless `(seed, index, entry)` of a split.

        Most generators seed entry i with `seed + i`, so neighbouring seeds share nearly all their entries:
        chunks step by their own size, and the two streams start at places drawn from a hash of the seed.
        """
        digest = hashlib.sha256(f"{self.seed}/{split}".encode()).digest()
        start = int.from_bytes(digest[:4], "big") >> 1
        position = 0
        while True:
            seed = (start + position) % 2**31
            dataset = self._dataset(seed, chunk)
            for index in range(chunk):
                yield seed, index, dataset[index]
            position += chunk

    def _rows(self, split: str, wanted: int, exclude: frozenset[str]) -> list[Row]:
        rows: list[Row] = []
        seen = set(exclude)
        stale = 0
        for seed, index, entry in self._entries(split, chunk=wanted):
            question, answer = str(entry["question"]), entry["answer"]
            if answer is None:
                raise UserError.at(
                    "task",
                    f"{self.name} gives no reference answers to learn from; choose another generator",
                    value=self.name,
                )
            if question in seen:
                stale += 1
                if stale >= max(_STALE_AFTER, 4 * wanted):
                    field = f"{split}_rows"
                    raise UserError.at(
                        f"task.{field}",
                        f"{self.name} has only about {len(rows)} distinct questions for "
                        f"{split}, {wanted} asked for; lower {field} or widen the generator's options",
                        value=wanted,
                        allowed=len(rows),
                    )
                continue
            stale = 0
            seen.add(question)
            metadata = {"seed": seed, "index": index, "entry": pack(entry.get("metadata", {}))}
            rows.append(
                {
                    "prompt": question,
                    "response": str(answer),
                    "answer": str(answer),
                    "metadata": json.dumps(metadata | {"question": question}),
                }
            )
            if len(rows) == wanted:
                break
        return rows

    def _test(self) -> list[Row]:
        return self._rows("test", self.test_rows, frozenset())

    def _train(self) -> list[Row]:
        return self._rows("train", self.train_rows, frozenset(row["prompt"] for row in self._test()))

    def splits(self) -> dict[str, Source]:
        return {"train": self._train, "test": self._test}

    def score(self, completions: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[float]:
        check_lengths(completions, rows)
        if self._scorer is None:
            self._scorer = self._dataset(0, 1)
        return [self._score_one(text, row) for text, row in zip(completions, rows, strict=True)]

    def _score_one(self, completion: str, row: Mapping[str, Any]) -> float:
        # The row's prompt may be wrapped in a chat template: the bare question travels in the metadata.
        metadata = json.loads(row["metadata"])
        entry = {
            "question": metadata["question"],
            "answer": row["answer"],
            "metadata": unpack(metadata["entry"]),
        }
        try:
            credit = float(self._scorer.score_answer(answer=completion.strip(), entry=entry))
        except Exception as error:  # the package's scorers raise many things on text they did not expect
            log.debug("%s: scorer refused a completion: %s", self.name, error)
            return 0.0
        return 1.0 if credit >= 1.0 else 0.0
