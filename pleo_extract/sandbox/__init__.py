"""The API in a box: a server of export jobs in one callable, over a seeded world that changes while you page.

The sandbox is for demos, documentation and tests. It implements the whole contract of `GET /v3/export-jobs` from
its own reading of it and imports nothing else of this library, so that it checks the library independently. It
needs only the standard library.

    world = World(jobs=1_000)
    sandbox = Sandbox(world, rules=Rules(tick=30), faults="3:503,5:reset")
    since = world.now
    ...                        # walk the list, in process (sandbox(request)) or over `serve(sandbox)`
    sandbox.truth(rows, since) # list what is wrong with the rows: [] if they are correct
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
