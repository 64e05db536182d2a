"""Everything that is wrong with a campaign file, told at once."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.errors import ConfigError, one_line, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from muster.config import ConfigProblem
    from muster.mocks.campaign.yaml_document import Document

EXPLAINED = {
    "science.min_mass": "it is called min_mass_msunh here, in Msun/h",
    "science.minimum_mass": "it is called min_mass_msunh here, in Msun/h",
    "science.log_min_mass": "it is called min_mass_msunh here, in Msun/h and no logarithm",
    "science.simulation": "it is called simulation_suite here",
    "science.model": "it is called galaxy_model here",
    "science.galaxy_model_params": "it is called parameters here",
    "science.random_seed": "it is called seed here",
    "science.phases": "realizations are numbered: realizations, and first_phase in science.box",
    "execution.timeout": "it is called timeout_hours here",
    "execution.max_parallel": "it is called concurrency here",
    "resources.partition": "the site file says it, of the pool that job_type picks",
    "resources.qos": "the site file says it, of the pool that job_type picks",
    "resources.constraint": "the site file says it, of the pool that job_type picks",
    "resources.nodes": "the site file says it, of the pool that job_type picks",
    "resources.gpus": "the site file says it, of the job type",
    "resources.cpus": "the site file says it, of the job type; overrides change it for elements",
    "resources.memory": "memory_requirement is a factor of the job type's; a size stands in "
    "overrides",
    "resources.time": "it is timeout_hours in execution; overrides change it for elements",
    "outputs.format": "catalogues are HDF5",
    "outputs.compression_level": "write compression: {filter: gzip, level: 4}",
}
"""Keys that are none, and where what their author wants stands."""


@dataclass(frozen=True)
class FileProblem:
    """One thing that is wrong.

    Attributes
    ----------
    key : str
        Keys joined by dots; "" of the whole file.
    line : int or None
        Line in the file, from 1; None where there is no file, or of the whole.
    message : str
        What is wrong.
    got, allowed : str or None
        The value, and what is allowed.
    """

    key: str
    line: int | None
    message: str
    got: str | None = None
    allowed: str | None = None

    @property
    def text(self) -> str:
        """One line that says it all, without the file."""
        place = f"line {self.line}: " if self.line is not None else ""
        key = f"{self.key}: " if self.key and not self.key.startswith("line ") else ""
        got = f"; got: {self.got}" if self.got is not None else ""
        allowed = f"; allowed: {self.allowed}" if self.allowed is not None else ""
        return one_line(f"{place}{key}{self.message}{got}{allowed}")

    def to_dict(self) -> dict[str, str | int | None]:
        """Return what ``--json`` prints."""
        return {
            "key": self.key,
            "line": self.line,
            "message": self.message,
            "got": self.got,
            "allowed": self.allowed,
        }


class CampaignFileError(ConfigError):
    """A campaign file is wrong.

    Attributes
    ----------
    where : str
        The file, or what was given in its place.
    problems : tuple of FileProblem
        All that is wrong, in the order of the lines.
    """

    problems: tuple[FileProblem, ...] = ()

    def __init__(self, where: object, problems: Sequence[FileProblem]) -> None:
        self.where = str(where)
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            super().__init__(f"{self.where}: {self.problems[0].text}")
        else:
            texts = " | ".join(problem.text for problem in self.problems)
            super().__init__(f"{self.where}: {len(self.problems)} errors | {texts}")

    @property
    def lines(self) -> list[str]:
        """One line a problem, the file in front."""
        return [f"{self.where}: {problem.text}" for problem in self.problems]


def join_keys(path: Iterable[str]) -> str:
    """Write a path of keys as science.redshifts[2]."""
    joined = ""
    for part in path:
        joined += f"[{part}]" if part.isdigit() else f".{part}" if joined else part
    return joined


def place_problems(problems: Sequence[ConfigProblem], document: Document) -> list[FileProblem]:
    """Give problems their lines, each once, in the order of the lines."""
    placed = {_place(problem, document): None for problem in problems}
    # A problem without a line is one of the whole.
    return sorted(placed, key=lambda problem: (problem.line or 0, problem.key))


def _place(problem: ConfigProblem, document: Document) -> FileProblem:
    line = document.line_of(problem.path)
    dotted = join_keys(problem.path)
    if problem.kind == "unknown":
        message = "unknown key"
        if dotted in EXPLAINED:
            message = f"unknown key: {EXPLAINED[dotted]}"
        elif problem.expected:
            near = difflib.get_close_matches(
                problem.path[-1], problem.expected.split(", "), n=1, cutoff=0.75
            )
            message = f"unknown key, is {near[0]} meant?" if near else message
        return FileProblem(dotted, line, message, None, problem.expected)
    if problem.kind == "missing":
        return FileProblem(dotted, line, "the key is missing")
    # A value may stand for a mapping: what is said of a part is said of the value.
    shown = join_keys(document.stated(problem.path) or problem.path)
    got = None if problem.got is None else shorten(problem.got, 80)
    return FileProblem(shown, line, problem.message, got, problem.expected)
