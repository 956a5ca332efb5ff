"""What is built of the checkout works without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("raylora", "searchers", "trainables", "clusters")
OTHERS = ("pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.real


def run(*command: object, cwd: Path, path: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packed: building leaves its own files beside the sources."""
    folder = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*OTHERS, *(path.name for path in ROOT.glob("*.md"))):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def archives(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that was built of it."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder, source, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel was installed, beside the dependencies of this interpreter."""
    return install(next(archives.glob("*.whl")), tmp_path_factory.mktemp("site"))


def install(archive: Path, folder: Path) -> Path:
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", folder)
    run("-m", "pip", "--disable-pip-version-check", "install", *options, archive, cwd=folder)
    return folder


def test_the_wheel_holds_every_file_of_the_packages_and_no_tests(archives: Path, source: Path) -> None:
    held = {name for name in zipfile.ZipFile(next(archives.glob("*.whl"))).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    assert held == wanted
    assert not any(part == "tests" for name in held for part in name.split("/"))


def test_the_source_archive_holds_licence_readme_and_no_environment(archives: Path) -> None:
    with tarfile.open(next(archives.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*OTHERS, "raylora/__init__.py", "raylora/py.typed"} <= names
    assert not any(name.startswith(".venv") for name in names)


def test_the_installed_wheel_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = run("-c", "import raylora; print(raylora.__file__)", cwd=tmp_path, path=installed)
    assert Path(where.strip()).is_relative_to(installed)
    assert run("-m", "raylora", "--version", cwd=tmp_path, path=installed).startswith("raylora ")
    assert "pissa" in run("-m", "raylora", "variants", cwd=tmp_path, path=installed)


def test_the_installed_wheel_brings_its_recorded_grids(installed: Path, tmp_path: Path) -> None:
    command = ("-m", "raylora", "bench", "searchers", "gemma3_1b_math", "--searchers", "random", "--seeds", 1)
    assert "random" in run(*command, "--trials", 3, "--jobs", 1, cwd=tmp_path, path=installed)


def test_the_source_archive_installs_and_runs(archives: Path, tmp_path: Path) -> None:
    site = install(next(archives.glob("*.tar.gz")), tmp_path)
    assert "random" in run("-m", "raylora", "searchers", cwd=tmp_path, path=site)
