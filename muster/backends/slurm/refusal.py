"""Why sbatch did not take a job: for good, for now, or nobody knows.

The three ask for different things.  What was refused for good fails the wave; what was refused for
now is submitted again later; and where the answer may be lost, the job may run, and is looked up
by its key before anything is submitted again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from muster.errors import one_line

if TYPE_CHECKING:
    from muster.backends.remote.transport import Answer

Refusal = Literal["refused", "busy", "unreachable"]

_VERDICT = re.compile(r"submission failed: (.*)")
_PREFIX = re.compile(r"^(?:sbatch: )?(?:(?:error|fatal): )?")
_POLICY = "Job violates accounting/QOS policy"
_SUBMIT_LIMIT = re.compile(r"\b(?:Assoc|QOS)\w*SubmitJob\w*Limit\b")
_BUSY = re.compile(
    r"temporarily unable to accept job|job queue full|Job creation temporarily disabled"
    r"|Unable to create job record, try again|Resource temporarily unavailable"
    r"|submissions disabled|operation is presently disabled|Partition in DOWN state"
    r"|Required partition not available|reservation not usable now"
    r"|Job update not available right now",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"Unable to contact slurm controller|timed out|Zero Bytes were transmitted|Connection re"
    r"|Communication (?:connection|shutdown) failure|Message (?:send|receive) failure"
    r"|Received zero length message|Failed to send entire message|missing socket|No route to host"
    r"|Network is|Transport endpoint|Broken pipe|authentication error|authentication credential"
    r"|authentication agent|\bmunge|standby|Incompatible versions|Unexpected message received"
    r"|Header lengths|Insane message length|Can't find an address|configuration source"
    r"|cannot stat file|Unable to resolve|Temporary failure",
    re.IGNORECASE,
)
_NOISE = re.compile(r"sleeping and retrying|retrying in|If munged is up|^Try \"sbatch")


def classify_refusal(answer: Answer) -> Refusal:
    """Tell what an sbatch that did not succeed means for the job.

    Returns
    -------
    {"refused", "busy", "unreachable"}
        Refused for good; surely not taken, and worth another try later; or not known.
    """
    text = answer.stderr
    verdicts = _VERDICT.findall(text)
    if verdicts:  # before it, sbatch may have tried again: its last word is what counts
        if _POLICY in verdicts[-1]:
            return "busy" if _SUBMIT_LIMIT.search(text) else "refused"
        return _classify(verdicts[-1])
    if answer.exit_code == 0 or not text.strip() or 128 < answer.exit_code < 128 + 65:
        return "unreachable"  # no word of it, or killed on its way
    return _classify(text)


def refusal_line(stderr: str) -> str:
    """Return the one line that a person needs of what sbatch has said."""
    verdicts = _VERDICT.findall(stderr)
    details = [
        one_line(_PREFIX.sub("", line.strip()))
        for line in stderr.splitlines()
        if line.strip() and not _VERDICT.search(line) and not _NOISE.search(line)
    ]
    told = "; ".join(dict.fromkeys(details))
    if not verdicts:
        return told or "sbatch gave no reason"
    verdict = one_line(verdicts[-1])
    return f"{verdict}: {told}" if told else verdict


def _classify(text: str) -> Refusal:
    if _UNREACHABLE.search(text):
        return "unreachable"
    return "busy" if _BUSY.search(text) else "refused"
