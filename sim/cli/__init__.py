"""The command `moesim`: thin verbs over the house.

People's tables and progress go to standard error, so that `--json` leaves one document on standard output. Heavy imports
are inside the commands: `--help` touches none of them.
"""

from __future__ import annotations

import atexit
import gc
import sys

import click

from sim import __version__
from sim.cli import streams
from sim.cli.asking import diff, explain, size
from sim.cli.exploring import explore, ladder, sweep
from sim.cli.looking import check, import_, new, plot, schema, show
from sim.cli.running import calibrate, run, validate
from sim.errors import EXIT_BAD_INPUT, EXIT_MISSED, InputError, MoesimError, nearest, shown

_UNCOLLECTED = 100_000
"""New objects after which Python looks for garbage: a run keeps nearly all that it makes, and a look every 700 takes a tenth of its time."""


class _Group(click.Group):
    """Suggests the nearest command for an unknown one, and keeps the order of the house."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            near = nearest(name, self.commands)
            hint = f"; did you mean {near}?" if near else ""
            ctx.fail(f"got the unknown command '{name}'; wanted one of: {', '.join(self.commands)}{hint}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="moesim")
def cli() -> None:
    """Simulate GPU clusters that run mixture-of-experts models.

    Start with: moesim run h800-vs-h100
    """


for command in (
    run,
    sweep,
    ladder,
    explore,
    explain,
    diff,
    size,
    plot,
    validate,
    calibrate,
    check,
    show,
    schema,
    new,
    import_,
):
    cli.add_command(command)


def main() -> None:
    """Run the command, as the entry point: our messages without traceback, exit codes as documented."""
    streams.hold()
    gc.set_threshold(_UNCOLLECTED, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)  # or Python looks for garbage once more in all that it is about to leave
    try:
        cli.main(standalone_mode=False)
        sys.stdout.flush()
    except MoesimError as error:
        click.echo(f"moesim: {error}" if not isinstance(error, InputError) else str(error), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; finished work is kept", err=True)
        sys.exit(130)
    except MemoryError as error:
        click.echo(
            f"moesim: not enough memory on this machine; {error or 'something smaller may do'}", err=True
        )
        sys.exit(EXIT_MISSED)
    except OSError as error:
        place = f"{shown(str(error.filename))}: " if error.filename else ""
        click.echo(f"moesim: {place}{(error.strerror or str(error)).lower()}", err=True)
        sys.exit(EXIT_MISSED)
