"""The notebooks run without warnings and without the network, and show their committed output."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def texts(notebook: Any) -> list[list[str]]:
    """Return the text output of each code cell; pictures may differ between versions."""
    return [
        [
            "".join(output.get("text", "")) or "".join(output.get("data", {}).get("text/plain", ""))
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "default::DeprecationWarning")
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs_and_shows_the_same(path: Path) -> None:
    """Every cell runs without a warning and prints the committed text; `make notebooks` updates it."""
    committed = nbformat.read(path, as_version=4)
    run = runpy.run_path(str(NOTEBOOKS / "run_all.py"))["run"]
    assert texts(run(path)) == texts(committed)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_is_fit_to_read(path: Path) -> None:
    """A notebook has a title and explanations, and no error, machine path or script."""
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source.startswith("# ")
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds.count("markdown") * 2 >= kinds.count("code")
    text = path.read_text(encoding="utf-8")
    assert "Traceback" not in text
    assert "<script" not in text
    assert str(NOTEBOOKS.parent) not in text
    assert any(
        "image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])
    )
