"""The HTML elements of a page: sections, figures with their legends, tables with captions and scopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pleo_extract.report.words import attribute, count, untrusted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pleo_extract.report.figures import Figures

__all__ = [
    "Column",
    "detail",
    "figure",
    "folded",
    "legend",
    "name_company",
    "note",
    "number",
    "section",
    "table",
]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        head: its heading.
        cell: returns the HTML of its cell for a row.
        kind: its CSS classes: `n` for numbers, `plot` for drawings, `less` for columns that a phone hides.
    """

    head: str
    cell: Callable[[Any], str]
    kind: str = ""


def number(head: str, field: str, show: Callable[[Any], str] = count, kind: str = "n") -> Column:
    """Return a column of numbers: `field` of each row, formatted by `show`."""
    return Column(head, lambda row: show(row[field]), kind)


def section(name: str, head: str, *parts: str) -> str:
    """Return a section with its heading. On paper a section without a figure may break across two pages."""
    content = "".join(parts)
    kind = "" if "<figure" in content else ' class="long"'
    return f'<section aria-labelledby="{name}-head"{kind}><h2 id="{name}-head">{head}</h2>{content}</section>'


def figure(svg: str, above: str, below: str) -> str:
    """Return a chart with its legend above and a caption below."""
    return f"<figure>{above}{svg}<figcaption>{below}</figcaption></figure>"


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Return the legend of a chart, from pairs of a CSS class and its meaning."""
    return f'<ul class="key">{"".join(f"<li>{_swatch(kind)}{text}</li>" for kind, text in entries)}</ul>'


def table(caption: str, columns: Sequence[Column], rows: Iterable[Any]) -> str:
    """Return a table whose first column holds the headings of its rows."""
    head = "".join(f'<th scope="col"{_class(column)}>{column.head}</th>' for column in columns)
    body = "".join(f"<tr>{_row(columns, row)}</tr>" for row in rows)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def folded(caption: str, columns: Sequence[Column], rows: Iterable[Any]) -> str:
    """Return the numbers of a chart as a folded table; a wide table scrolls sideways, with the keyboard too."""
    inner = table(caption, columns, rows)
    return (
        "<details><summary>The numbers</summary>"
        f'<div class="wide" role="region" tabindex="0" aria-label="{caption}">{inner}</div></details>'
    )


def detail(text: str) -> str:
    """Return a second, smaller line of a cell; nothing for an empty text."""
    return f'<span class="detail">{text}</span>' if text else ""


def note(text: str) -> str:
    """Return a small paragraph; nothing for an empty text."""
    return f'<p class="note">{text}</p>' if text else ""


def name_company(company_id: str | None, figures: Figures) -> str:
    """Return a company's name, the first digits of its id if it has no name, or both if another has the same name."""
    if company_id is None:
        return "all"
    digits = figures.namesakes.get(company_id, 8)
    short = f'<span class="id" title="{attribute(company_id)}">{attribute(company_id[:digits])}</span>'
    if name := figures.names.get(company_id):
        shown = f'<span title="{attribute(company_id)}">{untrusted(name, 80)}</span>'
        return f"{shown} {short}" if company_id in figures.namesakes else shown
    return short


def _row(columns: Sequence[Column], row: Any) -> str:
    first, *others = columns
    cells = "".join(f"<td{_class(column)}>{column.cell(row)}</td>" for column in others)
    return f'<th scope="row"{_class(first)}>{first.cell(row)}</th>{cells}'


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
