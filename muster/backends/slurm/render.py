"""What a wave is submitted with: a script, the variables of its jobs, and its list of elements.

Everything here is text made of values, without a look at the world.  The script holds no path and
no value of a person's but the pool's own words: what a job needs to know it reads from
``environment`` and ``elements`` beside it, so that no name can become a command.  Both, and the
script, lie in a folder of the submission's own, which ``sbatch --chdir`` makes the jobs' own too.

sbatch takes ``SBATCH_…`` variables over what a script says: whoever calls it takes them away.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING

from muster.backends.array_tasks import first_wave, job_time_s, longest_task, plan_tasks
from muster.backends.slurm.clients import SLURM_FOLDER
from muster.config import render_time
from muster.errors import InvalidInput, one_line
from muster.model.environment import LOG_VARIABLE, TIME_LIMIT_VARIABLE
from muster.model.slurm_target import SlurmTarget, check_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from muster.model.batch import Batch
    from muster.model.wave import RequiredEnd, Wave

ENVIRONMENT_FILE = "environment"
ELEMENTS_FILE = "elements"
STARTED_FILE = "started"
"""With the array task's number behind it: which job has begun it."""

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]*")
_HOSTS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,\[\]-]*")
_REFERENCE = re.compile(r"[0-9]+(_[0-9]+)?")
_DEPENDENCIES: dict[RequiredEnd, str] = {"ok": "afterok", "any": "afterany"}

# Each array task begins here.  exec, so that the runner is what Slurm signals and waits for: at the
# time limit, and when it cancels, Slurm sends SIGTERM to all processes of a job, and SIGKILL after
# KillWait.  That is warning enough: an earlier --signal would be taken for somebody's cancellation.
_BEGIN = """\
muster_task=${SLURM_ARRAY_TASK_ID:-0}
muster_job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
if [[ ! -O environment ]]; then
  # Slurm begins in /tmp where it cannot enter the folder: nothing there is ours
  echo "muster: $SLURMD_NODENAME does not see the folder of this submission: $PWD" >&2
  exit 75
fi
muster_begin() {
  # one inode for the notes of all tasks: links to one file, where the file system has links
  if [[ ! -e job.$muster_job ]] && echo "$muster_job" >".job.$muster_task"; then
    ln ".job.$muster_task" "job.$muster_job"
    rm -f ".job.$muster_task"
  fi
  [[ -e started.$muster_task ]] && return 1
  ln "job.$muster_job" "started.$muster_task" ||
    (set -o noclobber; echo "$muster_job" >"started.$muster_task")
}
if ! muster_begin 2>/dev/null; then
  muster_other=
  IFS= read -r muster_other <"started.$muster_task"
  if [[ ! -e started.$muster_task ]]; then
    echo "muster: $SLURMD_NODENAME cannot write to the folder of this submission: $PWD" >&2
    exit 75
  elif [[ $muster_other != "$muster_job" ]]; then
    echo "muster: job ${muster_other:-unknown} has begun task $muster_task: a twin of it ends here"
    exit 0
  fi
fi
IFS=' ' read -r -a muster_elements < <(tail -n "+$((muster_task + 1))" elements)
muster_arguments=()
for muster_element in "${muster_elements[@]}"; do
  muster_arguments+=(--index "$muster_element")
done
. ./environment
"""
_COMMAND = '"$MUSTER_PYTHON" -m muster run "$MUSTER_BATCH" --logs "${muster_arguments[@]}"'
_COMMAND_SHARED = '"$MUSTER_PYTHON" -m muster run "$MUSTER_BATCH" "${muster_arguments[@]}"'


def render_batch(batch: Batch) -> str:
    """Render the script of a batch's first wave."""
    wave = first_wave(batch)
    return render_script(wave, slots=batch.wave_slots)


def render_script(wave: Wave, *, slots: int) -> str:
    """Render the script that sbatch is called with.

    Parameters
    ----------
    wave : Wave
        What is submitted.
    slots : int
        How many of its elements may run at once.

    Raises
    ------
    InvalidInput
        When the batch has no place on Slurm, or a word of the wave's own is none of Slurm's.
    """
    target = _target_of(wave)
    lines = ["#!/bin/bash -l"]
    words = f"Muster: {wave.batch.step}, batch {wave.batch.id}, submission {wave.key}"
    lines.append(f"# {one_line(words)}")
    lines += [f"#SBATCH {option}" for option in render_options(wave, slots=slots)]
    lines += ["", _BEGIN]
    if target.cluster.prelude:
        lines += [*target.cluster.prelude, ""]
    words = _COMMAND_SHARED if wave.batch.layout else _COMMAND
    command = ["exec", *map(shlex.quote, target.cluster.container), words]
    if wave.batch.layout:
        lines += [
            f'export {LOG_VARIABLE}="{SLURM_FOLDER}/$MUSTER_JOB/{_log_name(wave, target)}"',
            "",
        ]
    return "\n".join([*lines, " ".join(command), ""])


def _log_name(wave: Wave, target: SlurmTarget) -> str:
    """Name what Slurm writes a job's output to, in the words of its script."""
    return "$muster_task.out" if len(plan_tasks(wave.attempts, target.pack)) > 1 else "job.out"


def render_options(wave: Wave, *, slots: int) -> list[str]:
    """Render what the script tells sbatch, as arguments of sbatch; else as render_script."""
    return [
        f"--{name}" if value is None else f"--{name}={value}"
        for name, value in _directives(wave, _target_of(wave), slots)
    ]


def render_environment(variables: Mapping[str, str]) -> str:
    """Render variables for a shell to source; any text arrives as it is.

    Raises
    ------
    InvalidInput
        When a name is none that a shell takes, or a value holds a NUL.
    """
    try:
        check_variables(variables)
    except ValueError as error:
        raise InvalidInput("a job cannot have this variable", got=error) from error
    for name, value in variables.items():
        if "\0" in value:
            raise InvalidInput("no variable can hold a NUL", where=name, got=repr(value))
    return "".join(f"export {name}={_quote(value)}\n" for name, value in variables.items())


def job_variables(wave: Wave, there: Callable[[str], str]) -> dict[str, str]:
    """Say what the jobs of a wave find in their environment.

    Parameters
    ----------
    wave : Wave
        What is submitted.
    there : callable
        Path on this side → path on the cluster.

    Raises
    ------
    InvalidInput
        When the batch has no place on Slurm.
    """
    target = _target_of(wave)
    cluster = target.cluster
    longest = longest_task(wave.attempts, target.pack)
    time_s = job_time_s(wave.resources, wave.batch.caps, longest)
    limit = {} if time_s is None or longest < 2 else {TIME_LIMIT_VARIABLE: str(time_s)}
    return {
        "PYTHONUNBUFFERED": "1",
        **cluster.environment,
        **wave.batch.environment,
        **limit,
        # the last word: nobody's settings make a job another one
        "MUSTER_PYTHON": cluster.python or sys.executable,
        "MUSTER_JOB": wave.key,
        "MUSTER_BATCH": there(wave.batch.uri),
        "MUSTER_WORK": there(wave.batch.work_uri),
    }


def _target_of(wave: Wave) -> SlurmTarget:
    if not isinstance(wave.batch.target, SlurmTarget):
        raise InvalidInput(
            "the batch was frozen without a place on Slurm",
            where=wave.batch.id,
            got=f"backend {wave.batch.backend}",
            do="plan the run again",
        )
    return wave.batch.target


def _directives(wave: Wave, target: SlurmTarget, slots: int) -> Iterator[tuple[str, str | None]]:
    """List sbatch's options in their order; None stands for an option without a value."""
    key = _checked(_KEY, wave.key, "submission key")
    tasks = plan_tasks(wave.attempts, target.pack)
    yield "job-name", key
    yield "comment", key
    yield "no-requeue", None
    for name in ("partition", "account", "qos", "constraint", "reservation"):
        value = getattr(target, name)
        if value is not None:
            yield name, value
    yield from _sizes(wave, target, max(map(len, tasks), default=0))
    if len(tasks) > 1:
        yield "array", f"0-{len(tasks) - 1}" + (f"%{slots}" if slots < len(tasks) else "")
    if wave.excluded_hosts:
        hosts = dict.fromkeys(wave.excluded_hosts)
        yield "exclude", ",".join(_checked(_HOSTS, host, "host") for host in hosts)
    if any(wave.depends_on.values()):
        yield "dependency", _dependency(wave.depends_on)
        yield "kill-on-invalid-dep", "yes"
    yield "output", "%a.out" if len(tasks) > 1 else "job.out"
    yield "open-mode", "append"
    yield "export", "ALL"  # of who submits, whose environment is bare: see local_commands
    for name, option in sorted(target.options.items()):
        yield name, None if option is True else str(option)


def _sizes(wave: Wave, target: SlurmTarget, longest: int) -> Iterator[tuple[str, str | None]]:
    """List what an array task asks for; `longest` is the most elements that one runs."""
    wants = wave.resources
    gres = _gres(target.gres, wants.gpus)
    if gres:
        yield "gres", gres
    if target.nodes is not None:
        yield "nodes", str(target.nodes)
    if target.ntasks is not None:
        yield "ntasks", str(target.ntasks)
    if target.exclusive:
        yield "exclusive", None
    yield "cpus-per-task", str(wants.cpus)
    if wants.memory_mib is not None:
        yield "mem", f"{wants.memory_mib}M"
    time_s = job_time_s(wants, wave.batch.caps, longest)
    if time_s is not None:
        yield "time", render_time(time_s) if time_s >= 86400 else f"0-{render_time(time_s)}"


def _gres(pool_gres: str | None, gpus: int) -> str:
    entries = pool_gres.split(",") if pool_gres else []
    if gpus and not any(_is_gpu(entry) for entry in entries):
        entries.insert(0, "gpu")
    counted = [f"{entry}:{gpus}" if _is_gpu(entry) else entry for entry in entries]
    return ",".join(entry for entry in counted if gpus or not _is_gpu(entry))


def _is_gpu(entry: str) -> bool:
    return entry.partition(":")[0] == "gpu"


def _dependency(depends_on: Mapping[RequiredEnd, Sequence[str]]) -> str:
    clauses = []
    for end, word in _DEPENDENCIES.items():
        jobs = [_checked(_REFERENCE, job, "job to wait for") for job in depends_on.get(end, ())]
        if jobs:
            clauses.append(":".join([word, *jobs]))
    return ",".join(clauses)


def _checked(pattern: re.Pattern[str], text: str, what: str) -> str:
    """Return a word that can be nothing but itself in a directive."""
    if not pattern.fullmatch(text):
        raise InvalidInput(f"not a {what} that Slurm takes", got=repr(text))
    return text


def _quote(value: str) -> str:
    return "'" + value.replace("'", "'\"'\"'") + "'"
