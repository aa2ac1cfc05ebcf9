"""The house: who may import what, what is public, what stays where."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import pleo_extract

PACKAGE = Path(pleo_extract.__file__).parent

FLOORS = {
    "version": -1,
    "errors": -1,
    "keywords": -1,
    "account_key": -1,
    "lazy": -1,
    "contract": 0,
    "zones": 0,
    "order": 0.5,
    "habits": 0.5,
    "paging": 1,
    "pace": 1,
    "decode": 1,
    "refresh": 1,
    "sandbox": 1,
    "client": 2,
    "lake": 2,
    "delta": 2.2,
    "lakes": 2.4,
    "warehouse": 2,
    "progress": 2,
    "extract": 3,
    "scan": 4,
    "report": 4,
    "spark": 4,
    "reader": 4.5,
    "__init__": 5,
    "cli": 6,
    "__main__": 7,
}
"""The floor of each room; imports go to a lower floor only. `errors` lies below the cellar: everyone may fail.

`delta` stands on `lake`, whose staging, record and lock it uses; `lakes` is the door to both."""

LIBRARIES = {
    "version": set(),
    "errors": set(),
    "keywords": set(),
    "account_key": set(),
    "lazy": set(),
    "contract": {"polars"},
    "zones": set(),
    "order": set(),
    "habits": set(),
    "paging": {"msgspec"},
    "pace": set(),
    "decode": {"polars", "msgspec"},
    "refresh": {"polars", "msgspec"},
    "sandbox": set(),
    "client": {"httpx", "httpcore"},
    "lake": {"polars", "msgspec"},
    "delta": {"polars", "msgspec", "deltalake"},
    "lakes": {"polars"},
    "warehouse": {"duckdb"},
    "progress": {"tqdm"},
    "extract": {"polars", "msgspec", "pyarrow", "duckdb"},
    "scan": {"polars"},
    "report": {"polars", "duckdb"},
    "spark": {"pyspark", "polars", "pyarrow"},
    "reader": {"polars", "duckdb"},
    "__init__": set(),
    "cli": {"click", "duckdb", "msgspec"},
    "__main__": set(),
}
"""What a room may import besides the standard library. `extract`, `report` and `cli` name types of duckdb, nothing more."""

STUDY = ("order", "habits", "paging", "pace", "decode", "refresh")
NOT_IN_THE_STUDY = {"os", "time", "random", "threading", "socket", "pathlib", "io", "subprocess", "secrets"}


def room_of(path: Path) -> str:
    """The room that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, with those that only type checkers read."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            deeper = (
                {f"{module}.{alias.name}" for alias in node.names} if module == "pleo_extract" else {module}
            )
            found |= deeper
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_a_floor() -> None:
    """A new room is given its floor and its libraries here, or this fails."""
    rooms = {room_of(path) for path in FILES}
    assert rooms == FLOORS.keys() == LIBRARIES.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path: Path) -> None:
    """A room imports only rooms on lower floors, and only the libraries it may touch."""
    room = room_of(path)
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top == "pleo_extract":
            other = rest.split(".")[0]
            assert other == room or FLOORS[other] < FLOORS[room], f"{room} imports {other}"
        elif top not in sys.stdlib_module_names:
            assert top in LIBRARIES[room], f"{room} imports {top}"
        elif room in STUDY:
            assert top not in NOT_IN_THE_STUDY, f"{room} imports {top}: the study does no I/O"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_environment_and_print_stay_where_they_belong(path: Path) -> None:
    """`os.environ` is read by the client, the command line, and where a store is reached; only the command line prints."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            assert room_of(path) in ("client", "cli", "delta"), f"{path}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            pytest.fail(f"{path}:{node.lineno} prints")


def test_what_is_public() -> None:
    """The public names are these; each can be imported, and each says what it is."""
    assert pleo_extract.__all__ == [
        "COLUMNS",
        "POLARS_SCHEMA",
        "Client",
        "Lake",
        "PleoExtractError",
        "Query",
        "Receipt",
        "__version__",
        "connect",
        "dump_accounts",
        "dump_export_jobs",
        "fetch_page",
        "forget",
        "iter_export_jobs",
        "list_answers",
        "load_export_jobs",
        "merge_lakes",
        "scan_export_jobs",
        "scan_lake",
        "verify_lake",
    ]
    for name in pleo_extract.__all__:
        value = getattr(pleo_extract, name)
        assert not callable(value) or value.__doc__, name


def test_every_file_says_what_it_shows() -> None:
    """Each file has an `__all__`, sorted as ruff sorts it, or is one that nobody imports from."""
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        has_all = any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)
        assert has_all or path.name in {"__main__.py", "version.py"}, f"{path} has no __all__"
