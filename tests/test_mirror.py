"""The tests lie where what they test lies: `tests/a/b/test_c.py` is for `a/b/c.py` or the package `a/b/c`."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent

# Of several modules together, of data, or of a whole run.
ACROSS = {
    "chaos/test_chaos.py",
    "clusters/test_files.py",
    "clusters/test_kuberay.py",
    "raylora/run/recipes/test_toolkits.py",
    "raylora/reports/page/test_browser.py",
    "raylora/run/test_bad_specs.py",
    "raylora/run/test_defaults.py",
    "raylora/run/test_failures.py",
    "raylora/run/test_job.py",
    "raylora/run/test_multinode.py",
    "raylora/run/test_old_runs.py",
    "raylora/run/test_ray_up.py",
    "raylora/test_notebooks.py",
    "raylora/run/test_slurm.py",
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

PACKAGES = ("raylora", "searchers", "trainables", "clusters")
# Lines from which on a module that offers something has its own file of tests.
LEAST_LINES = 150
# Modules that are tested through what uses them, or with others of their kind.
THROUGH = {
    "raylora/bench/chaos/drivers.py": "chaos/test_chaos.py",
    "raylora/bench/chaos/search.py": "chaos/test_chaos.py",
    "raylora/bench/convergence_report.py": "raylora/cli/bench/test_convergence_report.py",
    "raylora/bench/ways.py": "raylora/bench/test_scaling.py",
    "raylora/metrics/core/harness.py": "raylora/metrics/test_harness.py",
    "raylora/metrics/testing.py": "test_plugin.py",
    "raylora/reports/page/charts.py": "raylora/reports/page/test_page.py",
    "raylora/reports/page/knob_charts.py": "raylora/reports/page/test_page.py",
    "raylora/reports/page/words.py": "raylora/reports/page/test_page.py",
    "raylora/tasks/sandbox/inside/wire.py": "raylora/tasks/sandbox/test_hostile.py",
    "raylora/tasks/sandbox/supervise.py": "raylora/tasks/sandbox/test_sandbox.py",
    "searchers/surrogate/candidates.py": "searchers/surrogate/test_actor.py",
    "searchers/surrogate/reading/model.py": "searchers/surrogate/reading/test_embed.py",
    "searchers/surrogate/reading/shared.py": "searchers/surrogate/reading/test_embed.py",
    "searchers/testing.py": "test_plugin.py",
    "trainables/hypernet/factors.py": "trainables/variants/test_hyper_variants.py",
    "trainables/protocols.py": "trainables/test_session.py",
    "trainables/testing.py": "trainables/test_run.py",
    "trainables/zero.py": "trainables/test_workers.py",
    "trainables/variants/core/base.py": "trainables/variants/test_contract.py",
    "trainables/variants/core/data_start.py": "trainables/variants/test_data_starts.py",
    "trainables/variants/core/export.py": "trainables/variants/test_contract.py",
    "trainables/variants/core/hyper.py": "trainables/variants/test_hyper_variants.py",
    "trainables/variants/core/matrices.py": "trainables/test_quantization.py",
    "trainables/variants/core/peft_variant.py": "trainables/variants/test_of_peft.py",
}
# Each file there is a method, or the suites that all of them pass.
METHODS = "trainables/variants"


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


def offers_something(module: Path) -> bool:
    """Whether it is long and has a public function or class."""
    text = module.read_text()
    named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = any(isinstance(node, named) and not node.name.startswith("_") for node in ast.parse(text).body)
    return public and len(text.splitlines()) >= LEAST_LINES


def has_tests(module: Path) -> bool:
    """Whether a file of tests is called after it."""
    folder, name = TESTS / module.relative_to(ROOT).parent, module.stem.strip("_")
    if module.name == "__init__.py":
        of_package = (
            folder / "test_init.py",
            folder / f"test_{folder.name}.py",
            folder.parent / f"test_{folder.name}.py",
        )
        return any(file.is_file() for file in of_package)
    return (folder / f"test_{name}.py").is_file()


def test_a_long_module_has_tests_of_its_own() -> None:
    modules = {path.relative_to(ROOT).as_posix(): path for one in PACKAGES for path in (ROOT / one).rglob("*.py")}
    untested = {
        name
        for name, path in modules.items()
        if path.parent != ROOT / METHODS and offers_something(path) and not has_tests(path)
    }
    assert untested - THROUGH.keys() == set(), "give each a file of tests, or list it in THROUGH"
    assert THROUGH.keys() - untested == set(), "these need not be listed in THROUGH"
    assert all((TESTS / file).is_file() for file in THROUGH.values())
