"""The tests lie where what they test lies: `tests/a/b/test_c.py` is for `a/b/c.py` or the package `a/b/c`."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent

# Of several modules together, of data, or of a whole run.
ACROSS = {
    "clusters/test_files.py",
    "raylora/run/recipes/test_toolkits.py",
    "raylora/reports/page/test_browser.py",
    "raylora/run/test_job.py",
    "raylora/run/test_old_runs.py",
    "raylora/run/test_recovery.py",
    "raylora/run/test_workers.py",
    "raylora/tasks/sandbox/test_hostile.py",
    "searchers/test_with_tune.py",
    "trainables/variants/test_contract.py",
    "trainables/variants/test_data_starts.py",
    "trainables/variants/test_details.py",
    "trainables/variants/test_formulas.py",
    "trainables/variants/test_hyper_variants.py",
    "trainables/variants/test_of_peft.py",
}


def mirrored(test: Path) -> bool:
    """Whether there is a module, or a package, that the file is called after."""
    folder, name = ROOT / test.relative_to(TESTS).parent, test.stem.removeprefix("test_")
    if folder == ROOT:  # of the house as a whole
        return True
    # tests/a/b/test_b.py, or test_init.py there, is for what a/b/__init__.py has itself.
    places = (f"{name}.py", f"_{name}.py", f"__{name}__.py", f"{name}/__init__.py")
    return name == folder.name or any((folder / place).is_file() for place in places)


def test_a_test_is_named_after_what_it_tests() -> None:
    files = {path.relative_to(TESTS).as_posix(): path for path in TESTS.rglob("test_*.py")}
    strangers = {name for name, path in files.items() if not mirrored(path)} - ACROSS
    assert not strangers, f"name them after their module, or list them in ACROSS: {sorted(strangers)}"
