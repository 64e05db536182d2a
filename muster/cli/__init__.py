"""``muster …``: the same actions as in Airflow, without it.

Every command prints for people, or with ``--json`` one JSON document for programs.  A command that
fails prints one line on stderr and ends with the exit code of the error's class (sysexits.h).
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from muster import __version__
from muster.errors import MusterError

COMMANDS = {
    "run": "muster.cli.job:run",
    "plan": "muster.cli.job:plan",
    "migrate": "muster.cli.store:migrate",
    "status": "muster.cli.store:status",
    "logs": "muster.cli.store:logs",
    "reconcile": "muster.cli.store:reconcile",
    "pools": "muster.cli.sites:pools",
    "doctor": "muster.cli.sites:doctor",
    "traits": "muster.cli.traits:traits",
}
"""Command → "module:command"; imported when it is called, since jobs start by the thousand."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--verbose", is_flag=True, help="Show tracebacks.")
def cli(*, verbose: bool) -> None:
    """Scientific campaigns on Slurm, Kubernetes or one machine, remembered in Postgres."""
    from muster.log import configure_logging

    configure_logging(logging.DEBUG if verbose else logging.INFO)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        result: Any = cli.main(arguments, prog_name="muster", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return os.EX_USAGE
    except click.Abort:
        print("interrupted", file=sys.stderr)
        return 130
    except MusterError as error:
        if "--verbose" in (arguments or sys.argv):
            raise
        print(f"muster: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_OK
    return result if isinstance(result, int) else os.EX_OK
