"""`pleo-extract sandbox`: the API in a box, on a port of this machine."""

from __future__ import annotations

import errno
import threading
from contextlib import ExitStack
from datetime import UTC, datetime

import click

from pleo_extract.cli.span import InstantParam
from pleo_extract.errors import ConfigurationError, UsageError, amount

__all__ = ["sandbox"]

EXAMPLES = """\b
Examples:
  pleo-extract sandbox --port 8080
  pleo-extract sandbox --port 8080 --jobs 100000 --latency-ms 50 --rate 500
  pleo-extract sandbox --port 8080 --now 2026-11-01
  pleo-extract sandbox --port 8080 --faults '12:503,30-32:429,reset=0.01'
"""


class _WithFaults(click.Command):
    """Its help lists the faults, from their own table."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The faults, then the examples."""
        from pleo_extract.sandbox.kinds import KINDS

        rows = [("NNN", "That status with a JSON error. Variants: Retry-After in seconds.")]
        for name, kind in KINDS.items():
            variants = f" Variants: {', '.join(kind.variants)}." if kind.variants else ""
            rows.append((name, f"{kind.words.rstrip('.')}.{variants}"))
        with formatter.section("Faults, as REQUESTS:KIND or KIND=CHANCE, with .VARIANT where there are some"):
            formatter.write_dl(rows, col_max=14)
        super().format_epilog(ctx, formatter)


@click.command(cls=_WithFaults, epilog=EXAMPLES, short_help="Serve the API from an invented world")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8080,
    show_default=True,
    help="0 takes a free one",
)
@click.option(
    "--jobs", type=click.IntRange(min=0), metavar="N", default=20_000, show_default=True, help="Jobs so far"
)
@click.option(
    "--companies", type=click.IntRange(min=1), metavar="N", default=5, show_default=True, help="Companies"
)
@click.option("--seed", type=int, metavar="N", default=7, show_default=True, help="Same seed, same world")
@click.option(
    "--now",
    type=InstantParam(),
    help="What the world's clock says at the start [default: this machine's time]",
)
@click.option(
    "--latency-ms",
    type=click.FloatRange(min=0),
    metavar="MS",
    default=0,
    show_default=True,
    help="Wait before each answer",
)
@click.option(
    "--rate",
    type=click.IntRange(min=1),
    metavar="N",
    help="Requests a minute; 429 beyond [default: no limit]",
)
@click.option(
    "--max-limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=100,
    show_default=True,
    help="Largest page",
)
@click.option("--faults", default="", metavar="SCRIPT", help="Faults by request number or chance, see below")
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
    """Serve GET /v3/export-jobs from a seeded world that moves with the clock: no account needed.

    Jobs are created, start and end while you page. Stop it with Ctrl-C. With the same --seed, --jobs and --now the
    world is the same each time.
    """
    from pleo_extract.sandbox import API_KEY, Rules, Sandbox, World, parse_faults, serve

    rules = Rules(max_limit=max_limit, latency=latency_ms / 1000, rate=rate, speed=1.0)
    try:
        script = parse_faults(faults) and faults
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    begun = now or datetime.now(UTC).replace(microsecond=0)
    world = World(jobs=jobs, companies=companies, seed=seed, now=begun)
    api = Sandbox(world, rules=rules, faults=script or "")
    with ExitStack() as stack:
        try:
            running = stack.enter_context(serve(api, port=port))
        except OSError as exc:
            raise ConfigurationError(_tell_port(port, exc)) from exc
        click.echo(
            f"sandbox with {amount(jobs, 'job')} of {amount(companies, 'company', 'companies')} on {running.url}; in another terminal:\n"
        )
        click.echo(f"  export PLEO_API_KEY={API_KEY} PLEO_BASE_URL={running.url}")
        click.echo("  pleo-extract dump data/export_jobs\n")
        threading.Event().wait()


def _tell_port(port: int, failure: OSError) -> str:
    """Why nothing can listen there, and what to do."""
    if failure.errno == errno.EADDRINUSE:
        why = f"port {port} is in use by another program, perhaps another sandbox"
    elif failure.errno == errno.EACCES:
        why = f"port {port} is not for everyone: those below 1024 are the system's"
    else:
        why = f"port {port} cannot be listened on ({failure.strerror})"
    return f"{why}. Choose another with --port N, or --port 0 for any that is free"
