"""ModelHost: the actor that holds the base model and runs trials; HostPool: who uses which host."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.exhausted import NoRoom
from trainables.heads import LANGUAGE, Head
from trainables.journal import Ending, Knobs, Metrics, trial_key
from trainables.live import FOLDER as LIVE
from trainables.protocols import TrainSettings, TrialSetup

if TYPE_CHECKING:
    import numpy as np
    from ray.actor import ActorHandle
    from transformers import PreTrainedModel

    from trainables.calibration import Calibration
    from trainables.features import Kind
    from trainables.recipe import RecipeJob, RecipeResult
    from trainables.scored import Scored
    from trainables.variants.core.matching import Possible


# Hosts in a row that may be ended while they load their model.
MOST_LOADINGS = 3

Space = tuple[str, Sequence[int], Mapping[str, Sequence[Any]]]


class Readiness(TypedDict):
    """Where a host runs."""

    pid: int
    index: int
    node: str
    device: str
    dtype: str


class ModelHost:
    """Owns one device slot: base model, tokenised data, and the trial that runs on them.

    Weights are read once; adapters come and go in milliseconds. A host outlives its trials. It may be
    killed at any time: Ray restarts the actor with the same arguments and the next `begin` goes on from
    the trial's last checkpoint.

    Every call names its `owner`. When another owner begins, the running trial is checkpointed and put
    aside, so a host never mixes two trials and nothing is lost by the change.
    """

    def __init__(self, setup: TrialSetup, index: int = 0, latest: ActorHandle | None = None) -> None:
        from trainables.quantization import import_peft
        from trainables.session import TrialSession, load_base

        quiet_libraries()
        setup = setup.here()
        attempts = _count_loading(setup.run_dir, index)
        if latest is not None:
            # A restarted host is made from its first arguments: the run may have changed its setup since.
            setup = replace(ray.get(latest.get.remote()) or setup, threads=setup.threads).here()
        self.setup, self.index = setup, index
        self.model, self.tokenizer = load_base(setup)
        import_peft()
        self.session = TrialSession(setup, self.model, self.tokenizer, where=f"host-{index}")
        self.owner = ""
        self._checksum = self.checksum()
        attempts.unlink(missing_ok=True)

    def ready(self) -> Readiness:
        """Process id, node, device and dtype; returns once the model is loaded."""
        parameter = next(self.model.parameters())
        return {
            "pid": os.getpid(),
            "index": self.index,
            "node": ray.get_runtime_context().get_node_id(),
            "device": str(parameter.device),
            "dtype": str(parameter.dtype).removeprefix("torch."),
        }

    def checksum(self) -> str:
        """Fingerprint of the base model's bits."""
        from trainables.variants.core.snapshot import fingerprint

        return fingerprint(self.model)

    def adopt(self, setup: TrialSetup) -> None:
        """Run trials under another setup of the same model from now on."""
        from trainables.session import TrialSession

        self.session.leave()
        self.setup = setup = setup.here()
        self.session = TrialSession(setup, self.model, self.tokenizer, where=f"host-{self.index}")
        self.owner = ""

    def rehearse(self, sets: Mapping[str, Sequence[Any]]) -> None:
        """The scorer's own rehearsal, where answers will be marked, on these rows of splits; for scorers with one."""
        for split, rows in sets.items():
            self.setup.scorer.rehearse(rows, split)  # type: ignore[attr-defined]

    def unshared(self) -> str | None:
        """Why no two trials can share a pass here; None where they can, or where each has the host to itself."""
        return None

    def calibrate(self, ranks: Sequence[int], batch_sizes: Sequence[int], limit_s: float) -> Calibration:
        """What a few steps and one evaluation cost here; see `trainables.calibration.calibrate`."""
        from trainables.calibration import calibrate

        self.session.leave()
        return calibrate(self.setup, self.model, self.tokenizer, ranks=ranks, batch_sizes=batch_sizes, limit_s=limit_s)

    def possible(self, spaces: Sequence[Space]) -> list[Possible]:
        """What each (variant, ranks, options) can be attached here with."""
        return _possible(self.model, spaces, self.setup.settings)

    def resident_mb(self) -> float:
        """Resident memory of this process, in MB, after a garbage collection."""
        import gc

        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def begin(self, owner: str, knobs: Knobs, trial_id: str = "", halvings: int = 0) -> Ending | None:
        """Make `knobs` the running trial of `owner`. Returns how it ended where it is already over, or failed."""
        self.owner = owner
        return self.session.begin(knobs, trial_id, halvings)

    def advance(self, owner: str, knobs: Knobs, trial_id: str = "", halvings: int = 0) -> Metrics | Ending:
        """Metrics at the next report, or the ending of a trial that is over, or that failed for a reason of its own.

        Begins (again) where another owner or a restart came between; `halvings` as in `TrialSession.begin`.
        """
        if owner != self.owner or self.session.key != trial_key(knobs):
            over = self.begin(owner, knobs, trial_id, halvings)
            if over is not None:
                return over
        try:
            return self.session.advance()
        except Exception as error:
            return self.session.abandon(knobs, error)

    def end(self, owner: str) -> None:
        """The owner leaves: a trial still running is checkpointed and put aside."""
        if owner == self.owner:
            self.session.leave()
            self.owner = ""

    def save(self, owner: str, folder: str) -> None:
        """Copy the running trial's state (adapter, optimizer, position) to `folder`."""
        if owner == self.owner and self.session.run is not None:
            self.session.run.save(folder)

    def load(self, owner: str, knobs: Knobs, folder: str, trial_id: str = "") -> None:
        """Go on from a state saved by `save`, unless the host's own checkpoint is further."""
        import json

        over = self.begin(owner, knobs, trial_id)
        position = Path(folder) / "position.json"
        if (
            over is None
            and self.session.run is not None
            and position.exists()
            and json.loads(position.read_text())["step"] > self.session.run.step
        ):
            self.session.run.load(folder)

    # ---- outside the search ---------------------------------------------------------------------------

    def recipe(self, job: RecipeJob) -> RecipeResult:
        """Train and score one recipe of the final stage; see `run_recipe`."""
        from trainables.recipe import run_recipe

        self.session.leave()
        job = job.within(self.setup)
        result = run_recipe(job, self.setup, self.model, self.tokenizer)
        job.keep(self.setup)
        return result

    def score(self, adapter: str, sets: Mapping[str, Sequence[Any]]) -> dict[str, Scored]:
        """Score an adapter from anywhere, or the model itself; see `trainables.scored.score`."""
        from trainables.scored import score

        self.session.leave()
        return score(adapter, sets, self.setup, self.model, self.tokenizer)

    def features(self, rows: Sequence[Any], kind: Kind) -> np.ndarray:
        """What the base model makes of these `Rows`; see `trainables.features.features`."""
        from trainables.evaluation import pad_token
        from trainables.features import features

        self.session.leave()
        device = next(self.model.parameters()).device
        pad = pad_token(self.tokenizer)
        return features(self.model, rows, kind, pad_id=pad, head=self.setup.head, device=device)


def _loading_file(run_dir: str, index: int) -> Path:
    return Path(run_dir) / LIVE / f"loading-{index}"


def _count_loading(run_dir: str, index: int) -> Path:
    """Books that a host loads its model, in a file that goes when it has; Ray would restart it without end.

    Raises:
        NoRoom: this process is not the first, nor the second, that did not get to the end of it.
    """
    file = _loading_file(run_dir, index)
    count = len(file.read_bytes()) if file.is_file() else 0
    if count >= MOST_LOADINGS:
        raise NoRoom(f"a host was ended {count} times while it loaded the model, as happens where memory runs out")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"." * (count + 1))
    return file


def find_possible(
    model_folder: str, spaces: Sequence[Space], settings: TrainSettings, head: Head = LANGUAGE
) -> list[Possible]:
    """As `ModelHost.possible`, from the model's configuration alone, without its weights."""
    quiet_libraries()
    return _possible(head.empty(model_folder), spaces, settings)


def _possible(model: PreTrainedModel, spaces: Sequence[Space], settings: TrainSettings) -> list[Possible]:
    from trainables.variants.core.matching import possible

    return [
        possible(model, variant, ranks, options, settings.placement, settings.match_parameters)
        for variant, ranks, options in spaces
    ]


class Latest:
    """The setup that hosts run trials under, once it is another than the one that they were started with."""

    def __init__(self) -> None:
        self.setup: TrialSetup | None = None

    def get(self) -> TrialSetup | None:
        return self.setup

    def put(self, setup: TrialSetup) -> None:
        self.setup = setup


class HostPool:
    """Which HostedTrial uses which host: the least used one, and the same again while no other has less to do."""

    def __init__(self, hosts: Sequence[ActorHandle]) -> None:
        self.hosts = dict(enumerate(hosts))
        # Owner -> number of its host, and the trial that it is for.
        self.owners: dict[str, tuple[int, str]] = {}

    def assign(self, owner: str, trial: str = "") -> ActorHandle | None:
        """The owner's host; None as long as there is none.

        A trial that another owner had comes back after that one was lost, with its node for one: it has the same host,
        which may still be at it, and no second one trains it as well.
        """
        gone = [one for one, (_, of) in self.owners.items() if trial and of == trial and one != owner]
        for one in gone:
            self.owners[owner] = self.owners.pop(one)
        index, _ = self.owners.pop(owner, (None, ""))
        if not self.hosts:
            return None
        load = Counter(used for used, _ in self.owners.values())
        least = min(self.hosts, key=lambda number: load[number])
        if index is None or (load[index] > load[least] and not gone):
            index = least
        self.owners[owner] = index, trial
        return self.hosts[index]

    def release(self, owner: str) -> None:
        self.owners.pop(owner, None)

    def put(self, hosts: Mapping[int, ActorHandle]) -> None:
        """These are the hosts from now on, by number; owners of others are given one of them when they ask."""
        self.hosts = dict(hosts)
        self.owners = {owner: place for owner, place in self.owners.items() if place[0] in self.hosts}


def start_host(
    setup: TrialSetup,
    index: int,
    *,
    cpus: float = 0,
    gpus: float = 0,
    latest: ActorHandle | None = None,
    packs: bool = False,
    node: str | None = None,
    **options: Any,
) -> ActorHandle:
    """Create one ModelHost actor, which loads its model; arguments as `start_hosts`.

    Args:
        node: id of the one that it is for: it ends with that one. Without it, Ray spreads them.
    """
    kind: type[ModelHost] = ModelHost
    if packs:
        from trainables.packed.host import CALLS, PackedHost

        kind, options = PackedHost, {"max_concurrency": CALLS, **options}
    where = "SPREAD" if node is None else NodeAffinitySchedulingStrategy(node, soft=False)
    remote = ray.remote(kind).options(
        num_cpus=cpus, num_gpus=gpus, max_restarts=-1, scheduling_strategy=where, **options
    )
    _loading_file(setup.run_dir, index).unlink(missing_ok=True)
    return remote.remote(setup, index, latest)


def start_hosts(
    setup: TrialSetup,
    count: int,
    *,
    cpus: float = 0,
    gpus: float = 0,
    latest: ActorHandle | None = None,
    packs: bool | None = None,
    **options: Any,
) -> list[ActorHandle]:
    """Create `count` ModelHost actors, spread over the nodes, and wait until their models are loaded.

    Args:
        latest: see `change_setup`; without it the setup stays as it is.
        packs: whether they can train several trials together; by default, where the setup says so.

    Raises:
        RayActorError: a model cannot be loaded; what was started is ended.
    """
    packs = setup.pack > 1 if packs is None else packs
    hosts = [start_host(setup, i, cpus=cpus, gpus=gpus, latest=latest, packs=packs, **options) for i in range(count)]
    try:
        ray.get([host.ready.remote() for host in hosts])
    except RayError:
        for host in hosts:
            ray.kill(host)
        raise
    return hosts


def start_latest() -> ActorHandle:
    """The actor that restarted hosts ask for their setup; it needs no CPU of its own."""
    return ray.remote(Latest).options(num_cpus=0, max_restarts=0, scheduling_strategy=_beside_the_driver()).remote()


def change_setup(hosts: Sequence[ActorHandle], latest: ActorHandle, setup: TrialSetup) -> None:
    """Put the hosts under another setup of the same model, those that will be restarted too."""
    ray.get(latest.put.remote(setup))
    ray.get([host.adopt.remote(setup) for host in hosts])


def start_pool(hosts: Sequence[ActorHandle]) -> ActorHandle:
    """The pool actor over `hosts`; it needs no CPU of its own, and outlives every node but the driver's."""
    again = {"max_restarts": -1, "max_task_retries": -1}
    return (
        ray.remote(HostPool).options(num_cpus=0, scheduling_strategy=_beside_the_driver(), **again).remote(list(hosts))
    )


def _beside_the_driver() -> NodeAffinitySchedulingStrategy:
    """On the node of the process that asks: what is one for all trials must not go with another node."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def quiet_libraries() -> None:
    """Keep progress bars and advisory warnings of the libraries out of the trials' logs."""
    import warnings

    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
