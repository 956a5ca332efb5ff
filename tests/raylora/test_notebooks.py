"""The notebooks: no outputs in git, one cell of parameters each, and every cell runs with a small budget."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def parameters(notebook) -> list:
    return [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_with_one_cell_of_parameters(path) -> None:
    notebook = read(path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert len(parameters(notebook)) == 1
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")


def test_the_documentation_shows_every_notebook() -> None:
    pages = (ROOT / "mkdocs.yml").read_text()
    assert all(f"notebooks/{path.stem}.md" in pages for path in NOTEBOOKS)


# A tiny model, or a run that is there, is the small budget.
SMALL = {
    "first_search": "MODEL, TRIALS, TRAIN_ROWS, VALIDATION_ROWS, TEST_ROWS, RUNS = {model!r}, 2, 32, 8, 16, 'runs'",
    "own_data": "MODEL, TRIALS, ROWS, VALIDATION_ROWS, RUNS = {model!r}, 2, 48, 8, 'runs'",
    "reading_a_run": "RUN_DIR = {run!r}",
    "rates": "MODEL, VARIANTS, RATES = {model!r}, ['lora', 'pissa'], [1e-3, 1e-2]\n"
    "TRAIN_ROWS, VALIDATION_ROWS, RUNS = 32, 8, 'runs'",
    "cluster": "MODEL, ADDRESS, HOSTS, TRIALS, TRAIN_ROWS, VALIDATION_ROWS = {model!r}, None, 2, 2, 32, 8\n"
    "RUNS = {shared!r}",
}


@pytest.fixture(scope="module")
def ran(tiny_model, tmp_path_factory) -> Callable[[str], Path]:
    """Run the notebook of that name, once for all tests; the folder that it ran in."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")

    @functools.cache
    def run(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        notebook = read(ROOT / "notebooks" / f"{name}.ipynb")
        (cell,) = parameters(notebook)
        found = next((run("first_search") / "runs").iterdir()) if name == "reading_a_run" else ""
        cell.source = SMALL[name].format(model=str(tiny_model), run=str(found), shared=str(folder / "shared"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
            patch.setenv("MPLBACKEND", "agg")
            patch.delenv("RAY_ADDRESS", raising=False)
            nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(folder))
        return folder

    return run


@pytest.mark.real
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(path, ran) -> None:
    assert ran(path.stem).is_dir()
