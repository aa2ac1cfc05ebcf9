"""ARCHITECTURE.md says what is true: the rooms and their floors, the path of a page, the words that are ours."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from test_house import FLOORS

import pleo_extract

ROOT = Path(__file__).parent.parent
PACKAGE = Path(pleo_extract.__file__).parent
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
MOST_FILES = 20
"""Files that one page may pass on its way from the wire to a Parquet row."""
BANNED = re.compile(
    r"\bso many\b|\b(?:id|part|path|URL|name|quantile|cursor)s? (?:is|are|that is|that are) none\b|\banew\b|gone on with"
    r"|as it was written|is staged of it|the next so|of which nothing|\b(?:is|was|were|are) told\b"
    r"|\b(?:job|row|file|page|month|account|request|company)\(s\)"
)
"""Phrases of the dialect that this project once spoke, and plurals in brackets; a reader stumbles over each."""


def section(title: str) -> str:
    """Return the text under a heading, up to the next one of its kind or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[2]


def first_cells(text: str) -> list[str]:
    """Return the first cell of each row of a table, without its head."""
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def test_the_table_of_floors_is_the_one_that_is_checked() -> None:
    """Each room stands on the floor that the house test holds it to."""
    rows = [
        line.split("|")[1:3] for line in section("Who may import whom").splitlines() if line.startswith("| ")
    ]
    listed = {
        room: int(floor)
        for floor, rooms in rows
        if floor.strip().isdigit()
        for room in re.findall(r"`([^`]+)`", rooms)
    }
    assert listed == FLOORS


@cache
def imports_of(file: str) -> set[str]:
    """Return the files of the package that a file imports from, through the face of a package too."""
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pleo_extract"):
            parts = str(node.module).split(".")[1:]
            found |= {"/".join([*parts, alias.name]) + ".py" for alias in node.names}
            found.add("/".join(parts) + ".py")
            face = "/".join([*parts, "__init__.py"])
            if face != file and parts and (PACKAGE / face).exists():
                found |= imports_of(face)
    return found


def test_each_file_of_a_pages_path_names_the_next() -> None:
    """Each file imports the next one or names it in its docstring, so that a reader knows where to go."""
    files = [re.findall(r"`([^`]+\.py)`", cell)[-1] for cell in first_cells(section("The path of one page"))]
    assert len(files) <= MOST_FILES
    for file, following in pairwise(files):
        docstring = ast.get_docstring(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))) or ""
        assert following in imports_of(file) or following in docstring, f"{file} does not name {following}"


def test_each_file_of_a_questions_path_is_named_by_one_before() -> None:
    """Each file imports a file above it or is imported by one, so that a reader can guess where to go."""
    files = [
        re.findall(r"`([^`]+\.py)`", cell)[-1] for cell in first_cells(section("The path of one question"))
    ]
    assert len(files) <= MOST_FILES
    for number, file in enumerate(files[1:], start=1):
        before = files[:number]
        is_known = any(other in imports_of(file) or file in imports_of(other) for other in before)
        assert is_known, f"no file above {file} imports it or is imported by it"


def test_every_file_that_the_page_names_is_there() -> None:
    """No path in the page leads nowhere."""
    for name in re.findall(r"`([a-z_/0-9]+\.(?:py|sql|toml))`", PAGE):
        places = (ROOT / name, PACKAGE / name)
        assert any(place.exists() for place in places), name


def texts() -> list[Path]:
    """Return the files that people read: code, documents, tests, and what the commands print."""
    found = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("tests/help/*.txt"),
        *ROOT.glob("notebooks/*.ipynb"),
    ]
    for folder in (PACKAGE, ROOT / "tests", ROOT / "docs", ROOT / "data"):
        found += folder.rglob("*.py")
        found += folder.rglob("*.sql")
    return sorted(found)


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.name)
def test_no_banned_phrase(path: Path) -> None:
    """No text of the project uses a phrase that its style bans."""
    if path != Path(__file__):
        found = BANNED.search(path.read_text(encoding="utf-8"))
        assert found is None, found and found[0]


@cache
def glossary() -> dict[str, str]:
    """Return the words of the glossary with their meanings."""
    rows = [
        line.strip("|").split("|", 1) for line in section("Glossary").splitlines() if line.startswith("|")
    ]
    return {word.strip(): meaning.strip() for word, meaning in rows[2:]}


def test_the_glossary_is_sorted_and_defines_each_word_once() -> None:
    """A word stands where a reader looks for it, once."""
    words = re.findall(r"^\| ([^|]+) \|", section("Glossary"), re.MULTILINE)[1:]
    assert words == sorted(set(words), key=str.lower)
    assert all(glossary().values())


@cache
def sources() -> list[str]:
    """Return the text of each file of code but this one."""
    found = [path for path in texts() if path.suffix in {".py", ".sql"} and path != Path(__file__)]
    return [path.read_text(encoding="utf-8") for path in found]


@pytest.mark.parametrize("word", sorted(glossary()))
def test_a_word_of_the_glossary_is_used(word: str) -> None:
    """A definition of a word that nothing uses would only cost the reader."""
    stem = re.escape(word.rstrip("s")).replace("\\ ", r"[\s_]+")
    used = re.compile(rf"\b{stem}", re.IGNORECASE)
    assert any(used.search(source) for source in sources())
