"""The parts a page is made of: sections, figures with their keys, tables with captions and scopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pleo_extract.report.words import foreign, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Column", "figure", "key", "name_company", "note", "numbers", "say", "section", "table"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its head, and its classes: `n` for numbers, `plot` for drawings, `less` for what a phone leaves out."""

    head: str
    kind: str = ""


def section(name: str, head: str, *parts: str) -> str:
    """A section with its heading. One without a figure may be parted between two sheets of paper."""
    content = "".join(parts)
    kind = "" if "<figure" in content else ' class="long"'
    return f'<section aria-labelledby="{name}-head"{kind}><h2 id="{name}-head">{head}</h2>{content}</section>'


def figure(svg: str, named: str, said: str) -> str:
    """A chart with its key above and what to know about it below."""
    return f"<figure>{named}{svg}<figcaption>{said}</figcaption></figure>"


def key(entries: Iterable[tuple[str, str]]) -> str:
    """What the colours and lines of a chart mean: pairs of class and words."""
    return f'<ul class="key">{"".join(f"<li>{_swatch(kind)}{said}</li>" for kind, said in entries)}</ul>'


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column names the rows. Cells are HTML already."""
    head = "".join(f'<th scope="col"{_class(column)}>{column.head}</th>' for column in columns)
    body = "".join(f"<tr>{_row(columns, row)}</tr>" for row in rows)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def numbers(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """The numbers of a chart, folded away; wide ones can be moved sideways, by keyboard, too."""
    inner = table(caption, columns, rows)
    return (
        "<details><summary>The numbers</summary>"
        f'<div class="wide" role="region" tabindex="0" aria-label="{caption}">{inner}</div></details>'
    )


def say(text: str) -> str:
    """A second, smaller line in a cell."""
    return f'<span class="say">{text}</span>' if text else ""


def note(text: str) -> str:
    """A small paragraph."""
    return f'<p class="note">{text}</p>'


def name_company(company_id: str | None, names: Mapping[str, str]) -> str:
    """A company's name, else the first digits of its id."""
    if company_id is None:
        return "all"
    if name := names.get(company_id):
        return foreign(name, 80)
    return f'<span class="id" title="{quote(company_id)}">{quote(company_id[:8])}</span>'


def _row(columns: Sequence[Column], cells: Sequence[str]) -> str:
    first, *others = zip(columns, cells, strict=True)
    named = f'<th scope="row"{_class(first[0])}>{first[1]}</th>'
    return named + "".join(f"<td{_class(column)}>{cell}</td>" for column, cell in others)


def _class(column: Column) -> str:
    return f' class="{column.kind}"' if column.kind else ""


def _swatch(kind: str) -> str:
    shapes = {
        "line": f'<path class="{kind}" d="M1 6H17"/>',
        "disc": f'<circle class="{kind}" cx="9" cy="6" r="6"/>',
        "box": f'<rect class="{kind}" width="18" height="12" rx="2"/>',
    }
    lines = {"rate", "limit", "p50", "p90", "p95"}
    shape = shapes["line" if kind in lines else "disc" if kind.startswith("mark") else "box"]
    return f'<svg aria-hidden="true" viewBox="0 0 18 12">{shape}</svg>'
