"""`pleo-extract sandbox`: a stand-in for the API, on a port of this machine."""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import click

from pleo_extract.cli.options import now_option
from pleo_extract.cli.span import CountParam
from pleo_extract.errors import ConfigurationError, UsageError, amount
from pleo_extract.signals import TICK

__all__ = ["sandbox"]

EXAMPLES = """\b
Examples:
  pleo-extract sandbox --port 8080
  pleo-extract sandbox --port 8080 --jobs 100000 --latency-ms 50 --rate 500
  pleo-extract sandbox --port 8080 --now 2026-11-01
  pleo-extract sandbox --port 8080 --faults '12:503,30-32:429,reset=0.01'
"""


class _WithFaults(click.Command):
    """A command whose help lists the sandbox's faults."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the faults, then the examples."""
        from pleo_extract.sandbox.kinds import KINDS

        rows = [("NNN", "This status with a JSON error. Variants: Retry-After in seconds.")]
        for name, kind in KINDS.items():
            variants = f" Variants: {', '.join(kind.variants)}." if kind.variants else ""
            rows.append((name, f"{kind.words.rstrip('.')}.{variants}"))
        with formatter.section("Faults, as REQUESTS:KIND or KIND=CHANCE; a .VARIANT can follow the kind"):
            formatter.write_dl(rows, col_max=14)
        super().format_epilog(ctx, formatter)


@click.command(cls=_WithFaults, epilog=EXAMPLES, short_help="Serve the API from an invented world")
@click.option(
    "--port",
    type=CountParam(0, 65535),
    metavar="N",
    default=8080,
    show_default=True,
    help="Port to listen on; 0 takes a free one",
)
@click.option(
    "--jobs",
    type=CountParam(min=0),
    metavar="N",
    default=20_000,
    show_default=True,
    help="Jobs at the start",
)
@click.option(
    "--companies",
    type=CountParam(min=1),
    metavar="N",
    default=5,
    show_default=True,
    help="Companies that have jobs",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=7,
    show_default=True,
    help="Seed of the world: the same seed makes the same world",
)
@now_option
@click.option(
    "--latency-ms",
    type=click.FloatRange(min=0),
    metavar="MS",
    default=0,
    show_default=True,
    help="Wait before each response",
)
@click.option(
    "--rate",
    type=CountParam(min=1),
    metavar="N",
    help="Requests a minute before it answers 429 [default: no limit]",
)
@click.option(
    "--max-limit",
    type=CountParam(min=1),
    metavar="N",
    default=100,
    show_default=True,
    help="Most rows of a page",
)
@click.option(
    "--faults", default="", metavar="SCRIPT", help="Faults by request number or by chance, see below"
)
def sandbox(
    port: int,
    jobs: int,
    companies: int,
    seed: int,
    now: datetime | None,
    latency_ms: float,
    rate: int | None,
    max_limit: int,
    faults: str,
) -> None:
    """Serve GET /v3/export-jobs from an invented world that moves with the clock. No account is needed.

    Jobs are created, start and end while you read the list. The same --seed, --jobs and --now make the same world. Stop it
    with Ctrl-C.
    """
    from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, parse_faults, serve

    rules = Rules(max_limit=max_limit, latency=latency_ms / 1000, rate=rate, speed=1.0)
    try:
        parse_faults(faults)
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    begun = now or datetime.now(UTC).replace(microsecond=0)
    world = World(jobs=jobs, companies=companies, seed=seed, now=begun)
    api = Sandbox(world, rules=rules, faults=faults)
    with ExitStack() as stack:
        try:
            running = stack.enter_context(serve(api, port=port))
        except OSError as exc:
            raise ConfigurationError(_explain_port(port, exc)) from exc
        click.echo(
            f"sandbox with {amount(jobs, 'job')} of {amount(companies, 'company', 'companies')} on {running.url}; in another terminal:\n"
        )
        click.echo(f"  export PLEO_API_KEY={API_KEY} PLEO_BASE_URL={running.url}")
        click.echo("  pleo-extract dump data/export_jobs\n")
        while True:
            time.sleep(TICK)


def _explain_port(port: int, failure: OSError) -> str:
    """Return why the sandbox cannot listen on a port, and what to do."""
    if failure.errno == errno.EADDRINUSE:
        why = f"port {port} is in use by another program, perhaps another sandbox"
    elif failure.errno == errno.EACCES:
        why = f"port {port} needs privileges, as all below 1024 do"
    else:
        why = f"port {port} cannot be opened ({failure.strerror})"
    return f"{why}. Choose another with --port N, or --port 0 for any that is free"
