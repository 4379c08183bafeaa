"""A scored set -> the record that report.json holds and that report.txt and report.html are written from.

Plain values only. Rates come with the counts they are made of; the set and each speaker also with the interval of a
bootstrap (`las.evaluate.significance`). Buckets hold a quarter of the utterances each, as far as equal values allow.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from las.evaluate.score import SetScore, UtteranceScore, first_ids, format_counts
from las.evaluate.significance import FEW_UNITS, Units, middle_of, ratio, redrawn
from las.text.alignment import LETTERS, ErrorCounts

Record = dict[str, Any]
QUARTERS = (0.25, 0.5, 0.75)
CONFUSIONS = 200  # of a kind, most frequent first
UNKNOWN = "(unknown)"  # the speaker of utterances that name none
KINDS = ("substitution", "deletion", "insertion")


def set_record(
    score: SetScore,
    speakers: Mapping[str, str],
    seconds: Mapping[str, float],
    verdicts: Mapping[str, str] | None = None,
) -> Record:
    """What can be told of a scored set; `speakers`, `seconds` and `verdicts` are by id, as far as they are known."""
    utterances = score.utterances
    units = Units.of([speakers.get(one.id) for one in utterances])
    record: Record = {"style": score.style, "utterances": len(utterances), "interval_over": str(units)}
    record |= rates(utterances, units)
    by_speaker: dict[str, list[UtteranceScore]] = defaultdict(list)
    for one in utterances if speakers else ():
        by_speaker[speakers.get(one.id, UNKNOWN)].append(one)
    record["speakers"] = [
        {"name": name, "utterances": len(theirs), **rates(theirs, Units.of([None] * len(theirs)))}
        for name, theirs in by_speaker.items()
    ]
    timed = [one for one in utterances if one.id in seconds]
    record["buckets"] = {
        "length, words": _quarters(utterances, lambda one: one.alignment.counts.reference, "{:.0f}"),
        "length, seconds": _quarters(timed, lambda one: seconds[one.id], "{:.2f}"),
        "rate, characters a second": _quarters(timed, lambda one: one.characters.reference / seconds[one.id], "{:.1f}"),
    }
    by_verdict: dict[str, list[UtteranceScore]] = defaultdict(list)
    for one in utterances if verdicts else ():
        by_verdict[(verdicts or {}).get(one.id, UNKNOWN)].append(one)
    record["verdicts"] = [
        {"name": name, "utterances": len(theirs), **rates(theirs)}
        for name, theirs in sorted(by_verdict.items(), key=lambda item: -len(item[1]))
    ]
    record["confusions"] = confusions(utterances)
    record["aligned"] = [_aligned(one, speakers.get(one.id), seconds.get(one.id)) for one in utterances]
    return record


def rates(utterances: Sequence[UtteranceScore], units: Units | None = None) -> Record:
    """WER and CER of some utterances, with intervals where `units` says what to draw and there are two at least."""
    intervals: list[tuple[float, float] | None] = [None, None]
    if units is not None and units.count > 1:
        figures = np.array(
            [
                (one.alignment.counts.errors, one.alignment.counts.reference,
                 one.characters.errors, one.characters.reference)
                for one in utterances
            ]
        )  # fmt: skip
        sums = redrawn(units.summed(figures))
        intervals = [middle_of(ratio(sums[:, errors], sums[:, errors + 1])) for errors in (0, 2)]
    words = sum((one.alignment.counts for one in utterances), ErrorCounts())
    characters = sum((one.characters for one in utterances), ErrorCounts())
    return {
        name: {
            "rate": counts.rate,
            "substitutions": counts.substitutions,
            "deletions": counts.deletions,
            "insertions": counts.insertions,
            "reference": counts.reference,
            "interval": None if interval is None else list(interval),
        }
        for name, counts, interval in (("wer", words, intervals[0]), ("cer", characters, intervals[1]))
    }


def _quarters(
    utterances: Sequence[UtteranceScore], value: Callable[[UtteranceScore], float], shown: str
) -> list[Record]:
    """Utterances in the order of a value, cut at its quartiles; equal values stay together."""
    if not utterances:
        return []
    values = np.array([value(one) for one in utterances], dtype=np.float64)
    # a bucket ends with the quartile itself, which is one of the values
    edges = np.unique([*np.quantile(values, QUARTERS, method="lower"), values.max()])
    places = np.searchsorted(edges, values, side="left")
    found = []
    for place in range(len(edges)):
        inside = np.flatnonzero(places == place)
        low, high = (shown.format(edge) for edge in (values[inside].min(), values[inside].max()))
        name = low if low == high else f"{low}-{high}"
        found.append({"name": name, "utterances": len(inside), **rates([utterances[int(number)] for number in inside])})
    return found


def confusions(utterances: Iterable[UtteranceScore]) -> Record:
    """The most frequent errors of each kind: reference, hypothesis and how often, the more frequent first."""
    counted: dict[str, Counter[tuple[str, str]]] = {kind: Counter() for kind in KINDS}
    for one in utterances:
        for pair in one.alignment.pairs:
            if pair.operation != "equal":
                counted[pair.operation][pair.reference, pair.hypothesis] += 1
    ordered = {kind: sorted(found.items(), key=lambda item: (-item[1], item[0])) for kind, found in counted.items()}
    return {f"{kind}s": [[*words, times] for words, times in found[:CONFUSIONS]] for kind, found in ordered.items()}


def _aligned(one: UtteranceScore, speaker: str | None, seconds: float | None) -> Record:
    """An utterance; `operations` has a sign for each step of the alignment: = S D I."""
    return {
        "id": one.id,
        "speaker": speaker,
        "seconds": None if seconds is None else round(seconds, 3),
        "reference": one.reference,
        "hypothesis": one.hypothesis,
        "operations": "".join(LETTERS[pair.operation] or "=" for pair in one.alignment.pairs),
        "character_errors": one.characters.errors,
        "characters": one.characters.reference,
    }


def format_rate(rate: Record) -> str:
    """A rate of a record with its counts.

    >>> format_rate({"substitutions": 0, "deletions": 0, "insertions": 1, "reference": 0})
    'undefined (S 0 D 0 I 1 / N 0)'
    """
    return format_counts(ErrorCounts(**{name: rate[name] for name in (*(f"{kind}s" for kind in KINDS), "reference")}))


def format_interval(rate: Record) -> str:
    """The bounds in per cent.

    >>> format_interval({"interval": [0.0123, 0.02]}), format_interval({"interval": None})
    ('1.23-2.00%', 'undefined')
    """
    if rate["interval"] is None:
        return "undefined"
    low, high = (100 * end for end in rate["interval"])
    return f"{low:.2f}-{high:.2f}%"


def facts(one: Record) -> Iterator[tuple[str, str]]:
    """A set's figures by name, as people read them."""
    for name in ("wer", "cer"):
        interval = f"95% {format_interval(one[name])} over {one['interval_over']}"
        yield name.upper(), f"{format_rate(one[name])}, {interval}"
    if caution := interval_caution(one["interval_over"]):
        yield "caution", caution
    if one["speakers"] and not units_are_speakers(one["interval_over"]):
        yield "caution", "not every speaker is known, or there is only one: the interval is over utterances"
    if one["wer"]["rate"] == 0.0:
        yield "caution", "where no error was seen, a bootstrap cannot tell how far the true rate is from 0"
    yield "style", f"{one['style']}, on both sides"
    yield "utterances", str(one["utterances"])
    if one["audio_seconds"]:
        yield "audio", f"{one['audio_seconds'] / 60:.1f} min"
    if one["real_time_factor"]:
        yield "real-time factor", f"{one['real_time_factor']:.3f} ({one['seconds']:.1f} s of work)"
    yield "model" if one["decoding"] else "hypotheses", one["model"]
    if one["decoding"]:
        yield "decoding", one["decoding"]
    if found := one["reliability"]:
        apart = "" if found["separation"] is None else f", AUC {found['separation']:.3f}"
        yield "confidence", f"ECE {found['error']:.1%}{apart}, of {found['words']} words"
    if one["missing"]:
        yield "without hypothesis, counted as deleted", f"{len(one['missing'])}: {first_ids(one['missing'])}"


def interval_caution(units: str) -> str:
    """What to bear in mind of an interval over so many units.

    >>> interval_caution("3 speakers"), interval_caution("300 speakers")
    ('3 speakers are few: the true interval is wider than the one shown', '')
    """
    if 1 < int(units.split()[0]) < FEW_UNITS:
        return f"{units} are few: the true interval is wider than the one shown"
    return ""


def units_are_speakers(units: str) -> bool:
    """Whether an interval is over speakers, from what it says it is over."""
    return "speaker" in units
