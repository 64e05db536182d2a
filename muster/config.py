"""Configuration read once, at the edge: typed, frozen, and strict about what it does not know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import yaml
from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, ValidationError

from muster import storage
from muster.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_WORDS = {
    "tuple_type": "should be a list",
    "list_type": "should be a list",
    "model_type": "should be a mapping",
    "dict_type": "should be a mapping",
    "too_short": "needs at least 1",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "finite_number": "should be a finite number",
    "string_type": "should be a text",
    "bool_type": "should be true or false",
}
"""Kinds of problems whose usual words speak of Python's types."""

Model = TypeVar("Model", bound=BaseModel)

SIZE_UNITS_MIB = {"MiB": 1, "GiB": 1024, "TiB": 1024**2}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(MiB|GiB|TiB)")
_TIME = re.compile(r"(?:(\d+)-)?(\d{1,2}):(\d{2}):(\d{2})")
_DAYS = re.compile(r"(\d+)d")
NEVER = "never"


def parse_config(model: type[Model], data: Mapping[str, Any], where: object) -> Model:
    """Validate a mapping, or say in one line which key is wrong, where, and what is allowed.

    Raises
    ------
    ConfigError
        At the first key that is unknown, or else at the first that is absent or wrong; its
        ``problems`` are all of them.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = find_problems(model, error)
        # A key that is misspelt is missing too: the misspelling is what its author wants to hear.
        unknown = [problem for problem in problems if problem.kind == "unknown"]
        first = (unknown or problems)[0].to_error(where)
        first.problems = tuple(problems)
        raise first from None


@dataclass(frozen=True)
class ConfigProblem:
    """What is wrong with one key of a configuration.

    Attributes
    ----------
    path : tuple of str
        The keys that lead there as the file has them; empty for the whole.
    kind : {"unknown", "missing", "wrong"}
        The key is none of the allowed ones, is not given, or has a wrong value.
    message : str
        What is wrong, without the key.
    got, expected : str or None
        The value, and the keys or values that are allowed.
    """

    path: tuple[str, ...]
    kind: Literal["unknown", "missing", "wrong"]
    message: str
    got: str | None = None
    expected: str | None = None

    @property
    def key(self) -> str:
        """The keys joined by dots."""
        return ".".join(self.path) or "(top level)"

    def to_error(self, where: object) -> ConfigError:
        """Return the error that names this problem alone."""
        if self.kind == "unknown":
            return ConfigError(self.message, where=where, got=self.key, expected=self.expected)
        if self.kind == "missing":
            return ConfigError(self.message, where=where, expected=self.key)
        if not self.path:  # of the whole: what it says may be long, and nobody's business
            return ConfigError(self.message, where=where)
        return ConfigError(
            f"{self.key}: {self.message}", where=where, got=self.got, expected=self.expected
        )


def find_problems(model: type[BaseModel], error: ValidationError) -> list[ConfigProblem]:
    """List everything that pydantic found wrong, in the words of the file's author."""
    return [_describe(model, problem) for problem in error.errors(include_url=False)]


def _describe(model: type[BaseModel], problem: Mapping[str, Any]) -> ConfigProblem:
    path, fields = _follow(model, problem["loc"])
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = ", ".join(sorted(fields)) or None
        return ConfigProblem(tuple(path), "unknown", "unknown key", expected=allowed)
    if kind.startswith("union_tag_"):
        path = [*path, str(context["discriminator"]).strip("'")]
    if kind in ("missing", "union_tag_not_found"):
        return ConfigProblem(tuple(path), "missing", "a key is missing")
    if kind == "union_tag_invalid":
        expected, got = context["expected_tags"].replace("'", ""), repr(context["tag"])
        return ConfigProblem(tuple(path), "wrong", "unknown", got, expected)
    # Of a whole section, what is wrong is said; the rest of it is of no use to who reads that.
    whole = isinstance(problem["input"], dict)
    shown = None if whole else render_value(problem["input"])
    return ConfigProblem(tuple(path), "wrong", _say(problem), shown)


def render_value(value: Any) -> str:
    """Render a value that a message quotes: true, false and null as files have them."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(render_value(item) for item in value)}]"
    if isinstance(value, dict):
        items = (f"{render_value(key)}: {render_value(item)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    return repr(value)


def read_yaml(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    """Read a YAML file of keys and values, each key given once.

    Parameters
    ----------
    keys : iterable of str
        Which keys there may be, for the message.

    Raises
    ------
    MissingInput
        When there is no such file.
    ConfigError
        When it is no YAML, or holds no keys.
    """
    content = storage.read_bytes(str(path))
    try:
        data = yaml.load(content, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError("not a YAML file", where=f"{path}{line}", got=error.problem) from error
    except yaml.YAMLError as error:
        raise ConfigError("not a YAML file", where=path, got=error) from error
    if not isinstance(data, dict):
        raise ConfigError(
            "params file holds no keys",
            where=path,
            got=type(data).__name__,
            expected=", ".join(keys),
        )
    return data


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping of keys that are all different."""
        keys: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            keys.append(key)
        return super().construct_mapping(node, deep)


def _say(problem: Mapping[str, Any]) -> str:
    """Say what is wrong in the words of a file's author."""
    said: str | None = _WORDS.get(problem["type"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    return said or message.removeprefix("Input ").removeprefix("String ")


def parse_size_mib(text: str | int) -> int:
    """Parse a size such as "190GiB"; MiB, rounded down.

    Raises
    ------
    ValueError
        When it is not a number with MiB, GiB or TiB.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None:
        raise ValueError("a size needs its unit: '512MiB', '190GiB'")
    size_mib = int(float(match[1]) * SIZE_UNITS_MIB[match[2]])
    if size_mib < 1:
        raise ValueError("a size must be at least 1MiB")
    return size_mib


def parse_time_s(text: str) -> int:
    """Parse a duration as Slurm writes it, "[days-]hours:minutes:seconds", or "30d"; seconds.

    Raises
    ------
    ValueError
        When it is neither.
    """
    written = str(text).strip()
    whole_days = _DAYS.fullmatch(written)
    match = _TIME.fullmatch(f"{whole_days[1]}-00:00:00" if whole_days else written)
    if match is None:
        raise ValueError(
            "a time is written '[days-]hours:minutes:seconds' or in days: '02:00:00', '30d'"
        )
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total_s < 1:
        raise ValueError("a time must be at least one second")
    return total_s


def render_time(seconds: int) -> str:
    """Render a duration as "hours:minutes:seconds", the days before it."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def parse_keep_s(text: str) -> int | None:
    """Parse how long something is kept: a time, or "never" for what is never removed (None).

    Raises
    ------
    ValueError
        When it is neither.
    """
    if str(text).strip() == NEVER:
        return None
    try:
        return parse_time_s(text)
    except ValueError as error:
        raise ValueError(f"{error}; or {NEVER!r}, to keep it for good") from None


def render_keep(seconds: int | None) -> str:
    """Render how long something is kept, whole days as "30d"."""
    if seconds is None:
        return NEVER
    return render_time(seconds) if seconds % 86400 else f"{seconds // 86400}d"


_SizeText = Annotated[str, Field(pattern=rf"^\s*{_SIZE.pattern}\s*$")]

# A bare number is refused: 16 is meant as GiB by who writes it, and would be taken as MiB.
SizeMib = Annotated[
    int,
    BeforeValidator(parse_size_mib, json_schema_input_type=_SizeText),
    PlainSerializer(lambda mib: f"{mib}MiB", when_used="json-unless-none"),
]
"""A size in MiB, written with its unit in files and in JSON."""

TimeS = Annotated[
    int,
    BeforeValidator(parse_time_s, json_schema_input_type=str),
    PlainSerializer(render_time, when_used="json-unless-none"),
]
"""A duration in seconds, written as [days-]hours:minutes:seconds, or in days as 30d, in files."""

KeepS = Annotated[
    int | None,
    BeforeValidator(parse_keep_s, json_schema_input_type=str),
    PlainSerializer(render_keep, when_used="json"),
]
"""How long something is kept, in seconds; None, written "never", is for good."""


def _follow(model: type[BaseModel], where: Iterable[int | str]) -> tuple[list[str], list[str]]:
    """Follow pydantic's location of a problem through a model.

    Returns
    -------
    path : list of str
        The keys as the file has them: pydantic also names which member of a union it took.
    fields : list of str
        The keys that are allowed where the last one stands.
    """
    path: list[str] = []
    fields: list[str] = []
    annotation: Any = model
    for part in map(str, where):
        annotation = _without_wrapping(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = list(annotation.model_fields)
            found = annotation.model_fields.get(part)
            annotation = found.annotation if found else None
        elif get_origin(annotation) in (Union, UnionType):
            annotation = _member(annotation, part)
            continue
        else:
            fields = []
            annotation = (*get_args(annotation), None)[1 if get_origin(annotation) is dict else 0]
        path.append(part)
    return path, fields


def _without_wrapping(annotation: Any) -> Any:
    """Take Annotated[…] and "or None" away, which are no part of a location."""
    while True:
        members = [a for a in get_args(annotation) if a is not type(None)]
        optional = get_origin(annotation) in (Union, UnionType) and len(members) == 1
        if get_origin(annotation) is not Annotated and not optional:
            return annotation
        annotation = members[0]


def _member(union: Any, tag: str) -> Any:
    """Find the model that a tag stands for in a union."""
    for member in get_args(union):
        if isinstance(member, type) and issubclass(member, BaseModel):
            for field in member.model_fields.values():
                if get_origin(field.annotation) is Literal and get_args(field.annotation) == (tag,):
                    return member
    return None
