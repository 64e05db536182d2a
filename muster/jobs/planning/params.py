"""What the parameters of several workflows have in common: names, locations, intervals, resources.

Importable without any compute package, since Airflow's side checks parameters too.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, model_validator

from muster import storage
from muster.config import SizeMib, TimeS, read_yaml
from muster.errors import ConfigError
from muster.frozen import Frozen
from muster.locations import beside, check_location, fill_location, find_placeholders

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LONGEST_NAME = 100


_NOT_SAID: tuple[Any, ...] = (None, "", [], {})


class RunParams(Frozen):
    """What the parameters of every workflow can say of themselves.

    Attributes
    ----------
    FILE_KEYS : frozenset of str
        Parameters that a params file can say, which ``config`` names then; none: there is no such
        file.
    FILE_TITLE, FILE_DESCRIPTION : str
        What the form says of that file.
    """

    FILE_KEYS: ClassVar[frozenset[str]] = frozenset()
    FILE_TITLE: ClassVar[str] = "Params file"
    FILE_DESCRIPTION: ClassVar[str] = (
        "Absolute path of a YAML file with parameters (config over REST); what is said below goes "
        "before what it says."
    )

    @classmethod
    def complete(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take what is not said from the params file that ``config`` names.

        Empty values of what a file can say count as not said, as a form sends all that it has.

        Parameters
        ----------
        data : mapping
            Keys of this model, and perhaps ``config``: an absolute path.

        Raises
        ------
        MissingInput
            When there is no such file.
        ConfigError
            When it is no YAML, has unknown keys, or is named by a relative path.
        """
        said = {k: v for k, v in data.items() if k not in cls.FILE_KEYS or v not in _NOT_SAID}
        if not cls.FILE_KEYS:
            return said
        config = said.pop("config", None)
        if config in _NOT_SAID:
            return said
        if not isinstance(config, str) or not config.startswith("/"):
            raise ConfigError("config is no absolute path", got=repr(config))
        return cls.read_file(Path(config), said)

    @classmethod
    def read_file(cls, path: Path, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return parameters from a params file, and what is said before what it says."""
        raise NotImplementedError

    def relative_locations(self) -> list[str]:
        """List locations that mean another place for every process that reads them."""
        return []


def _check_name(name: str) -> str:
    """Refuse a name that would not be one plain file name."""
    if not name or name != name.strip():
        raise ValueError("a name may not be empty, or begin or end with a blank")
    if name.startswith(".") or any(c in "/\\{}" or ord(c) < 32 or ord(c) == 127 for c in name):
        raise ValueError(
            f"{name!r} is not safe in a path: no '/', '\\', '{{', '}}', control characters, and "
            "no '.' in front"
        )
    if len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"{name[:20]!r}… is longer than {_LONGEST_NAME} bytes")
    return name


def check_unique(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a name given twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}")
    return names


def location_with(*allowed: str) -> AfterValidator:
    """Check a location that may hold these placeholders."""

    def check(location: str) -> str:
        problems = check_location(location, allowed)
        if problems:
            raise ValueError("; ".join(problems))
        return location

    return AfterValidator(check)


def read_params_file(
    path: Path,
    keys: Iterable[str],
    locations: Iterable[tuple[str, ...]],
    *,
    explained: Iterable[str] = (),
) -> dict[str, Any]:
    """Read a params file; relative paths in it are relative to the file.

    Parameters
    ----------
    keys : iterable of str
        Which keys there may be.
    locations : iterable of tuple of str
        Where paths stand, by the keys that lead there; "*" stands for each item of a list, or for
        a text alone in its place.
    explained : iterable of str
        Keys that are none of the file's, and about which the parameters' own check says more.

    Raises
    ------
    MissingInput
        When there is no such file.
    ConfigError
        When it is no YAML, or has other keys.
    """
    known = sorted(keys)
    data = read_yaml(path, known)
    unknown = sorted(str(key) for key in set(data) - {*known, *explained})
    if unknown:
        raise ConfigError(
            "unknown key", where=path, got=", ".join(unknown), expected=", ".join(known)
        )
    for location in locations:
        _put_beside(path.absolute().parent, data, *location)
    return data


def _put_beside(folder: Path, data: Any, key: str, *rest: str) -> None:
    """Take the locations below a key as relative to a folder; what is none is checked later."""
    if key == "*":
        found: list[Any] = list(range(len(data))) if isinstance(data, list) else []
    else:
        found = [key] if isinstance(data, dict) and key in data else []
    for item in found:
        if isinstance(data[item], str):
            if rest in ((), ("*",)):
                data[item] = beside(folder, data[item])
        elif rest:
            _put_beside(folder, data[item], *rest)


def as_list(value: Any) -> Any:
    """Take a text alone as a list of one."""
    return [value] if isinstance(value, str) else value


OneOrMore = BeforeValidator(as_list, json_schema_input_type=tuple[str, ...] | str)
"""For a tuple of texts: one of them may stand without a list."""


Name = Annotated[str, AfterValidator(_check_name)]
Names = Annotated[
    tuple[Name, ...], AfterValidator(check_unique), Field(json_schema_extra={"uniqueItems": True})
]


class PartialResources(Frozen):
    """Resources of a step that replace the site's; None leaves the site's.

    Attributes
    ----------
    cpus, gpus : int or None
        Threads and GPUs an element.
    memory : int or None
        Memory an element, in MiB; written as in the site file, "64GiB".
    time : int or None
        Wall time an element, in seconds; written as in the site file, "02:00:00".
    """

    cpus: Annotated[int, Field(ge=1)] | None = None
    memory: Annotated[SizeMib, Field(ge=1)] | None = None
    time: Annotated[TimeS, Field(ge=1)] | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None


class IntervalParams(RunParams):
    """Parameters of a run that may stand for an interval of time.

    Attributes
    ----------
    interval_start, interval_end : datetime or None
        The time that the run stands for, aware, in UTC; end excluded.
    """

    interval_start: AwareDatetime | None = None
    interval_end: AwareDatetime | None = None

    @model_validator(mode="after")
    def _check_interval(self) -> IntervalParams:
        if (self.interval_start is None) != (self.interval_end is None):
            raise ValueError("interval_start and interval_end are given together or not at all")
        if self.interval_start and self.interval_end and self.interval_end <= self.interval_start:
            raise ValueError("interval_end must be later than interval_start")
        return self

    @property
    def interval_label(self) -> str | None:
        """Name of the interval: 2024, 2024-03, or the date that it starts on; None without one."""
        start, end = self.interval()
        if start is None or end is None:
            return None
        if _is_year(start, end):
            return f"{start:%Y}"
        if _is_month(start, end):
            return f"{start:%Y-%m}"
        midnight = (start.hour, start.minute, start.second) == (0, 0, 0)
        return f"{start:%Y-%m-%d}" if midnight else f"{start:%Y-%m-%dT%H%M%S}"

    @property
    def interval_month(self) -> str | None:
        """The interval as a coordinate: YYYY or YYYY-MM; None where it is neither, or none."""
        start, end = self.interval()
        if start is None or end is None or not (_is_year(start, end) or _is_month(start, end)):
            return None
        return self.interval_label

    def interval(self) -> tuple[datetime | None, datetime | None]:
        """Start and end in UTC; None twice without an interval."""
        if self.interval_start is None or self.interval_end is None:
            return None, None
        return self.interval_start.astimezone(UTC), self.interval_end.astimezone(UTC)

    def interval_values(self) -> dict[str, str | None]:
        """Return what fills {year} and {month}; None without an interval.

        A whole year has no month.
        """
        start, end = self.interval()
        if start is None or end is None:
            return {"year": None, "month": None}
        month = None if _is_year(start, end) else f"{start:%m}"
        return {"year": f"{start:%Y}", "month": month}

    def told_apart(self, location: str) -> bool:
        """Say whether a location's placeholders tell intervals of this run's length apart."""
        start, end = self.interval()
        if start is None or end is None:
            return True
        named = set(find_placeholders(location))
        return ("year" in named and _is_year(start, end)) or (
            {"year", "month"} <= named and _is_month(start, end)
        )


class OutputParams(IntervalParams):
    """Parameters of a run that makes products in a folder, ``output``, which may be an interval's.

    Each workflow lists ``output`` among its own fields, with the placeholders that it may hold.
    """

    if TYPE_CHECKING:
        output: str

    def values(self) -> dict[str, str | None]:
        """Return what fills the placeholders of locations."""
        return self.interval_values()

    def fill(self, location: str) -> str:
        """Fill a location's placeholders.

        Raises
        ------
        ConfigError
            When it names a year or month and the run has no interval.
        """
        return fill_location(location, self.values())

    def output_uri(self) -> str:
        """Folder of this run's products.

        The interval's label is a folder below ``output``, unless its placeholders already tell
        intervals of that length apart.

        Raises
        ------
        ConfigError
            When ``output`` names a year or month and the run has no interval.
        """
        folder = self.fill(self.output)
        label = self.interval_label
        if label is None or self.told_apart(self.output):
            return folder
        return storage.join(folder, label)


def make_interval(year: int | None, month: int | None = None) -> tuple[datetime, datetime] | None:
    """Return the interval of a year, or of a month of it; None without a year.

    Raises
    ------
    ConfigError
        When there is a month without a year.
    """
    if year is None:
        if month is not None:
            raise ConfigError("month without year", got=f"month {month}", do="say which year")
        return None
    if month is None:
        return datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    start = datetime(year, month, 1, tzinfo=UTC)
    return start, (start + timedelta(days=31)).replace(day=1)


def find_relative(locations: Iterable[str]) -> list[str]:
    """List the locations that mean another place for every process that reads them."""
    return [
        location
        for location in locations
        if (path := storage.local_path(location)) is not None and not path.is_absolute()
    ]


def _is_year(start: datetime, end: datetime) -> bool:
    first = start.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    return start == first and end == first.replace(year=first.year + 1)


def _is_month(start: datetime, end: datetime) -> bool:
    first = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start == first and end == (first + timedelta(days=32)).replace(day=1)
