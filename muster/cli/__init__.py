"""``muster …``: the same actions as in Airflow, without it.

Every command prints for people, or with ``--json`` one JSON document for programs.  A command that
fails prints one line on stderr and ends with the exit code of the error's class (sysexits.h).
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from muster import __version__
from muster.errors import ConfigError, MusterError, SoftwareError
from muster.imports import load_named

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS = {
    "run": "muster.cli.job:run",
    "plan": "muster.cli.job:plan",
    "migrate": "muster.cli.store:migrate",
    "status": "muster.cli.store:status",
    "report": "muster.cli.report:report",
    "wait": "muster.cli.runs:wait",
    "cancel": "muster.cli.runs:cancel",
    "retry": "muster.cli.runs:retry",
    "advise": "muster.cli.advise:advise",
    "logs": "muster.cli.store:logs",
    "reconcile": "muster.cli.store:reconcile",
    "clean": "muster.cli.clean:clean",
    "pools": "muster.cli.sites:pools",
    "doctor": "muster.cli.sites:doctor",
    "traits": "muster.cli.traits:traits",
    "resampling": "muster.cli.resampling:resampling",
    "campaign": "muster.cli.campaign:campaign",
    "mocks": "muster.cli.mocks:mocks",
}
"""Command → "module:command"; imported when it is called, since jobs start by the thousand."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for.

    Parameters
    ----------
    elsewhere : mapping of str to str
        Command → "module:command".
    """

    def __init__(self, *args: Any, elsewhere: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._elsewhere = elsewhere

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return sorted({*super().list_commands(ctx), *self._elsewhere})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self._elsewhere:
            return super().get_command(ctx, cmd_name)
        command: click.Command = load_named(self._elsewhere[cmd_name])
        return command


@dataclass
class Shown:
    """What the options before the command say of what is shown.

    Attributes
    ----------
    tracebacks : bool
        Raise what a command fails with, instead of saying it in one line.
    """

    tracebacks: bool = False


def _show_tracebacks(ctx: click.Context, _: click.Parameter, verbose: bool) -> bool:
    """Note --verbose as soon as it is read: to import the command may fail already."""
    ctx.ensure_object(Shown).tracebacks = verbose
    return verbose


@click.group(
    cls=LazyGroup, elsewhere=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__)
@click.option("--verbose", is_flag=True, callback=_show_tracebacks, help="Show tracebacks.")
def cli(*, verbose: bool) -> None:
    """Scientific campaigns on Slurm, Kubernetes or one machine, remembered in Postgres."""
    from muster.log import configure_logging

    configure_logging(logging.DEBUG if verbose else logging.INFO)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    shown = Shown()
    try:
        result: Any = cli.main(arguments, prog_name="muster", standalone_mode=False, obj=shown)
    except click.ClickException as error:
        error.show()
        return os.EX_USAGE
    except click.Abort:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if shown.tracebacks:
            raise
        explained = _explain(error)
        print(f"muster: {explained}", file=sys.stderr)
        return explained.exit_code
    return result if isinstance(result, int) else os.EX_OK


def _explain(error: Exception) -> MusterError:
    """Turn what ended a command into one line with an exit code."""
    if isinstance(error, MusterError):
        return error
    from psycopg2.errors import UndefinedColumn, UndefinedTable

    if isinstance(error, UndefinedColumn | UndefinedTable):
        return ConfigError(
            "the store does not have the schema of this version", do="run 'muster migrate'"
        )
    if isinstance(error, OSError):
        from muster.storage import explain_os_error

        return explain_os_error(error, error.filename or "what the command prints")
    return SoftwareError(
        f"{type(error).__name__}: {error}",
        do="run 'muster --verbose …' to see where, and report it",
    )
