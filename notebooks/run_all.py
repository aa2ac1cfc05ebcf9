"""Run the notebooks and keep their outputs (`make notebooks`), without what differs from run to run.

Warnings are errors. The kernel is the interpreter that runs this, whatever kernels the machine knows.
"""
# ruff: noqa: INP001, T201 - a script, no part of a package; it prints

from __future__ import annotations

import base64
import os
import struct
import tempfile
import zlib
from pathlib import Path
from unittest.mock import patch

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
_PNG = b"\x89PNG\r\n\x1a\n"
STRICT = """\
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="ipykernel")  # what the kernel warns of at its own end
import altair
altair.renderers.enable("png", ppi=110)  # readers draw the charts in the browser; what is committed must be static
"""


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs it has today.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed, or warned.
    """
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    strict = nbformat.v4.new_code_cell(STRICT)  # type: ignore[no-untyped-call]
    notebook.cells.insert(0, strict)
    with tempfile.TemporaryDirectory() as folder:
        # Sockets in the file system, no network; and nothing of the user's: no kernels, start-up files, history.
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            transport="ipc",
            ip=f"{folder}/kernel",
        )
        own = dict.fromkeys(("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"), folder)
        place = {"metadata": {"path": str(FOLDER)}}
        with patch.dict(os.environ, own):
            client = NotebookClient(notebook, km=manager, timeout=60, record_timing=False, resources=place)
            client.execute(cleanup_kc=True)
    del notebook.cells[0]
    return settle(notebook)


def settle(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without progress bars, counters and versions."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = _pack(output.data["image/png"])
    return notebook


def _pack(picture: str) -> str:
    """The same picture in a third of the space: its pixels, compressed harder."""
    data = base64.b64decode(picture)
    chunks, at = [], len(_PNG)
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    pixels = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    packed = [(b"IHDR", chunks[0][1]), (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b"")]
    written = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in packed
    )
    return base64.b64encode(_PNG + b"".join(written)).decode()


if __name__ == "__main__":
    for notebook_path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(run(notebook_path), notebook_path)  # type: ignore[no-untyped-call]
        print(f"run: {notebook_path.name}")
