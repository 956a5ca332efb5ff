"""Trials per hour of trials that share passes, and of the same ones one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from raylora.bench.packed.arms import Batch, Bench, Knobs, compared, make_rows, turns
from trainables.protocols import Mark, Outputs, Row, Sampling, TrainSettings, TrialSetup

ROWS = 64
# Of a trial between two turns of the other side.
STEPS = 2
# How many times as many trials an hour eight that share passes should come to on two cores, by batch.
BARS = {Batch(2, 30): 1.45, Batch(4, 30): 1.2, Batch(8, 128): 0.97}


def _setup(bench: Bench, name: str, batch: Batch, pack: int) -> TrialSetup:
    import pyarrow as pa

    from trainables.rows import Rows

    folder, reports = bench.folder / name, bench.rounds + 1  # the last one is for the profile
    folder.mkdir(parents=True)
    rows = pa.Table.from_pylist(make_rows(ROWS, batch.length, bench.base.config.vocab_size))
    files = []
    # Trials are scored elsewhere: no row of validation.
    for split, table in (("train", rows), ("validation", rows.slice(0, 0))):
        files.append(str(folder / f"{split}.arrow"))
        with pa.ipc.new_file(files[-1], table.schema) as writer:
            writer.write_table(table)
    return TrialSetup(
        model_folder="",
        scorer=Unscored(),
        settings=TrainSettings(samples=STEPS * reports * batch.rows, reports=reports, checkpoint_every_s=1e9),
        train=Rows(files[:1]),
        validation=Rows(files[1:]),
        run_dir=str(folder),
        pack=pack,
    )


class _Together:
    """Trials of a pack, each of them asked for its next report by a thread of its own."""

    def __init__(self, bench: Bench, setup: TrialSetup, knobs: Sequence[Knobs]) -> None:
        from trainables.packed.pack import Pack

        self.knobs, self.threads = knobs, ThreadPoolExecutor(len(knobs))
        self.losses: list[float | None] = []
        self.pack = Pack(setup, bench.base, bench.tokenizer, where="")

    def begin(self) -> None:
        self._each(self.pack.begin)

    def turn(self) -> None:
        self.losses = [told["loss"] for told in self._each(self.pack.advance)]

    def _each(self, call: Callable[[str, Knobs], Any]) -> list[Any]:
        return list(self.threads.map(lambda at: call(f"trial-{at}", self.knobs[at]), range(len(self.knobs))))

    def profile(self, bench: Bench, file: Path) -> None:
        """A turn under torch's profiler, which sees the thread that it was started in."""
        from torch.profiler import ProfilerActivity, profile

        cuda = bench.device.type == "cuda"
        profiler = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])])
        self.pack.call(profiler.start)
        bench.timed(self.turn)
        self.pack.call(profiler.stop)
        file.parent.mkdir(parents=True, exist_ok=True)
        order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
        file.write_text(profiler.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=60))

    def close(self) -> None:
        self.threads.shutdown()
        self.pack.close()


class _InTurn:
    """The same trials, each with the machine to itself while it trains."""

    def __init__(self, bench: Bench, setup: TrialSetup, knobs: Sequence[Knobs]) -> None:
        from trainables.packed.twin import twin
        from trainables.session import TrialSession

        self.knobs = knobs
        self.losses: list[float | None] = []
        self.sessions = [TrialSession(setup, twin(bench.base), bench.tokenizer) for _ in knobs]

    def begin(self) -> None:
        for session, own in zip(self.sessions, self.knobs, strict=True):
            session.begin(own)

    def turn(self) -> None:
        self.losses = [session.advance()["loss"] for session in self.sessions]


def compare_training(bench: Bench, pack: int, batch: Batch, profiles: str | None = None) -> dict[str, Any]:
    """Whole trainings of both sides, in turns; see `bench_packed`."""
    name, knobs = f"{batch}-{pack}", bench.trials(pack, batch.rows)
    together = _Together(bench, _setup(bench, f"packed-{name}", batch, pack), knobs)
    in_turn = _InTurn(bench, _setup(bench, f"alone-{name}", batch, 1), knobs)
    sides: dict[str, Any] = {"packed": together, "alone": in_turn}
    began = {side: bench.timed(trials.begin) for side, trials in sides.items()}
    took = turns(bench, {side: trials.turn for side, trials in sides.items()}, bench.rounds)
    losses = {"packed": together.losses, "alone": in_turn.losses}
    if profiles is not None:
        together.profile(bench, Path(profiles) / f"{bench.name.replace('/', '-')}-{name}.txt")
    together.close()
    tokens = pack * STEPS * batch.rows * batch.length
    whole = {side: began[side].seconds + sum(one.seconds for one in took[side]) for side in sides}
    return {
        "model": bench.name,
        "batch": str(batch),
        "pack": pack,
        "trials_per_hour": {side: 3600 * pack / seconds for side, seconds in whole.items()},
        "tokens_per_s": {side: tokens / median(one.seconds for one in took[side][1:]) for side in sides},
        "attach_s": {side: began[side].seconds / pack for side in sides},
        "losses": losses,
        **compared(took),
        "bar": BARS.get(batch) if pack == 8 and bench.device.type == "cpu" else None,
    }


class Unscored:
    """A scorer without metrics."""

    metric, mode, sampling = "none", "max", Sampling()

    def needs(self, split: str) -> frozenset[str]:
        return frozenset()

    def measure(self, split: str, model: object, tokenizer: object, rows: Sequence[Row]) -> Sequence[Any]:
        return ()

    def marks(self, split: str, outputs: Outputs, rows: Sequence[Row]) -> list[Mark]:
        return [{"values": {}} for _ in rows]

    def figures(self, split: str, marks: Sequence[Mark]) -> dict[str, float | None]:
        return {}

    def worst_figures(self, split: str) -> dict[str, float | None]:
        return {}
