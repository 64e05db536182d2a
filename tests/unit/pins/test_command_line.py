"""The commands of ``muster`` with their arguments and options: scripts and cron jobs call them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from muster.cli import cli
from tests.unit.pins.golden_files import check_golden

if TYPE_CHECKING:
    from collections.abc import Iterator


def describe(command: click.Command, name: str) -> Iterator[str]:
    yield f"{name}\n"
    for parameter in command.params:
        yield f"  {_describe(parameter)}\n"
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in sorted(command.list_commands(context)):
            found = command.get_command(context, child)
            assert found is not None
            yield from describe(found, f"{name} {child}")


def _describe(parameter: click.Parameter) -> str:
    said = ["/".join([*parameter.opts, *parameter.secondary_opts])]
    if isinstance(parameter, click.Argument):
        said[0] = f"<{parameter.name}>"
    kind = parameter.type
    if isinstance(kind, click.Choice):
        said.append("|".join(str(getattr(c, "value", c)) for c in kind.choices))
    elif not (isinstance(parameter, click.Option) and parameter.is_flag):
        said.append(kind.name)
    said += [
        word
        for word, there in (
            ("required", parameter.required),
            ("multiple", parameter.multiple or parameter.nargs == -1),
            ("hidden", getattr(parameter, "hidden", False)),
            (f"from {parameter.envvar}", parameter.envvar),
        )
        if there
    ]
    shown = getattr(parameter, "show_default", None)
    default = shown if isinstance(shown, str) else parameter.default  # this machine's CPUs
    if isinstance(default, bool | int | float | str) and default is not False:
        said.append(f"by default {default!r}")
    return ", ".join(said)


def test_every_command_takes_what_it_took() -> None:
    text = "".join(describe(cli, "muster"))
    check_golden("commands.txt", text, "is called by people's scripts, and by job scripts")
