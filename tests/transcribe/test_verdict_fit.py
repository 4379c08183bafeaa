"""Thresholds from cases."""

from dataclasses import replace

import numpy as np
import pytest

from las.errors import UserError
from las.transcribe.verdict import Evidence, Thresholds
from las.transcribe.verdict_fit import FEW, Case, Score, fit, report, score

FINE = Evidence(5.0, 1.0, 30.0, (0.1, 0.5, 0.9), (False, False, False), 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.9)
CHANGES = {
    "ok": {},
    "silence": {"heard": -5.0, "varies": 2.0},
    "loop": {"places": (0.1,) * 6, "repeated": (False, True, True, True, True, True)},
    "truncated": {"end_nats": 6.0},
    "skipped": {"inside_seconds": 0.5},
    "low": {"confidence": 0.3},
}


def cases(count: int = 5) -> list[Case]:
    """Cases that differ a little from one another."""
    chance = np.random.default_rng(0)
    made = []
    for name, changes in CHANGES.items():
        for _ in range(count):
            one = replace(FINE, **changes)
            nudge = abs(chance.normal(0, 0.05, 3))
            changed = {"heard": one.heard + nudge[0], "end_nats": one.end_nats + nudge[1],
                       "inside_seconds": one.inside_seconds + nudge[2]}  # fmt: skip
            made.append(Case(f"a {name} one", name, replace(one, **changed)))
    return made


def test_what_can_be_told_apart_is():
    by = fit(cases())
    assert all((one.precision, one.recall) == (1.0, 1.0) for one in score(cases(), by))
    assert by.pace == pytest.approx(0.1)
    assert 0.1 < by.repeats < 5.0
    assert 0.1 < by.end_nats < 6.0


def test_one_of_two_kinds_of_evidence_is_enough():
    more = [*cases(), *(Case("by sound", "truncated", replace(FINE, end_seconds=0.6)) for _ in range(5))]
    by = fit(more)
    assert [one.recall for one in score(more, by) if one.verdict == "truncated"] == [1.0]
    assert 0.0 < by.end_seconds <= 0.6


def test_a_report_by_eye():
    assert Score("loop", 4, 2, 1).precision == 0.5
    assert Score("loop", 4, 2, 1).recall == 0.25
    assert Score("loop", 0, 0, 0).precision == Score("loop", 0, 0, 0).recall == 0.0
    found = [Case("plain", "ok", FINE), Case("end cut", "truncated", FINE), Case("misread", "low", FINE)]
    assert list(report("set", found, Thresholds())) == [
        "set: verdicts on 3 cases",
        "verdict    cases  recall  precision",
        "ok             1  100.0%      33.3%",
        "silence        0    0.0%       0.0%",
        "loop           0    0.0%       0.0%",
        "truncated      1    0.0%       0.0%",
        "skipped        0    0.0%       0.0%",
        "low            1    0.0%       0.0%",
        "1 of end cut: ok instead of truncated",
        "1 of misread: ok instead of low",
    ]


def test_a_verdict_without_cases_is_refused():
    with pytest.raises(UserError, match="no case of skipped, low: the verdicts cannot be fitted; give more recordings"):
        fit([one for one in cases() if one.verdict not in ("skipped", "low")])


def test_few_fine_transcripts_are_called_low():
    fine = [Case("plain", "ok", replace(FINE, confidence=one)) for one in np.linspace(0.1, 0.9, 200)]
    bound = fit([*cases(), *fine]).confidence
    assert sum(one.evidence.confidence < bound for one in fine) == pytest.approx(6, abs=1)
    unknown = [replace(one, compared=False) for one in fine]  # what was said in them nobody knows
    assert fit([*cases(), *unknown]).confidence == fit(cases()).confidence > 2 * bound


@pytest.mark.parametrize(("loops", "kept"), [(0, True), (FEW - 1, True), (FEW, False)])
def test_a_model_that_hardly_loops_keeps_the_default_for_loops(loops, kept):
    [loop, *_] = [one for one in cases() if one.verdict == "loop"]
    fitted = fit([*(one for one in cases() if one.verdict != "loop"), *[loop] * loops])
    assert (fitted.repeats == Thresholds().repeats) == kept
    assert fitted.end_nats == fit(cases()).end_nats
