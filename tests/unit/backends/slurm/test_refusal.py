"""What sbatch says when it takes no job: real words of Slurm 22.05, and of sites' own plugins."""

from __future__ import annotations

import pytest

from muster.backends.remote.transport import Answer
from muster.backends.slurm.refusal import classify_refusal, refusal_line

FAILED = "sbatch: error: Batch job submission failed: "
POLICY = (
    f"{FAILED}Job violates accounting/QOS policy (job submit limit, user's size and/or time "
    "limits)\n"
)
MUNGE = (
    "sbatch: error: If munged is up, restart with --num-threads=10\n"
    'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2": No such '
    "file or directory (Did you start munged?)\n"
    "sbatch: error: slurm_send_node_msg: auth_g_create: REQUEST_SUBMIT_BATCH_JOB has "
    "authentication error\n"
    f"{FAILED}Protocol authentication error\n"
)
RETRIED = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
USAGE = "sbatch: unrecognized option '--nope'\nTry \"sbatch --help\" for more information\n"
NO_CONFIG = (
    "sbatch: error: s_p_parse_file: cannot stat file /etc/slurm/slurm.conf: No such file or "
    "directory, retrying in 1sec up to 60sec\n"
)


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        (f"{FAILED}Invalid partition name specified\n", "refused"),
        (f"{FAILED}Invalid account or account/partition combination specified\n", "refused"),
        (f"{FAILED}Invalid qos specification\n", "refused"),
        (f"{FAILED}Requested node configuration is not available\n", "refused"),
        (f"{FAILED}Invalid job array specification\n", "refused"),
        (f"{FAILED}Invalid feature specification\n", "refused"),
        (f"{FAILED}Invalid node name specified\n", "refused"),
        (f"{FAILED}Requested reservation is invalid\n", "refused"),
        (f"{FAILED}Job dependency problem\n", "refused"),
        (f"sbatch: error: name an account\n{FAILED}Unspecified error\n", "refused"),
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}", "refused"),
        (POLICY, "refused"),
        (f"{RETRIED}{FAILED}Invalid qos specification\n", "refused"),
        (USAGE, "refused"),
        (f"sbatch: error: AssocGrpSubmitJobsLimit\n{POLICY}", "busy"),
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}", "busy"),
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}", "busy"),
        (f"sbatch: error: QOSGrpSubmitJobsLimit\n{POLICY}", "busy"),
        (RETRIED, "busy"),
        (f"{RETRIED}{FAILED}Resource temporarily unavailable\n", "busy"),
        (f"{FAILED}Unable to create job record, try again\n", "busy"),
        (f"{FAILED}System submissions disabled\n", "busy"),
        (f"{FAILED}Required partition not available (inactive or drain)\n", "busy"),
        (f"{FAILED}Unable to contact slurm controller (connect failure)\n", "unreachable"),
        (f"{FAILED}Socket timed out on send/recv operation\n", "unreachable"),
        (f"{FAILED}Zero Bytes were transmitted or received\n", "unreachable"),
        (f"{FAILED}Slurm backup controller in standby mode\n", "unreachable"),
        (f"{RETRIED}{FAILED}Socket timed out on send/recv operation\n", "unreachable"),
        (MUNGE, "unreachable"),
        (NO_CONFIG, "unreachable"),
        ("", "unreachable"),
    ],
)
def test_a_refusal_is_for_good_or_for_now_or_unknown(stderr: str, expected: str) -> None:
    assert classify_refusal(Answer(1, "", stderr)) == expected


@pytest.mark.parametrize("exit_code", [137, 143])
def test_an_sbatch_that_was_killed_may_have_submitted(exit_code: int) -> None:
    assert classify_refusal(Answer(exit_code, "", "Terminated\n")) == "unreachable"


def test_an_option_that_sbatch_does_not_know_is_refused() -> None:
    assert classify_refusal(Answer(255, "", USAGE)) == "refused"


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        (
            f"sbatch: error: invalid partition specified: nope\n{FAILED}Invalid partition name "
            "specified\n",
            "Invalid partition name specified: invalid partition specified: nope",
        ),
        (f"{FAILED}Invalid qos specification\n", "Invalid qos specification"),
        (f"{RETRIED}{FAILED}Invalid qos specification\n", "Invalid qos specification"),
        (USAGE, "unrecognized option '--nope'"),
        ("sbatch: fatal: a\x1b[31m\tb\n", "a [31m b"),
        ("", "sbatch gave no reason"),
    ],
)
def test_a_person_reads_one_line(stderr: str, line: str) -> None:
    assert refusal_line(stderr) == line
