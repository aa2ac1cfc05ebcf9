"""The API in a box: one callable over a seeded world whose jobs are created, start and end while you page.

For demos, documentation and tests. It speaks the whole contract of `GET /v3/export-jobs` from a statement of its
own, so that it is an independent check of the rest of this library; only the standard library is used.

    world = World(jobs=1_000)
    sandbox = Sandbox(world, rules=Rules(tick=30), faults="3:503,5:reset")
    since = world.now
    ...                        # walk the list, in process (sandbox(request)) or over `serve(sandbox)`
    sandbox.truth(rows, since) # what is wrong with the rows: [] when nothing is
"""

from pleo_extract.sandbox.endpoint import API_KEY, PATH, TOKEN, Asked, Sandbox
from pleo_extract.sandbox.exchange import Request, RequestLike, Response
from pleo_extract.sandbox.faults import Fault, parse_faults
from pleo_extract.sandbox.kinds import KINDS
from pleo_extract.sandbox.oracle import Discrepancy
from pleo_extract.sandbox.rules import Rules
from pleo_extract.sandbox.server import Served, serve
from pleo_extract.sandbox.world import World

__all__ = [
    "API_KEY",
    "KINDS",
    "PATH",
    "TOKEN",
    "Asked",
    "Discrepancy",
    "Fault",
    "Request",
    "RequestLike",
    "Response",
    "Rules",
    "Sandbox",
    "Served",
    "World",
    "parse_faults",
    "serve",
]
