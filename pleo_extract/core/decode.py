"""Decode pages strictly: bytes become typed rows, or an error names the field that does not fit.

Two steps, so that JSON is parsed once and a frame is built once per batch:

    parse_page(body)     bytes of one page -> Page: the PageInfo for the walk, and the rows as parsed
    build_frame(pages)   the rows of several pages -> one typed frame, and the rows that do not fit

Theory of operation. Nearly every page holds nothing but documented fields in documented form, so the common case is
fast and everything else is merely right. `parse_page` decodes the page as a whole into structs; only if that fails is
each row decoded by itself: unknown fields are collected, and rows that do not fit are set aside. `build_frame` checks with one
expression whether all UUIDs and instants are in the documented form, and parses any other form column by column.
Both ways give the same rows.

The pages of several walks come by way of `fetch/workers.py`, and a batch is built of all of them.

A row that does not fit is set aside as `Rejected`, with page, path, reason and its raw JSON. A page that does not fit
raises PageError.

Instants are RFC 3339 with an offset, in upper or lower case. Fractions beyond microseconds are cut, not rounded; only
the keys that a walk compares keep every digit, since servers sort by them. A leap second (:60) becomes the second after
it. UUIDs become lower case. If a JSON key is repeated in a row, the last one counts.

Rules of this room: no clock, no files, no network; the same bytes give the same answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import polars as pl

from pleo_extract.contract import (
    COLUMNS,
    EXTRA,
    FIELDS,
    POLARS_SCHEMA,
    UUID,
    Field,
    Key,
    PageInfo,
    uuid_problem,
)
from pleo_extract.errors import PageError, escape

if TYPE_CHECKING:
    from collections.abc import Callable

Columns = tuple[tuple[Any, ...], ...]
"""A page's rows as one tuple a column, in the order of the parsed struct."""

__all__ = ["Page", "Rejected", "build_frame", "parse_page"]

_PLAIN_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
_ANY_FORMAT: Final = "%Y-%m-%dT%H:%M:%S%.f%#z"
_PLAIN_SHAPE: Final = r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9]Z$"
_ANY_SHAPE: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
_CANONICAL: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_DIGITS: Final = bytes.maketrans(b"0123456789", b"0000000000")
_HEX: Final = bytes.maketrans(b"0123456789abcdef", b"0000000000000000")
_PLAIN_TIME: Final = "0000-00-00T00:00:00Z"
_PLAIN_ID: Final = "00000000-0000-0000-0000-000000000000"
_NO_HOURS: Final = tuple(f"T{hour}:" for hour in range(24, 30))
_DAY: Final = itemgetter(slice(10))
_EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)

_INSTANT: Final = pl.Datetime("us", "UTC")
_RAW: Final = {f.column: pl.String() if f.kind == "instant" else POLARS_SCHEMA[f.column] for f in FIELDS}
_CHECKED: Final = [field for field in FIELDS if field.kind in ("uuid", "instant")]
_TYPES: Final[dict[str, Any]] = {
    "uuid": str,
    "text": str,
    "instant": str,
    "bool": bool,
    "int32": Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)],
    "int64": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
}


def _declare_job(name: str, *, strict: bool) -> Any:
    """Return a struct with the fields of the contract; a strict one refuses unknown fields."""
    required = [(field.column, _TYPES[field.kind]) for field in FIELDS if field.required]
    optional = [(field.column, _TYPES[field.kind] | None, None) for field in FIELDS if not field.required]
    names = {field.column: field.name for field in FIELDS}
    return msgspec.defstruct(
        name, [*required, *optional], rename=names, gc=False, forbid_unknown_fields=strict
    )


_Job: Final[Any] = _declare_job("Job", strict=True)
_WideJob: Final[Any] = _declare_job("WideJob", strict=False)
_ORDER: Final[tuple[str, ...]] = _Job.__struct_fields__
_CREATED, _ID, _COMPANY, _STATUS = map(_ORDER.index, ("created_at", "id", "company_id", "status"))
_NO_ROWS: Final[Columns] = ((),) * len(_ORDER)
_KNOWN: Final = frozenset(field.name for field in FIELDS)


class _Echo(msgspec.Struct, rename="camel", gc=False):
    limit: int | None = None
    sorting_keys: list[str] | None = None
    sorting_order: list[str] | None = None
    after: Any = None
    before: Any = None
    offset: Any = None
    parameters: Any = None
    """Any type is accepted for a place: one that cannot be compared is as good as absent."""


class _Pagination(msgspec.Struct, rename="camel", gc=False):
    has_next_page: bool
    has_previous_page: bool | None = None
    start_cursor: str | None = None
    end_cursor: str | None = None
    total: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    current_request_pagination: msgspec.Raw = msgspec.Raw(b"null")  # decoded apart, since it can be large


class _FastPage(msgspec.Struct):
    data: list[_Job]  # pyright: ignore[reportInvalidTypeForm] - made at import, from the declarations of the contract
    pagination: _Pagination


class _AnyPage(msgspec.Struct):
    data: list[msgspec.Raw]
    pagination: _Pagination


_fast: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_FastPage)
_any: Final = msgspec.json.Decoder(_AnyPage)
_echo: Final = msgspec.json.Decoder(_Echo)
_job: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_Job)
_wide_job: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_WideJob)
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


MOST_VALUES: Final = 2_000_000
"""Most values on a page that is decoded row by row, counted by its commas.

Each value becomes an object, and a body below the size cap can hold 60 million: such a page took more than 20 s (F65).
A hundred thousand rows with unknown fields hold fewer values than this."""
MOST_ECHO: Final = 65_536
"""Most bytes of an echo that is decoded; a larger one counts as absent. Receipts repeat a part of it."""
MOST_FIELDS: Final = 100_000
"""Most values in a row with unknown fields, since each is decoded by itself."""
MOST_REJECTED: Final = 10_000
"""Most rows of one page that are set aside; if there are more, the page is refused as a whole."""


class _Name(msgspec.Struct, rename="camel"):
    id: str
    company_id: str


class _Creation(msgspec.Struct, rename="camel"):
    created_at: str


_Named: Final = msgspec.json.Decoder(_Name)
_Created: Final = msgspec.json.Decoder(_Creation)


class Rejected(msgspec.Struct, frozen=True):
    """A row that does not fit the contract.

    Attributes:
        page: which page of the walk, from 1.
        path: the field, as ``$.data[3].createdAt``.
        reason: what is wrong with it.
        raw: the row's own JSON, as sent.
    """

    page: int
    path: str
    reason: str
    raw: bytes

    @property
    def name(self) -> str:
        """The name of the row in all runs: ``company_id/id`` if they can be read, else a hash of the row."""
        try:
            row = _Named.decode(self.raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return f"sha256:{hashlib.sha256(self.raw).hexdigest()}"
        return f"{row.company_id}/{row.id}".lower()

    @property
    def created_at(self) -> str:
        """The instant of its job's creation, as `instant_key` writes it; empty if it cannot be read."""
        try:
            text = _Created.decode(self.raw).created_at
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ""
        keys, _ = _read_keys([text], [_PLAIN_ID])
        return keys[0][0] if keys else ""

    @property
    def sum(self) -> str:
        """Hash of the row's content without `expiresIn`, which some servers count down."""
        try:
            values = _fields.decode(self.raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return hashlib.sha256(self.raw).hexdigest()
        parts = (name.encode() + b":" + bytes(values[name]) for name in sorted(values) if name != "expiresIn")
        return hashlib.sha256(b"\n".join(parts)).hexdigest()

    def __str__(self) -> str:
        return f"page {self.page}, {self.path}: {self.reason}"


class Page(msgspec.Struct, frozen=True):
    """One parsed page.

    Attributes:
        number: which page of the walk, from 1.
        info: what the page says about itself, for the walk.
        columns: the rows for `build_frame`, as one tuple a column.
        body: the bytes of the page.
        keyed: whether `id` and `createdAt` of every row are in the documented form.
        rejected: the rows that do not fit.
        places: the index on the page of each row in `columns`; None if no row was left out.
        extras: the unknown fields of each row as JSON; None if there are none on the page.
    """

    number: int
    info: PageInfo
    columns: Columns
    body: bytes
    keyed: bool
    rejected: tuple[Rejected, ...] = ()
    places: Sequence[int] | None = None
    extras: Sequence[str | None] | None = None

    @property
    def height(self) -> int:
        """How many rows fit so far; `build_frame` may still reject some."""
        return len(self.columns[0])


def parse_page(body: bytes, *, number: int = 1) -> Page:
    """Parse the bytes of one page.

    Args:
        body: the answer's body, decompressed.
        number: which page of the walk this is, for messages.

    Raises:
        PageError: the body is not a page: not JSON, not UTF-8, nested too deep, or without `data` or `pagination`.
    """
    try:
        if not body.isascii():
            body.decode()  # msgspec does not check the encoding of what it skips
        page = _fast.decode(body)
    except msgspec.ValidationError:
        return _parse_row_by_row(body, number)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise PageError(_describe_bad_page(body, number, str(exc))) from exc
    columns = _transpose(page.data)
    info, keyed = _build_info(
        page.pagination, _read_echo(page.pagination, body, number), columns, len(page.data)
    )
    return Page(number, info, columns, body, keyed)


def _read_echo(pagination: _Pagination, body: bytes, number: int) -> _Echo:
    """Return what the server says that it was asked.

    Raises:
        PageError: that is not of the contract's form.
    """
    raw = bytes(pagination.current_request_pagination)
    if len(raw) > MOST_ECHO or raw == b"null":
        return _Echo()
    try:
        return _echo.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        why = str(exc).replace("`$", "`$.pagination.currentRequestPagination")
        raise PageError(_describe_bad_page(body, number, why)) from exc


def _describe_bad_page(body: bytes, number: int, why: str) -> str:
    start = escape(body[:200].decode("utf-8", "replace"))
    return f"page {number} is not a page of export jobs ({why}): {len(body)} bytes, starting '{start}'"


def _parse_row_by_row(body: bytes, number: int) -> Page:
    if body.count(b",") > MOST_VALUES:
        raise PageError(
            _describe_bad_page(body, number, f"more than {MOST_VALUES} values, and rows that do not fit")
        )
    try:
        page = _any.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise PageError(_describe_bad_page(body, number, str(exc))) from exc
    rows: list[Any] = []
    places: list[int] = []
    extras: list[str | None] = []
    rejected: list[Rejected] = []
    for place, raw in enumerate(page.data):
        try:
            row, extra = _parse_row(raw)
        except msgspec.ValidationError as exc:
            path, reason = _locate(str(exc), place)
            rejected.append(Rejected(number, path, reason, bytes(raw)))
            if len(rejected) > MOST_REJECTED:
                why = f"more than {MOST_REJECTED} rows do not fit: {reason} - at `{path}`"
                raise PageError(_describe_bad_page(body, number, why)) from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            # A row that is not JSON spoils the whole page, as it does when the page is decoded in one go: else the
            # outcome would depend on the rows beside it.
            raise PageError(_describe_bad_page(body, number, f"{exc} - in `$.data[{place}]`")) from exc
        else:
            rows.append(row)
            places.append(place)
            extras.append(extra)
    columns = _transpose(rows)
    info, keyed = _build_info(
        page.pagination, _read_echo(page.pagination, body, number), columns, len(page.data)
    )
    return Page(number, info, columns, body, keyed, tuple(rejected), places, extras if any(extras) else None)


def _transpose(rows: Sequence[Any]) -> Columns:
    """Return the values of the rows as one tuple a column.

    Done page by page, it frees the row objects early: a fifth less time to decode than to keep them for the frame.
    """
    astuple: Callable[[Any], tuple[Any, ...]] = msgspec.structs.astuple
    return tuple(zip(*map(astuple, rows), strict=True)) or _NO_ROWS


def _parse_row(raw: msgspec.Raw) -> tuple[Any, str | None]:
    try:
        return _job.decode(raw), None
    except msgspec.ValidationError:
        row = _wide_job.decode(raw)
        if bytes(raw).count(b",") > MOST_FIELDS:
            raise msgspec.ValidationError(f"a row of more than {MOST_FIELDS} fields - at `$`") from None
    unknown = {name: value for name, value in sorted(_fields.decode(raw).items()) if name not in _KNOWN}
    return row, msgspec.json.format(msgspec.json.encode(unknown), indent=-1).decode() if unknown else None


def _locate(message: str, place: int) -> tuple[str, str]:
    """Return the path of the bad field within the page, and the reason, from msgspec's message about one row."""
    reason, _, path = message.partition(" - at `$")
    missing = re.search(r"missing required field `(\w+)`", reason)
    field = f".{missing[1]}" if missing else path.rstrip("`")
    return f"$.data[{place}]{field}", reason


def _build_info(pagination: _Pagination, echo: _Echo, columns: Columns, count: int) -> tuple[PageInfo, bool]:
    """Return what the walk needs to know, and whether all keys are in the documented form."""
    sorting_keys, orders = echo.sorting_keys, echo.sorting_order
    keys, keyed = _read_keys(columns[_CREATED], columns[_ID])
    info = PageInfo(
        rows=count,
        has_next=pagination.has_next_page,
        has_previous=pagination.has_previous_page,
        keys=keys,
        start_cursor=pagination.start_cursor,
        end_cursor=pagination.end_cursor,
        total=pagination.total,
        limit=echo.limit,
        sorting_keys=None if sorting_keys is None else tuple(sorting_keys),
        sorting_order=None if orders is None else tuple(orders),
        after=_find_place(echo, "after"),
        before=_find_place(echo, "before"),
        offset=_find_offset(echo),
        companies=frozenset(columns[_COMPANY]),
        statuses=frozenset(columns[_STATUS]),
    )
    return info, keyed


def _find_place(echo: _Echo, name: str) -> str | None:
    """Return the place that the server echoes: in a field of its own, or among the parameters that it repeats."""
    place = getattr(echo, name)
    if place is None and isinstance(echo.parameters, dict):
        values = echo.parameters.get(name)
        place = values[0] if isinstance(values, list) and len(values) == 1 else None
    return place if isinstance(place, str) else None


def _find_offset(echo: _Echo) -> int | None:
    if isinstance(echo.offset, int):
        return int(echo.offset)
    text = _find_place(echo, "offset")
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _read_keys(created: Sequence[str], ids: Sequence[str]) -> tuple[tuple[Key, ...], bool]:
    """Return the keys of the rows whose creation and id can be read, and whether all are in the documented form."""
    # All rows are checked as one text, since checking each row costs more than the rest of decoding. A value cannot
    # pass for two: the line break in it would make a line too many.
    times, names = "\n".join(created), "\n".join(ids)
    if _are_plain(created, times) and _has_form(names, _HEX, _PLAIN_ID, len(ids)):
        return (tuple(zip(times[:-1].split("Z\n"), ids, strict=True)) if ids else (), True)
    texts = pl.Series("created_at", created, dtype=pl.String).to_frame().select(_INSTANT_KEY).to_series()
    keys = tuple(
        (text, name.lower())
        for text, name in zip(texts, ids, strict=True)
        if text is not None and UUID.fullmatch(name)
    )
    return keys, False


def _are_plain(created: Sequence[str], times: str) -> bool:
    """Return whether these texts are real instants in the documented form; `times` holds them as lines."""
    if not _has_form(times, _DIGITS, _PLAIN_TIME, len(created)):
        return False
    width = len(_PLAIN_TIME) + 1
    minutes, seconds, hours = times[14::width], times[17::width], times[11::width]
    if minutes.strip("012345") or seconds.strip("012345") or hours.strip("012"):
        return False
    return not any(hour in times for hour in _NO_HOURS) and all(map(_is_day, set(map(_DAY, created))))


def _has_form(lines: str, alphabet: bytes, form: str, count: int) -> bool:
    """Return whether these are `count` lines that equal the form once `alphabet` has turned their digits into 0."""
    wanted = _repeat(form, count)
    return len(lines) == len(wanted) and lines.isascii() and lines.encode().translate(alphabet) == wanted


@lru_cache(maxsize=16)
def _repeat(form: str, count: int) -> bytes:
    """Return `count` lines of this form."""
    return "\n".join([form] * count).encode()


@lru_cache(maxsize=4096)
def _is_day(text: str) -> bool:
    """Return whether a day exists: ``2026-11-24``."""
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def build_frame(pages: Sequence[Page]) -> tuple[pl.DataFrame, list[Rejected]]:
    """Build one typed frame from the rows of these pages, and set the rows aside that do not fit.

    Returns:
        A frame with the columns of `contract.COLUMNS`, in the order of the pages (timestamps ``Datetime("us", "UTC")``,
        `expires_in` Int32 in seconds, `number_of_items` Int64, UUIDs in lower case), and the rejected rows.
    """
    texts = _to_columns(pages)
    typed = texts.select(*_PLAIN, _ARE_PLAIN_BUT_KEYS if all(page.keyed for page in pages) else _ARE_PLAIN)
    if not typed[_ARE_PLAIN_NAME].all():
        plain = texts.select(_IS_PLAIN).row(0)
        typed = typed.with_columns(
            texts.select(
                _parse_field(field) for field, is_plain in zip(_CHECKED, plain, strict=True) if not is_plain
            )
        )
    rejected = [row for page in pages for row in page.rejected]
    misfits = [f for f in _CHECKED if typed[f.column].null_count() > texts[f.column].null_count()]
    if misfits:
        wrong = texts.select(
            pl.col(field.column).is_not_null() & typed[field.column].is_null() for field in misfits
        )
        rejected += _reject(pages, misfits, wrong)
        typed = typed.filter(~wrong.select(pl.any_horizontal(pl.all())).to_series())
    return pl.DataFrame([typed[column] for column in COLUMNS]), rejected


def _to_columns(pages: Sequence[Page]) -> pl.DataFrame:
    """Return the rows as parsed, one column a field; instants are still text."""
    columns = zip(*(page.columns for page in pages), strict=True) if pages else _NO_ROWS
    series = [
        pl.Series(name, list(chain.from_iterable(parts)), dtype=_RAW[name])
        for name, parts in zip(_ORDER, columns, strict=True)
    ]
    if any(page.extras for page in pages):
        extras = [extra for page in pages for extra in page.extras or [None] * page.height]
        return pl.DataFrame([*series, pl.Series(EXTRA.column, extras, dtype=pl.String)])
    nothing = pl.Series(EXTRA.column, [], dtype=pl.String).extend_constant(None, len(series[0]))
    return pl.DataFrame([*series, nothing])


def _parse_instant(column: pl.Expr) -> pl.Expr:
    """Parse instants in any RFC 3339 form with an offset; any other text, or a year beyond 1 to 9999, gives null."""
    upper = column.str.to_uppercase()
    shaped = pl.when(upper.str.contains(_ANY_SHAPE)).then(upper)
    instants = shaped.str.to_datetime(_ANY_FORMAT, time_unit="us", time_zone="UTC", strict=False)
    return pl.when(instants.is_between(_EARLIEST, _LATEST)).then(instants)


def _instant_key(column: pl.Expr) -> pl.Expr:
    """Format instants as in a `Key`: in UTC, with every digit that was sent, since servers sort by all of them."""
    second = _parse_instant(column).dt.strftime("%Y-%m-%dT%H:%M:%S")
    fraction = column.str.extract(r"[.]([0-9]*[1-9])", 1)
    return pl.when(fraction.is_null()).then(second).otherwise(second + "." + fraction)


_INSTANT_KEY: Final = _instant_key(pl.col("created_at"))


def _parse_field(field: Field) -> pl.Expr:
    """Parse a column of UUIDs or instants in any form; any other text gives null."""
    column = pl.col(field.column)
    if field.kind == "instant":
        return _parse_instant(column)
    lower = column.str.to_lowercase()
    return pl.when(lower.str.contains(_CANONICAL)).then(lower)


_PLAIN: Final = [
    pl.col(field.column).str.to_datetime(_PLAIN_FORMAT, time_unit="us", strict=False).cast(_INSTANT)
    if field.kind == "instant"
    else pl.col(field.column)
    for field in (*FIELDS, EXTRA)
]
"""All columns, parsed as if every text were in the documented form; most are."""
_IS_PLAIN: Final = [
    pl.col(field.column).str.contains(_CANONICAL if field.kind == "uuid" else _PLAIN_SHAPE).all()
    for field in _CHECKED
]
_ARE_PLAIN_NAME: Final = "are plain"
_ARE_PLAIN: Final = pl.all_horizontal(_IS_PLAIN).alias(_ARE_PLAIN_NAME)
_ARE_PLAIN_BUT_KEYS: Final = pl.all_horizontal(
    is_plain
    for field, is_plain in zip(_CHECKED, _IS_PLAIN, strict=True)
    if field.column not in {"id", "created_at"}
).alias(_ARE_PLAIN_NAME)


def _reject(pages: Sequence[Page], misfits: Sequence[Field], wrong: pl.DataFrame) -> list[Rejected]:
    """Return each row that does not fit once, with its first bad field."""
    owners = [(page, n) for page in pages for n in range(page.height)]
    first: dict[int, Field] = {}
    for field in misfits:
        for row in wrong[field.column].arg_true():
            first.setdefault(row, field)
    rejected = []
    rows = [(*owners[row], field) for row, field in sorted(first.items())]
    for _, group in groupby(rows, key=lambda row: id(row[0])):
        wanted = list(group)
        raws = _any.decode(wanted[0][0].body).data  # once a page; once a row would be quadratic (F65)
        rejected += [_reject_row(page, n, field, raws) for page, n, field in wanted]
    return rejected


def _reject_row(page: Page, n: int, field: Field, raws: Sequence[msgspec.Raw]) -> Rejected:
    place = page.places[n] if page.places is not None else n
    value = page.columns[_ORDER.index(field.column)][n]
    reason = (
        uuid_problem(value)
        if field.kind == "uuid"
        else f"not an instant with an offset: {escape(value, 50)!r}"
    )
    return Rejected(page.number, f"$.data[{place}].{field.name}", reason or "", bytes(raws[place]))
