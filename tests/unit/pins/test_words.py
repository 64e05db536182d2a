"""Words that are stored, or that a program outside goes by: states, exit codes, variables."""

from __future__ import annotations

from muster import errors
from muster.jobs.planning.workflow import WORKFLOWS, load_workflow
from muster.model.outcome import EXIT_CODES, Outcome, exit_code_of
from muster.model.plan import Decision
from muster.model.step import STEPS
from muster.store.records import AttemptState, RunState
from tests.unit.pins.golden_files import check_golden, check_literal
from tests.unit.pins.sources import REPOSITORY, find_all

STORED = "is stored in the record of all runs"


def test_states_and_outcomes_are_the_stored_words() -> None:
    check_literal(
        "states",
        {kind.__name__: list(kind) for kind in (Outcome, Decision, RunState, AttemptState)},
        {
            "Outcome": [
                "succeeded", "missing_input", "invalid_input", "software_error", "transient",
                "out_of_memory", "timed_out", "node_failed", "preempted", "cancelled",
                "superseded", "lost", "not_begun",
            ],
            "Decision": ["run", "reused", "missing_input", "invalid_input", "not_asked"],
            "RunState": ["open", "planned", "succeeded", "failed", "cancelled"],
            "AttemptState": ["planned", "submitted", "running", "ended"],
        },
        STORED,
    )  # fmt: skip


def test_exit_codes_are_those_of_sysexits() -> None:
    user = "is in schedulers' records, in scripts, and decides whether an attempt is tried again"
    check_literal(
        "exit codes of jobs",
        {outcome: exit_code_of(outcome) for outcome in [*Outcome, "terminated"]},
        {
            "succeeded": 0,
            "missing_input": 66,
            "invalid_input": 65,
            "software_error": 70,
            "transient": 75,
            "out_of_memory": 70,
            "timed_out": 70,
            "node_failed": 70,
            "preempted": 70,
            "cancelled": 70,
            "superseded": 0,
            "lost": 70,
            "not_begun": 0,
            "terminated": 143,
        },
        user,
    )
    kept = {65: "invalid_input", 66: "missing_input", 70: "software_error", 75: "transient"}
    check_literal("what exit codes mean", dict(EXIT_CODES), kept, user)
    check_literal(
        "exit codes of errors",
        {
            name: kind.exit_code
            for name, kind in vars(errors).items()
            if isinstance(kind, type) and issubclass(kind, errors.MusterError)
        },
        {
            "ClaimLost": 70,
            "ConfigError": 65,
            "IllegalTransition": 70,
            "InvalidInput": 65,
            "MissingInput": 66,
            "MusterError": 70,
            "SoftwareError": 70,
            "StoreUnavailable": 75,
            "Superseded": 70,
            "Transient": 75,
        },
        user + "; the names are stored as error_class",
    )


def test_workflows_and_their_steps_have_their_names() -> None:
    check_literal(
        "workflows",
        {
            flow.name: {"stages": flow.stages, "inspect": flow.inspect, "last": flow.final_steps}
            for flow in map(load_workflow, WORKFLOWS)
        },
        {
            "trait_inference": {
                "inspect": "traits.inspect",
                "stages": (("traits.predict", "traits.cov", "traits.aoa"), ("traits.build",)),
                "last": (),
            },
            "resampling": {
                "inspect": "resampling.inspect",
                "stages": (("resampling.resample",),),
                "last": ("resampling.merge",),
            },
            "mock_campaign": {
                "inspect": "mocks.inspect",
                "stages": (("mocks.populate",), ("mocks.collect",)),
                "last": ("mocks.qa", "mocks.manifest"),
            },
        },
        "is stored in run.workflow, batch.step and Airflow's history, and named in site files",
    )
    stepped = {step for flow in map(load_workflow, WORKFLOWS) for step in flow.steps}
    check_literal("further steps", sorted(set(STEPS) - stepped), ["site.probe"], STORED)


def test_variables_and_tags_have_their_names() -> None:
    """Of people's shells, of jobs that run, and of rasters: all that begins with MUSTER_."""
    names = find_all(r"\b(MUSTER_[A-Z0-9_]*[A-Z0-9])\b", ".py", ".sql", ".sh")
    check_golden(
        "variables.txt",
        "".join(f"{name}\n" for name in names),
        "is set by people, by jobs that run, or in files that were written",
    )


def test_entry_points_have_their_names() -> None:
    groups = find_all(r"Registry\([^)]*?[\"'](muster\.[^\"']+)[\"']", ".py")
    user = "is named by installed packages, and by what calls the command"
    named = ["muster.galaxy_models", "muster.halo_sources", "muster.steps", "muster.workflows"]
    check_literal("groups of entry points", groups, named, user)
    scripts = (REPOSITORY / "pyproject.toml").read_text().split("[project.scripts]\n")[1]
    check_literal("script", scripts.split(" = ")[0], "muster", user)


def test_modules_that_are_called_by_name_are_there() -> None:
    """By make, by docs, by job scripts and by runners that live: ``python -m …``."""
    import importlib.util

    called = ["muster", "muster.jobs.child", "muster.laptop", "minislurm"]
    found = [
        name
        for name in called
        if (spec := importlib.util.find_spec(name)) is not None
        and (
            spec.submodule_search_locations is None
            or importlib.util.find_spec(f"{name}.__main__") is not None
        )
    ]
    check_literal("modules to be run", found, called, "is started as python -m by what runs now")
