"""Every error of mock campaigns says what to do next."""

from __future__ import annotations

import ast
from pathlib import Path

import muster.errors
import muster.mocks.errors
from muster.errors import MusterError

MOCKS = Path(muster.mocks.errors.__file__).parent
ERRORS = {"ContentMismatch", "Occupied"} | {
    name
    for module in (muster.errors, muster.mocks.errors)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, MusterError)
}
SAYS_ITSELF = {"ModelNotInstalled(absent, where=where)"}
"""The text of what is not installed names the command that installs it."""


def find_silent(text: str) -> list[str]:
    """List the errors that a module makes without ``do``."""
    silent = []
    for call in ast.walk(ast.parse(text)):
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "attr", getattr(call.func, "id", None))
        given = {keyword.arg for keyword in call.keywords}
        if name in ERRORS and call.args and not given & {"do", None}:
            silent.append(ast.unparse(call))
    return silent


def test_every_error_of_mocks_says_what_to_do() -> None:
    assert find_silent("raise errors.InvalidInput('wrong', got=1)"), "the search finds one"
    found = {str(path): find_silent(path.read_text()) for path in MOCKS.rglob("*.py")}
    assert len(found) > 50
    silent = {path: {*calls} - SAYS_ITSELF for path, calls in found.items()}
    assert {path: calls for path, calls in silent.items() if calls} == {}
