"""The careful script with threads: a pool asks for pages by offset. Arguments: URL, key, output folder, page, threads.

It believes `total`, and a job that is created or deleted meanwhile costs it a row.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import msgspec
import polars as pl
from careful import Job, frame_of, write

TITLE = "careful, threads by offset"
REQUIREMENTS = ["httpx", "msgspec", "polars"]
BATCH = 50
"""Pages of a frame."""


class Info(msgspec.Struct):
    """The pagination of a page."""

    total: int


class Page(msgspec.Struct):
    """One page."""

    data: list[Job]
    pagination: Info


def ask(client: httpx.Client, decoder: msgspec.json.Decoder[Page], limit: int, offset: int) -> Page:
    """Return the page at an offset."""
    response = client.get("/v3/export-jobs", params={"limit": limit, "offset": offset})
    return decoder.decode(response.raise_for_status().content)


def run(url: str, key: str, out: str, limit: str = "100", threads: str = "8") -> None:
    """Fetch all jobs into Parquet files below the folder, one a month."""
    size, many = int(limit), int(threads)
    limits = httpx.Limits(max_connections=many, max_keepalive_connections=many)
    with (
        httpx.Client(base_url=url, auth=(key, ""), limits=limits) as client,
        ThreadPoolExecutor(many) as pool,
    ):
        fetch = partial(ask, client, msgspec.json.Decoder(Page), size)
        first = fetch(0)
        frames, rows = [], first.data
        for number, page in enumerate(pool.map(fetch, range(size, first.pagination.total, size)), 1):
            rows += page.data
            if number % BATCH == 0:
                frames.append(frame_of(rows))
                rows = []
        if rows:
            frames.append(frame_of(rows))
    write(pl.concat(frames), out)


if __name__ == "__main__":
    run(*sys.argv[1:6])
