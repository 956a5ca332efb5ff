"""The actor that hosts ask for answers: it owns vLLM's process, and sees to it that the adapter can be had there."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from raylora import models
from raylora.errors import RunFailed, UserError
from raylora.run.engine.child import Child, ChildDied, Refused
from raylora.run.export import merge_to
from raylora.run.portable import CONFIG, look_at, vllm_room, write_uniform
from raylora.run.vllm import vllm_python
from trainables.protocols import Sampling
from trainables.written import Asked, Wrote

FIELD = "evaluate.engine"
LOG = "engine.log"
# Of a GPU's memory, that of its own: the rest is for what CUDA and its kernels need.
_OF_GPU = 0.9


@dataclass(frozen=True)
class EngineSetup:
    """What an engine is started with.

    Attributes:
        model: as `raylora.models.resolve` takes it. tokenizer: its folder, "" for the model's own.
        length: the longest prompt with its answer, tokens.
        rank: the largest of the adapters that are expected; one that is larger has the engine start again.
        gpus: of Ray's: a share, or a whole number that share the model.
        run_dir: a folder for the log.
        seed: of what vLLM draws. threads: on a CPU.
    """

    model: str
    length: int
    rank: int
    run_dir: str
    tokenizer: str = ""
    gpus: float = 0.0
    seed: int = 0
    threads: int = 0


@dataclass(frozen=True)
class _Loaded:
    """What a process holds: a model's folder, room for adapters of this rank (0 for none), the type of its weights."""

    model: Path
    rank: int
    dtype: str

    def serves(self, wanted: _Loaded) -> bool:
        room = self.rank >= wanted.rank and (self.rank > 0) >= (wanted.rank > 0)
        return (self.model, self.dtype) == (wanted.model, wanted.dtype) and room


class Engine:
    """One of vLLM's engines, for the adapters of all trials: loaded once, adapters come and go.

    An adapter that vLLM cannot have is merged, and the merged model loaded in its place, where that was asked for.
    """

    def __init__(self, setup: EngineSetup) -> None:
        self.setup = setup
        self._base = Path(models.resolve(setup.model, quiet=True))
        self._work = tempfile.TemporaryDirectory(prefix="raylora-engine-")
        self._child: Child | None = None
        self._loaded: _Loaded | None = None

    def start(self, dtype: str) -> str:
        """Load the base model, in a type as specs name it; returns vLLM's version. Errors: see `write`."""
        from trainables.session import pick_device, pick_dtype

        held = str(pick_dtype(dtype, pick_device("auto"))).removeprefix("torch.")
        return self._engine(_Loaded(self._base, vllm_room(self.setup.rank), held)).version

    def write(self, asked: Asked) -> Wrote | None:
        """Answers to prompts; None where vLLM cannot have the adapter, and it is not to be merged.

        Raises:
            UserError: vLLM is not there, or cannot have the model.
            RunFailed: the process died, twice.
        """
        with tempfile.TemporaryDirectory(dir=self._work.name) as place:
            found = self._adapted(asked, Path(place))
            if found is None:
                return None
            wanted, adapter = found
            try:
                return self._written(wanted, adapter, asked)
            except ChildDied:
                return self._written(wanted, adapter, asked, last=True)

    def cpu_seconds(self) -> float:
        """What the process has computed so far, on all its threads."""
        return 0.0 if self._child is None else self._child.cpu_seconds()

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.close()
        self._child = self._loaded = None

    # ---- what is loaded -------------------------------------------------------------------------------

    def _adapted(self, asked: Asked, place: Path) -> tuple[_Loaded, str] | None:
        """What has to be loaded for an adapter, and the adapter as vLLM is to have it."""
        if not asked.adapter:
            return _Loaded(self._base, 0, asked.dtype), ""
        adapter = Path(asked.adapter)
        look = look_at(adapter, "vllm")
        if look.needs == "merge":
            if not asked.merge:
                return None
            self.close()  # two models may not fit
            target = Path(self._work.name) / "merged"
            shutil.rmtree(target, ignore_errors=True)  # of the adapter before
            merge_to(target, self._base, adapter, tokenizer=Path(self.setup.tokenizer or self._base))
            # Rounded to less, the update would be lost.
            return _Loaded(target, 0, "float32"), ""
        if look.needs == "uniform":
            adapter = write_uniform(adapter, place)
        rank = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))["r"]
        return _Loaded(self._base, vllm_room(rank), asked.dtype), str(adapter)

    def _engine(self, wanted: _Loaded) -> Child:
        """A process that holds what is wanted: the one that there is, or another in its place.

        Raises:
            UserError: vLLM is not there, or cannot have the model.
        """
        if self._child is not None and self._loaded is not None and self._loaded.serves(wanted):
            return self._child
        self.close()
        setup, log = self.setup, Path(self.setup.run_dir) / LOG
        # Room for the adapters that will come, too.
        expected = vllm_room(setup.rank) if setup.rank and wanted.model == self._base else 0
        rank = max(wanted.rank, expected)
        how = {
            "model": str(wanted.model),
            "tokenizer": setup.tokenizer or str(self._base),
            "dtype": wanted.dtype,
            "rank": rank,
            "length": setup.length,
            "gpus": max(1, int(setup.gpus)),
            "gpu_memory": _OF_GPU * (min(1.0, setup.gpus) or 1.0),
            "seed": setup.seed,
        }
        try:
            self._child = Child(vllm_python(FIELD), how, log, setup.threads)
        except Refused as error:
            raise UserError(
                f"{FIELD} = 'vllm': vLLM cannot have {setup.model}: {error}; set {FIELD} = transformers, or another "
                "model",
                field=FIELD,
                value="vllm",
                allowed=["transformers"],
            ) from None
        except ChildDied as error:
            raise _dead(error) from None
        self._loaded = _Loaded(wanted.model, rank, wanted.dtype)
        return self._child

    # ---- what is asked --------------------------------------------------------------------------------

    def _written(self, wanted: _Loaded, adapter: str, asked: Asked, *, last: bool = False) -> Wrote:
        """The answers of a process that holds what is wanted; `last`: its death is told to the user."""
        # A prompt that fills the model's positions leaves no room for an answer, and vLLM would refuse all of them.
        fits = [place for place, ids in enumerate(asked.prompts) if len(ids) < self.setup.length]
        sampling = asked.sampling
        told = {
            "adapter": adapter,
            "prompts": [list(map(int, asked.prompts[place])) for place in fits],
            "seeds": [seed_of(sampling, asked.prompts[place]) for place in fits] if sampling.temperature else None,
            "max_tokens": [sampling.max_new_tokens if asked.limits is None else asked.limits[place] for place in fits],
            **{name: asdict(sampling)[name] for name in ("temperature", "top_p", "n", "stop")},
            "ends": list(map(int, asked.ends)),
        }
        try:
            found = self._engine(wanted).ask(told)
        except Refused as error:
            raise RunFailed(f"{FIELD} = 'vllm': vLLM does not answer: {error}", field=FIELD, value="vllm") from None
        except ChildDied as error:
            self.close()
            if last:
                raise _dead(error) from None
            raise
        answers: list[list[list[int]]] = [[[] for _ in range(sampling.n)] for _ in asked.prompts]
        cuts = [sampling.n] * len(asked.prompts)
        for place, ids, cut in zip(fits, found["answers"], found["cuts"], strict=True):
            answers[place], cuts[place] = ids, cut
        return Wrote(answers, cuts)


def _dead(error: ChildDied) -> RunFailed:
    return RunFailed(
        f"{FIELD} = 'vllm': its process ended ({error}); set {FIELD} = transformers, or mend that and go on",
        field=FIELD,
        value="vllm",
    )


def seed_of(sampling: Sampling, prompt: Sequence[int]) -> int:
    """The seed of a prompt's draws: its own, whatever stands beside it."""
    own = [sampling.seed, len(prompt), *map(int, prompt)]
    return int(np.random.SeedSequence(own).generate_state(1, np.uint32)[0] >> 1)
