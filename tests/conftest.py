"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

# Set before ray, transformers or tokenizers are imported by any test, and inherited by Ray's workers.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests run side by side: a surrogate at the lowest priority would wait for those of the other process.
os.environ.setdefault("RAYLORA_SURROGATE_NICE", "0")

# What a machine cannot be given for the asking: its hardware, system and rights, data that does not ship, downloads,
# toolkits whose requirements are not this environment's.
# And what a conformance suite asks of all has no meaning for some.
MAY_BE_MISSING = re.compile(
    r"\b(gpus?|cuda|bfloat16|macos|linux|kernel|cores|root|unprivileged|shared|published|downloads?)\b"
    r"|environment of its own|is limited by the matrices|has no PEFT form|may repeat a configuration",
    re.IGNORECASE,
)


def _must_be_there(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With RAYLORA_REQUIRE_ALL=1 a test that is skipped for a part that can be installed has failed."""
    if not report.skipped or hasattr(report, "wasxfail") or os.environ.get("RAYLORA_REQUIRE_ALL") != "1":
        return
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not MAY_BE_MISSING.search(reason):
        report.outcome = "failed"
        report.longrepr = f"{reason}: RAYLORA_REQUIRE_ALL=1 allows no skip for a part that can be installed"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _must_be_there(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _must_be_there(report)
    return report


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """One thread per process: sums come out the same everywhere, and workers do not fight for cores."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Give the folder `name` that `make(folder)` filled, in whichever of the session's processes came first.

    It is for what costs much to make and is only read afterwards.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name: str, make: Callable[[Path], object]) -> Path:
        from filelock import FileLock

        folder, made = shared / name, shared / f"{name}.made"
        with FileLock(shared / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed half-way
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def tiny_model(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Folder of a tiny random Llama (float32, hidden 32, 2 layers) with its tokenizer: read only."""

    def make(folder: Path) -> None:
        from trainables.testing import make_tiny_model

        make_tiny_model(folder / "llama")

    return made_once("tiny", make) / "llama"


@pytest.fixture(scope="session")
def secrets() -> Iterator[list[str]]:
    """What is in the environment and nobody's business, here and in Ray's workers: no run may write it down."""
    planted = {name: f"planted-{name}" for name in ("AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD", "GITHUB_TOKEN")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in planted.items():
            patch.setenv(name, value)
        yield list(planted.values())


@pytest.fixture(scope="session")
def ray_local(secrets: list[str]) -> Iterator[None]:
    """A local Ray with 2 CPUs, started once for the session."""
    import logging

    import ray

    # Workers import the checkout's packages, whether or not they are installed.
    root = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        ignore_reinit_error=True,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()
