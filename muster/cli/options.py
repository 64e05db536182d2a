"""Options that many commands have, and how they print what they answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Option = Callable[[Callable[..., Any]], Callable[..., Any]]

Command = TypeVar("Command", bound="Callable[..., Any]")

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
closing_json_option = click.option(
    "--json", "as_json", is_flag=True, help="The closing report as JSON."
)
json_lines_option = click.option(
    "--json", "as_json", is_flag=True, help="A JSON document, on one line, at each change."
)
site_option = click.option("--site", "site_name", help="Site file, by name or path.")


def with_options(*options: Option) -> Callable[[Command], Command]:
    """Return what gives a command these options, in this order."""

    def give(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)  # type: ignore[assignment]
        return command

    return give


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=1, default=str))


def render_json_line(value: Any) -> str:
    """Render a JSON document on one line, of which others may follow."""
    return json.dumps(value, default=str)


def print_answer(value: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Print an answer as one JSON document, or else as lines."""
    if as_json:
        print_json(value)
        return
    for line in lines:
        click.echo(line)
