"""Tests of the documents: what they show runs and prints what they say, and what they list exists."""

from __future__ import annotations

import doctest
import email
import importlib
import json
import os
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click
import pytest
from click.testing import CliRunner

import pleo_extract
from pleo_extract.cli import group
from pleo_extract.errors import PleoExtractError
from pleo_extract.lake.layout import Layout
from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, serve
from pleo_extract.sandbox.kinds import KINDS
from pleo_extract.signals import CODES

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", *PAGES, ROOT / "data" / "README.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REFERENCE = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
blocks = runpy.run_path(str(ROOT / "docs" / "blocks.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_block_runs_and_prints_what_it_says(path: Path, subtests: pytest.Subtests) -> None:
    """Commands and snippets run in order, as for a reader, see docs/blocks.py. `make docs` updates the outputs."""
    for block, run in blocks["run_blocks"](path.read_text(encoding="utf-8")):
        with subtests.test(f"{path.name}, line {block.line}"):
            printed = run()
            assert block.output is None or printed == block.output


def test_every_block_has_a_language_that_is_known() -> None:
    """No block escapes the test above through a misspelt language; blocks without a language contain no code."""
    for path in DOCUMENTS:
        for block in blocks["read_blocks"](path.read_text(encoding="utf-8")):
            assert block.language in {"python", "sh", "cron", "toml", "ini", "py", "sql", "yaml", ""}, (
                f"{path.name}, line {block.line}"
            )
            assert block.language or "import " not in block.text, f"{path.name}, line {block.line}"


def test_tables_and_helps_are_those_of_the_code() -> None:
    """Generated tables and `--help` texts equal the code; `make docs` writes them."""
    asked = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(
        asked, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, f"run `make docs`\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", ["", *group.commands])
def test_help_fits_a_terminal(name: str) -> None:
    """No line of any `--help` is wider than 80 columns."""
    asked = [*name.split(), "--help"]
    shown = CliRunner().invoke(group, asked, prog_name="pleo-extract", terminal_width=80).output
    assert [line for line in shown.splitlines() if len(line) > 80] == []


def test_every_option_is_explained() -> None:
    """Each command has a help text, an example, and a help text for each option."""
    for name, command in group.commands.items():
        assert command.help, name
        assert f"pleo-extract {name}" in str(command.epilog), name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def _examples(name: str) -> list[str]:
    text = re.sub(r"\\\n\s*", "", str(group.commands[name].epilog))
    return [line.strip() for line in text.splitlines() if "pleo-extract " in line]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that runs a line in bash, with a sandbox as the server and a lake of three snapshots."""
    folder = tmp_path_factory.mktemp("examples")
    world = World(jobs=500)
    with serve(Sandbox(world)) as running:
        environment = os.environ | blocks["_environment"](running.url, folder)

        def run(line: str) -> subprocess.CompletedProcess[str]:
            line = line.replace("…", API_KEY).replace("http://127.0.0.1:8080", running.url)
            line = re.sub(r"(?<=--company-id )\S+|(?<=--company )\S+", world.companies[0], line)
            line = line.replace("--since 12 --until 14", "--since 1 --until 3")
            return subprocess.run(
                ["bash", "-euc", line],
                capture_output=True,
                text=True,
                check=False,
                cwd=folder,
                env=environment,
            )

        for _ in range(3):
            assert run("pleo-extract dump data/export_jobs").returncode == 0
            world.advance(10 * 86_400.0)
        (folder / "names.csv").write_text(f"id,name\n{world.companies[0]},Acme\n")
        first = Layout(folder / "data/export_jobs").manifest_file(1)
        first.write_text(
            re.sub(r'"made_at": "[^"]+"', '"made_at": "2026-10-01T08:00:00Z"', first.read_text())
        )
        yield run


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [line for name in group.commands if name != "sandbox" for line in _examples(name)]
)
def test_examples_in_help_run(shell: Any, line: str) -> None:
    """Every example in `--help` ends with 0; one of `check` with 3 too, as chance may make a company silent today."""
    done = shell(line)
    assert done.returncode in ({0, 3} if line.startswith("pleo-extract check") else {0}), done.stderr


@pytest.mark.parametrize("line", _examples("sandbox"))
def test_examples_of_the_sandbox_serve(line: str) -> None:
    """Each example prints where the sandbox listens, and ends on SIGTERM."""
    words = [*shlex.split(line.replace("8080", "0").replace("100000", "1000"))[1:]]
    with subprocess.Popen(
        [sys.executable, "-m", "pleo_extract", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert "http://127.0.0.1:" in process.stdout.readline()
        process.terminate()
        _, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (143, "pleo-extract: terminated\n")


def test_the_sandboxs_help_lists_its_faults() -> None:
    """`pleo-extract sandbox --help` lists every kind of fault with its variants."""
    reported = (ROOT / "tests/help/sandbox.txt").read_text(encoding="utf-8")
    listed = " ".join(reported.partition("Faults, as")[2].split())
    for name, kind in KINDS.items():
        assert re.search(rf" {name} ", listed), name
        assert not kind.variants or f"Variants: {', '.join(kind.variants)}." in listed, name


def test_installation_names_what_exists() -> None:
    """Every `make` target and extra of the documents exists, and the commands for users without make do the same."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"\bmake ([a-z]+)\b(?=`|  )", text)) <= targets
        for named in re.findall(r"(?:pleo-extract|'\.)\[([a-z,]+)\]", text):
            assert set(named.split(",")) <= PROJECT["optional-dependencies"].keys(), path.name
    install = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    for program, words in re.findall(r"^\.venv/bin/(python|pytest) (.*)$", install, re.MULTILINE):
        assert f"$(BIN)/{program} {words.removeprefix('-m pip install -e ')}" in makefile.replace(
            "-m pip install --quiet --disable-pip-version-check -e ", ""
        )
    extras = re.findall(r"^\| `([a-z]+)` \|", install.partition("## In a")[0], re.MULTILINE)
    assert {*extras, "dev"} == PROJECT["optional-dependencies"].keys()


def test_the_package_index_shows_the_readme(tmp_path: Path) -> None:
    """In the built wheel's metadata, the README is whole and every link and picture is absolute."""
    built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(built, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_string(archive.read(name).decode())
    urls = dict(str(url).split(", ") for url in metadata.get_all("Project-URL", []))
    assert urls == PROJECT["urls"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    page = metadata.get_payload()
    assert isinstance(page, str)
    links = r"\]\(([^)]+)\)"
    assert re.sub(links, "", page).split() == re.sub(links, "", README).split()
    shown = re.findall(links, page)
    owner = urls["Source"].removeprefix("https://github.com/")
    for here, there in zip(re.findall(links, README), shown, strict=True):
        pages = [
            f"https://{host}/v{pleo_extract.__version__}/{here}"
            for host in (f"github.com/{owner}/blob", f"raw.githubusercontent.com/{owner}")
        ]
        assert there == here if here.startswith(("#", "https:")) else there in pages
    picture = re.search(r"!\[[^]]+\]\(([^)]+)\)", page)
    assert picture is not None
    assert picture[1].startswith("https://raw.githubusercontent.com/")


def test_every_environment_variable_is_listed() -> None:
    """The table of the reference, `--help` and the code name the same variables."""
    used = {
        name
        for path in (ROOT / "pleo_extract").rglob("*.py")
        if "sandbox" not in path.parts
        for name in re.findall(r"\bPLEO_[A-Z_]+\b", path.read_text(encoding="utf-8"))
    }
    assert set(re.findall(r"^\| `(PLEO_[A-Z_]+)`", REFERENCE, re.MULTILINE)) == used
    assert set(re.findall(r"\bPLEO_[A-Z_]+\b", str(group.epilog))) == used


def test_every_exit_code_is_listed() -> None:
    """The table of docs/exit-codes.md, `--help` and the code have the same codes; the recipes name no others."""
    errors_of_ours = [PleoExtractError]
    for error in errors_of_ours:
        errors_of_ours += error.__subclasses__()
    ends = {error.code for error in errors_of_ours} | {0, *CODES.values(), click.UsageError.exit_code}
    page = (ROOT / "docs/exit-codes.md").read_text(encoding="utf-8")
    table = page.partition("<!-- generated: exit_codes -->")[2].partition("<!-- end -->")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == ends
    assert {
        int(code) for code in re.findall(r"(?:^|  )(\d+) ", str(group.epilog).partition("Exit codes")[2])
    } == ends
    recipes = (ROOT / "docs/scheduling.md").read_text(encoding="utf-8")
    named = re.findall(r"(?:SuccessExitStatus=|skip_on_exit_code=|ends? (?:at once )?with )([\d ]+)", recipes)
    codes = {int(code) for found in named for code in found.split()}
    assert {69, 75} <= codes <= ends


def test_promises_name_tests_that_exist() -> None:
    """Each promise of docs/promises.md names the tests that check it, and they exist."""
    table = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!promise|---)(.+) \| (.+) \|$", table, re.MULTILINE)
    assert rows
    for promise, tried in rows:
        files = re.findall(r"tests/(test_\w+)\.py", tried)
        text = "".join((ROOT / "tests" / f"{name}.py").read_text(encoding="utf-8") for name in files)
        assert files, promise
        for name in re.findall(r"(?:::|`)(test_\w+)(?=`)", tried):
            assert f"def {name}(" in text, f"{promise}: {name}"


def _anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as a forge makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    """Every link within the repository leads to a file or heading that exists."""
    for path in (*DOCUMENTS, *sorted(ROOT.glob("*.md"))):
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
            file, _, anchor = target.partition("#")
            if "://" not in file:
                found = path.parent / file if file else path
                assert found.exists(), f"{path.name}: {target}"
                assert not anchor or anchor in _anchors(found), f"{path.name}: {target}"


def test_every_page_is_listed() -> None:
    """docs/index.md links every page of the folder, and the README links the index."""
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert {path.name for path in PAGES} - {"index.md"} == set(re.findall(r"\]\(([\w-]+\.md)\)", index))
    assert "](docs/index.md)" in README


def test_the_readme_is_short() -> None:
    """The README has at most 1,800 words."""
    assert len(README.split()) <= 1_800


def test_the_model_of_scale_is_what_was_measured() -> None:
    """The formula of docs/scale.md gives the requests of an incremental sync that the server counted, at every size."""
    scaling = runpy.run_path(str(ROOT / "docs" / "scaling.py"))
    sizes = json.loads((ROOT / "docs" / "scale.json").read_text(encoding="utf-8"))["sizes"]
    assert [each["jobs"] for each in sizes] == [10_000, 1_000_000, 10_000_000, 100_000_000]
    for each in sizes:
        an_hour = each["jobs"] / (3 * 365 * 24)
        # The benchmark's server has 40 open jobs, and the 960 that came are open too.
        asked = scaling["count_requests"](new=0, an_hour=an_hour, is_open=40)
        assert each["nothing"]["requests"] == asked
        asked = scaling["count_requests"](new=960, an_hour=an_hour, is_open=960)
        assert each["refresh"]["requests"] == asked


def test_the_picture_shows_the_sample(tmp_path: Path) -> None:
    """The committed picture shows the sample, is well-formed, and loads nothing; `make picture` draws it."""
    script = runpy.run_path(str(ROOT / "docs" / "make_picture.py"))
    script["make_picture"](tmp_path / "picture.svg")
    committed = (ROOT / "docs" / "failure-rates.svg").read_text(encoding="utf-8")
    assert (tmp_path / "picture.svg").read_text(encoding="utf-8") == committed, "run `make picture`"
    names = {element.tag.rpartition("}")[2] for element in ET.fromstring(committed).iter()}
    assert names <= {"svg", "style", "rect", "text", "title", "desc", "line", "path", "circle", "g"}
    assert "http" not in committed.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "url(" not in committed
    assert "var(" not in committed, "only browsers know variables: others would draw it black"


def _modules() -> list[str]:
    found = pkgutil.walk_packages(pleo_extract.__path__, "pleo_extract.")
    return ["pleo_extract", *(module.name for module in found if not module.name.endswith("__main__"))]


@pytest.mark.parametrize("name", ["pleo_extract", "pleo_extract.sandbox"])
def test_examples_in_docstrings_run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example in the docstring of each public module runs unchanged against a sandbox."""
    module = importlib.import_module(name)
    paragraphs = str(module.__doc__).split("\n\n")
    code = [
        textwrap.dedent(text)
        for text in paragraphs
        if all(line.startswith("    ") for line in text.splitlines())
    ]
    assert code
    monkeypatch.chdir(tmp_path)
    world = World(jobs=300)
    with serve(Sandbox(world, rules=Rules())) as running:
        monkeypatch.setenv("PLEO_BASE_URL", running.url)
        monkeypatch.setenv("PLEO_API_KEY", API_KEY)
        names = vars(module) | {"rows": world.visible()}
        exec(compile("\n".join(code), name, "exec"), names)


@pytest.mark.parametrize("name", _modules())
def test_prompts_in_docstrings_answer_so(name: str) -> None:
    """Every `>>>` of a docstring gives the result that it shows."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if str(exc.name).startswith("pleo_extract"):
            raise
        pytest.skip(f"{exc.name} is an extra that is not installed")
    assert doctest.testmod(module).failed == 0
