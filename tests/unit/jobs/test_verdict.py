"""What a run has come to, judged from its elements alone."""

from __future__ import annotations

from muster.jobs.runs.verdict import judge
from muster.store.runs import ElementStatus


def status(group: str, step: str, state: str, message: str | None = None) -> ElementStatus:
    return ElementStatus(
        step=f"traits.{step}", group=group, name=group, state=state, reason=None, batch_id=None,
        attempts=1, host=None, seconds=None, max_rss_mib=None, message=message, log_uri=None,
    )  # fmt: skip


def trait(name: str, predict: str, cov: str, aoa: str, build: str) -> list[ElementStatus]:
    states = zip(("predict", "cov", "aoa", "build"), (predict, cov, aoa, build), strict=True)
    return [status(name, step, state) for step, state in states]


WHOLE = trait("a", "succeeded", "reused", "not_asked", "succeeded")
NO_MODEL = trait("b", *["missing_input"] * 4)
NO_AOA = trait("c", "succeeded", "succeeded", "software_error", "succeeded")


def test_each_group_is_judged_by_itself() -> None:
    verdict = judge([*WHOLE, *NO_MODEL, *NO_AOA], planned=True)
    assert [(g.name, g.state) for g in verdict.groups] == [
        ("a", "succeeded"),
        ("b", "missing_input"),
        ("c", "failed"),
    ]
    assert not verdict.good
    assert verdict.summary.startswith("1 of 2 succeeded")


def test_what_has_no_input_does_not_count_against_the_quorum() -> None:
    assert judge([*WHOLE, *NO_MODEL], planned=True).good


def test_a_run_in_which_nothing_succeeded_is_never_good() -> None:
    assert not judge(NO_MODEL, planned=True, quorum=0.0).good
    assert not judge([], planned=True).good


def test_the_quorum_decides() -> None:
    assert judge([*WHOLE, *NO_AOA], planned=True, quorum=0.5).good
    assert not judge([*WHOLE, *NO_AOA], planned=True, quorum=0.51).good


def test_without_a_plan_there_is_no_success() -> None:
    assert not judge(WHOLE, planned=False).good


def test_what_has_not_ended_is_no_success() -> None:
    for state in ("pending", "running", "cancelled", "lost"):
        assert not judge(
            trait("a", "succeeded", "succeeded", state, "succeeded"), planned=True
        ).good


def test_it_says_trait_by_trait_why() -> None:
    bad = [*trait("a", "succeeded", "succeeded", "reused", "succeeded")[:3],
           status("a", "build", "transient", "disk full; where: /x")]  # fmt: skip
    text = judge(bad, planned=True).describe()
    assert "a: failed: predict succeeded, cov succeeded, aoa reused, build transient" in text
    assert "disk full; where: /x" in text
