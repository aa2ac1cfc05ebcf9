"""Tests of the architecture: who may import what, what is public, and what each room may do."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import pleo_extract

PACKAGE = Path(pleo_extract.__file__).parent

FLOORS = {
    "version": 0,
    "cache": 0,
    "errors": 0,
    "keywords": 0,
    "lazy": 0,
    "progress": 0,
    "signals": 0,
    "system": 0,
    "temporary": 0,
    "sandbox": 0,
    "contract": 1,
    "zones": 1,
    "core": 2,
    "client": 3,
    "fetch": 4,
    "lake": 3,
    "lake/folder": 4,
    "lake/delta": 5,
    "lake/store": 6,
    "lake/changes": 7,
    "lake/status": 7,
    "answers": 7,
    "sync": 8,
    "report": 8,
    "spark": 8,
    "reader": 9,
    "__init__": 10,
    "cli": 11,
    "__main__": 12,
}
"""The floor of each room. A room imports only itself and rooms on lower floors.

A file belongs to the deepest room whose name begins its path. `lake/delta` is above `lake/folder` because it uses
its staging and records; `lake/store` opens both."""

LIBRARIES: dict[str, set[str]] = {
    "version": set(),
    "cache": set(),
    "errors": set(),
    "keywords": set(),
    "lazy": set(),
    "progress": {"tqdm"},
    "signals": set(),
    "system": set(),
    "temporary": set(),
    "sandbox": set(),
    "contract": {"polars"},
    "zones": set(),
    "core": {"polars", "msgspec"},
    "client": {"httpx", "httpcore", "certifi", "pycurl"},
    "fetch": {"polars", "msgspec", "pyarrow"},
    "lake": {"polars", "msgspec"},
    "lake/folder": {"polars", "msgspec"},
    "lake/delta": {"polars", "msgspec", "deltalake"},
    "lake/store": {"polars"},
    "lake/changes": {"polars"},
    "lake/status": {"polars", "msgspec"},
    "answers": {"duckdb", "_duckdb", "polars", "xlsxwriter"},
    "sync": {"polars", "msgspec"},
    "report": {"polars", "duckdb"},
    "spark": {"pyspark", "polars", "pyarrow"},
    "reader": {"polars", "duckdb"},
    "__init__": set(),
    "cli": {"click", "duckdb", "msgspec"},
    "__main__": set(),
}
"""The libraries that a room may import. `report` and `cli` use only types of duckdb."""

WINGS = {"client": "west", "fetch": "west", "lake": "east", "answers": "east"}
"""The west wing is the API, the east wing the store. Only `sync` and the rooms above it import both."""

NOT_IN_THE_CORE = {"os", "time", "random", "threading", "socket", "pathlib", "io", "subprocess", "secrets"}


def room_of(name: str) -> str:
    """Return the room that a file or module belongs to: the deepest one whose name it begins with."""
    parts = name.removesuffix(".py").replace(".", "/").split("/")
    names = ("/".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((room for room in names if room in FLOORS), parts[0])


def name_of(path: Path) -> str:
    """Return the path below the package."""
    return path.relative_to(PACKAGE).as_posix()


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Return all nodes of a file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports, also those under TYPE_CHECKING."""
    found: set[str] = set()
    for node in nodes_of(path):
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
    """Every room has a floor and a list of libraries."""
    rooms = {room_of(name_of(path)) for path in FILES}
    assert rooms == FLOORS.keys() == LIBRARIES.keys()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    """A room imports only rooms on lower floors, and only the libraries on its list."""
    room = room_of(name_of(path))
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top == "pleo_extract":
            other = room_of(rest)
            assert other == room or FLOORS[other] < FLOORS[room], f"{room} imports {other}"
        elif top not in sys.stdlib_module_names:
            assert top in LIBRARIES[room], f"{room} imports {top}"
        elif room == "core":
            assert top not in NOT_IN_THE_CORE, f"{room} imports {top}: the core does no I/O"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_wings_meet_in_the_hall_only(path: Path) -> None:
    """The API wing and the store wing never import each other."""
    own = WINGS.get(name_of(path).partition("/")[0])
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        other = WINGS.get(rest.partition(".")[0]) if top == "pleo_extract" else None
        assert own is None or other in (None, own), f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_sandbox_stands_apart(path: Path) -> None:
    """The sandbox imports no other room, and only the commands `demo` and `sandbox` import it."""
    name = name_of(path)
    ours = {found for found in imports_of(path) if found.startswith("pleo_extract.")}
    if room_of(name) == "sandbox":
        assert all(found.startswith("pleo_extract.sandbox") for found in ours)
    elif name not in ("cli/demo.py", "cli/sandbox.py"):
        assert not any(found.startswith("pleo_extract.sandbox") for found in ours)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_environment_and_print_stay_where_they_belong(path: Path) -> None:
    """Only the cache, the client, the command line and the Delta store read `os.environ`, and nothing calls `print`."""
    for node in nodes_of(path):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            assert room_of(name_of(path)) in ("cache", "client", "cli", "lake/delta"), f"{path}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            pytest.fail(f"{path}:{node.lineno} prints")


def test_what_is_public() -> None:
    """The public names are exactly these, and each has a docstring."""
    assert pleo_extract.__all__ == [
        "COLUMNS",
        "POLARS_SCHEMA",
        "CheckFailed",
        "Client",
        "ConfigurationError",
        "ContractError",
        "CredentialsError",
        "CursorRefused",
        "DataError",
        "DeadlineExceeded",
        "EchoMismatch",
        "IncompleteWalk",
        "Lake",
        "LakeConflict",
        "LakeError",
        "LakeLocked",
        "NoLake",
        "PageError",
        "PageTooLarge",
        "PleoExtractError",
        "Query",
        "Receipt",
        "RejectedRows",
        "RequestRefused",
        "RequestsExceeded",
        "Stopped",
        "StorageError",
        "TryLater",
        "UsageError",
        "WalkError",
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
    """Every file that others import from has an `__all__`."""
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        has_all = any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)
        assert has_all or path.name in {"__main__.py", "version.py"}, f"{path} has no __all__"
