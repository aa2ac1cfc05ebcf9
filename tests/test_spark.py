"""The parts of `pleo_extract.spark` that need no Spark; tests/spark has the rest."""

from __future__ import annotations

import subprocess
import sys

from pleo_extract.answers.statement import parts

WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pyspark":
            raise ModuleNotFoundError("asked for " + name, name="pyspark")
sys.meta_path.insert(0, Without())
"""


def run_without(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python without pyspark."""
    return subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False)


def test_nothing_else_asks_for_pyspark() -> None:
    """All public names and commands import without pyspark."""
    done = run_without(
        "import pleo_extract, pleo_extract.cli, pleo_extract.report, pkgutil, importlib\n"
        "[getattr(pleo_extract, name) for name in pleo_extract.__all__]\n"
        "for module in pkgutil.walk_packages(pleo_extract.__path__, 'pleo_extract.'):\n"
        "    if not module.name.startswith(('pleo_extract.spark', 'pleo_extract.__main__')):\n"
        "        importlib.import_module(module.name)\n"
        "print('done', [name for name in sys.modules if name.startswith('pleo_extract.spark')])"
    )
    assert (done.stdout, done.stderr) == ("done []\n", "")


def test_without_pyspark_it_says_which_extra_to_install() -> None:
    """Importing `pleo_extract.spark` without pyspark fails with the install command."""
    done = run_without("import pleo_extract.spark")
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: pleo_extract.spark needs pyspark; install it with: pip install 'pleo-extract[spark]'"
    )


def test_each_engine_has_the_same_parts() -> None:
    """The DuckDB and the Spark versions of a helper have the same names and parameters."""
    duckdb, spark = (
        {part.name: part.parameters for part in parts(engine).values()} for engine in ("duckdb", "spark")
    )
    assert duckdb == spark
    assert {"dated", "limits", "measured"} < duckdb.keys()
