"""Cases whose verdict is known -> the thresholds that tell them apart, and how well: precision and recall.

One verdict after another, in the order in which `judge` asks: each threshold is put where precision and recall of its
verdict are best together (F1; F.5 for `low`) among the cases that the verdicts before it leave. Places are tried in
equal ratios, and of those that are equally good the middle one is taken. `low` is for what no case foresees too, such
as music or a language that the model was not taught, so that it is bounded by what it says of fine transcripts alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from las.errors import UserError
from las.transcribe.confidence import logistic
from las.transcribe.verdict import VERDICTS, Evidence, Thresholds, judge

PACE_SHARE = 0.25  # of the usual move of attention for a token: what moves on less does not move on
TRIED = 40  # places of a threshold that are tried
FEW = 10  # loops below which what tells them stays as it is: one alone would be worth any number of false ones
LOW_BETA = 0.5  # recall of `low` counts half of precision: fine strings that it is given to are too many as it is
LOW_FALSE = 0.03  # share of transcripts that are fine that are `low` at most
RANGE = 100.0  # times the lowest of them that the highest is


@dataclass(frozen=True)
class Case:
    """A piece with a transcript that deserves a verdict."""

    kind: str  # how it was made
    verdict: str
    evidence: Evidence
    compared: bool = True  # its words were held against what was said; of a part of a recording nobody knows that


@dataclass(frozen=True)
class Score:
    """How one verdict was given."""

    verdict: str
    cases: int  # that deserve it
    given: int  # that got it
    right: int

    @property
    def precision(self) -> float:
        """Share of right ones among those given; 0 where none was."""
        return self.right / self.given if self.given else 0.0

    @property
    def recall(self) -> float:
        """Share of those that deserve it that got it; 0 where none does."""
        return self.right / self.cases if self.cases else 0.0


def fit(cases: Sequence[Case]) -> Thresholds:
    """Thresholds for `judge`. Raises `UserError` where a verdict has no case.

    Loops may be few or none, as many a model never loops: what tells them then stays the default.
    """
    of = {name: [one.evidence for one in cases if one.verdict == name] for name in VERDICTS}
    if missing := [name for name, own in of.items() if not own and name != "loop"]:
        raise UserError(
            f"no case of {', '.join(missing)}: the verdicts cannot be fitted; give more recordings, or a model from "
            "early in a training (--early)"
        )
    asked = [one for one in cases if not one.evidence.clicks]  # clicks are silence, whatever the weights
    inputs = np.array([(one.evidence.heard, one.evidence.still, one.evidence.varies) for one in asked])
    spoken = np.array([one.verdict != "silence" for one in asked], dtype=float)
    heard, still, varies, bias = (float(one) for one in logistic(inputs, spoken))
    by = Thresholds(heard_weight=heard, still_weight=still, varies_weight=varies, bias=bias)
    by = replace(by, pace=_pace(of["ok"], by.pace))
    rest = [*of["truncated"], *of["skipped"], *of["low"], *of["ok"]]
    if len(of["loop"]) >= FEW:
        by = replace(by, repeats=_best_above(of["loop"], rest, lambda one: one.repeats(by.pace)[0]))
    nats, seconds = _best_either(
        of["truncated"], rest[len(of["truncated"]) :], lambda one: (one.end_nats, one.end_seconds)
    )
    by = replace(by, end_nats=nats, end_seconds=seconds)
    nats, seconds = _best_either(
        of["skipped"], [*of["low"], *of["ok"]], lambda one: (one.inside_nats, one.inside_seconds)
    )
    by = replace(by, inside_nats=nats, inside_seconds=seconds)
    fine = [one.evidence for one in cases if one.verdict == "ok" and one.compared]
    return replace(by, confidence=_doubt(of["low"], fine)) if fine else by


def score(cases: Sequence[Case], by: Thresholds) -> list[Score]:
    """Of each verdict, in the order of `VERDICTS`."""
    pairs = [(one.verdict, judge(one.evidence, by).name) for one in cases]
    return [
        Score(
            name,
            sum(wanted == name for wanted, _ in pairs),
            sum(given == name for _, given in pairs),
            sum(wanted == given == name for wanted, given in pairs),
        )
        for name in VERDICTS
    ]


def report(name: str, cases: Sequence[Case], by: Thresholds) -> Iterator[str]:
    """Lines for people: precision and recall of each verdict, and what was taken for what."""
    yield f"{name}: verdicts on {len(cases)} cases"
    yield "verdict    cases  recall  precision"
    for one in score(cases, by):
        yield f"{one.verdict:9}  {one.cases:5}  {one.recall:6.1%}  {one.precision:9.1%}"
    wrong = Counter(
        (one.kind, one.verdict, given) for one in cases if (given := judge(one.evidence, by).name) != one.verdict
    )
    for (kind, wanted, given), times in sorted(wrong.items(), key=lambda item: -item[1]):
        yield f"{times} of {kind}: {given} instead of {wanted}"


def _pace(fine: Sequence[Evidence], otherwise: float) -> float:
    """Seconds that attention moves on for a token where it does move on, from transcripts that are fine."""
    steps = [step for one in fine for step in np.diff(one.places)]
    usual = float(np.median(steps)) if steps else 0.0
    return PACE_SHARE * usual if usual > 0 else otherwise


def _doubt(low: Sequence[Evidence], fine: Sequence[Evidence]) -> float:
    """The confidence below which a transcript is `low`."""
    best = 1 - _best_above(low, fine, lambda one: 1 - one.confidence, LOW_BETA)
    return min(best, float(np.quantile([one.confidence for one in fine], LOW_FALSE)))


def _best_above(
    wanted: Sequence[Evidence], others: Sequence[Evidence], value: Callable[[Evidence], float], beta: float = 1.0
) -> float:
    """The threshold that `value` of the wanted reaches and that of the others does not."""
    return _best_either(wanted, others, lambda one: (value(one), 0.0), beta)[0]


def _best_either(
    wanted: Sequence[Evidence],
    others: Sequence[Evidence],
    values: Callable[[Evidence], tuple[float, float]],
    beta: float = 1.0,
) -> tuple[float, float]:
    """Two thresholds, one of which at least the wanted reach; recall counts `beta` times as much as precision."""
    good, bad = (np.array([values(one) for one in group]).reshape(-1, 2) for group in (wanted, others))
    places = [_places(np.concatenate([good[:, side], bad[:, side]])) for side in (0, 1)]
    reached = [  # for each pair of thresholds, (T, T)
        ((group[:, 0] >= places[0][:, None])[:, None] | (group[:, 1] >= places[1][:, None])[None]).sum(2)
        for group in (good, bad)
    ]
    score = (1 + beta**2) * reached[0] / (beta**2 * len(good) + reached[0] + reached[1])  # F (T, T)
    rows, columns = np.nonzero(score >= score.max() - 1e-12)
    row = rows[len(rows) // 2]
    column = np.sort(columns[rows == row])[(rows == row).sum() // 2]
    return float(places[0][row]), float(places[1][column])


def _places(values: np.ndarray) -> np.ndarray:
    """Thresholds up to above the greatest of values (N,)."""
    greatest = float(values.max(initial=0.0)) * 1.01 or 1.0
    return np.geomspace(greatest / RANGE, greatest, TRIED)
