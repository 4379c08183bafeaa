"""Hypotheses of two systems or more for the same references -> is one better than the first, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from las.errors import UserError
from las.evaluate.breakdown import Record, format_interval, format_rate, interval_caution, rates
from las.evaluate.folder import sclite_scores
from las.evaluate.score import SetScore, UtteranceScore, first_ids, score, with_missing
from las.evaluate.significance import (
    DRAWS,
    FEW_SEGMENTS,
    LEVEL,
    MatchedPairs,
    PairedBootstrap,
    Units,
    holm,
    matched_pairs,
    paired_bootstrap,
)
from las.evaluate.texts import read_pair, read_texts

ALPHA = 1 - LEVEL
SHOWN = 10  # changed utterances on the screen


@dataclass(frozen=True)
class Comparison:
    """System B against system A, the first one."""

    name: str  # of B
    bootstrap: PairedBootstrap
    matched: MatchedPairs
    p: tuple[float, float]  # of the bootstrap and of the matched pairs, made larger where several B are compared
    changed: tuple[tuple[UtteranceScore, UtteranceScore], ...]  # A and B, what changed most first


@dataclass(frozen=True)
class Systems:
    """All systems of a comparison; the first is A."""

    names: tuple[str, ...]
    scores: tuple[SetScore, ...]
    units: Units
    comparisons: tuple[Comparison, ...]


def compare(scores: Mapping[str, SetScore], speakers: Mapping[str, str]) -> Systems:
    """Compare every further system with the first; `speakers` are by utterance id, as far as they are known.

    Raises UserError where there are fewer than two systems or their references differ.
    """
    if len(scores) < 2:
        raise UserError("nothing to compare: give the hypotheses of two systems or more")
    (first, a), *others = scores.items()
    units = Units.of([speakers.get(one.id) for one in a.utterances])
    pairs = [_paired(first, a, name, b) for name, b in others]
    drawn = [_bootstrap(one, units) for one in pairs]
    matched = [matched_pairs(one) for one in pairs]
    adjusted = zip(holm([one.p for one in drawn]), holm([one.p for one in matched]), strict=True)
    comparisons = [
        Comparison(name, bootstrap, test, p, _changed(both))
        for (name, _), bootstrap, test, p, both in zip(others, drawn, matched, adjusted, pairs, strict=True)
    ]
    return Systems(tuple(scores), tuple(scores.values()), units, tuple(comparisons))


def compare_files(paths: Sequence[Path], reference: Path | None, style: str, allow_missing: bool) -> Systems:
    """Compare files of hypotheses; without `reference`, with the references that stand in them."""
    if len({str(path) for path in paths}) < len(paths):
        raise UserError("nothing to compare: a file is named twice")
    if allow_missing and reference is None:
        raise UserError("--allow-missing needs the utterances there are; name them with --reference")
    scores: dict[str, SetScore] = {}
    speakers: dict[str, str] = {}
    for path in paths:
        if reference is not None:
            references, hypotheses = read_pair(reference, path)
            texts = references.texts
            speakers |= references.speakers
        else:
            hypotheses = read_texts(path)
            texts = hypotheses.references
            if len(texts) < len(hypotheses.texts):
                raise UserError(f"{path}: holds no references; name them with --reference")
        speakers = {**hypotheses.speakers, **speakers}
        heard = with_missing(texts, hypotheses.texts)[0] if allow_missing else hypotheses.texts
        scores[str(path)] = score(texts, heard, style)
    return compare(scores, speakers)


def _paired(first: str, a: SetScore, name: str, b: SetScore) -> list[tuple[UtteranceScore, UtteranceScore]]:
    """The utterances of both by id, in A's order."""
    by_id = {one.id: one for one in b.utterances}
    alone = [one.id for one in a.utterances if one.id not in by_id]
    ours = {one.id for one in a.utterances}
    alone += [id for id in by_id if id not in ours]
    if alone:
        raise UserError(f"{first} and {name} are not of the same utterances ({first_ids(alone)} stand in one only)")
    pairs = [(one, by_id[one.id]) for one in a.utterances]
    differing = [one.id for one, other in pairs if one.reference != other.reference]
    if differing:
        raise UserError(
            f"{first} and {name} were scored against different references ({first_ids(differing)}); "
            "name the right ones with --reference"
        )
    return pairs


def _bootstrap(pairs: Sequence[tuple[UtteranceScore, UtteranceScore]], units: Units) -> PairedBootstrap:
    figures = np.array(
        [(a.alignment.counts.errors, b.alignment.counts.errors, a.alignment.counts.reference) for a, b in pairs]
    )
    return paired_bootstrap(figures, units)


def _changed(
    pairs: Sequence[tuple[UtteranceScore, UtteranceScore]],
) -> tuple[tuple[UtteranceScore, UtteranceScore], ...]:
    changed = [(a, b) for a, b in pairs if a.hypothesis != b.hypothesis]
    return tuple(sorted(changed, key=lambda pair: -abs(gain(*pair))))


def gain(a: UtteranceScore, b: UtteranceScore) -> int:
    """Errors that B has fewer than A in an utterance."""
    return a.alignment.counts.errors - b.alignment.counts.errors


def verdict(one: Comparison, first: str) -> str:
    """What the two tests allow one to say, and no more."""
    by_bootstrap, by_pairs = (p < ALPHA for p in one.p)
    if by_bootstrap and by_pairs:
        which = "better" if one.matched.mean < 0 else "worse"
        return f"{one.name} is {which} than {first}: both tests say so (p < {ALPHA:.2f})."
    if by_bootstrap or by_pairs:
        which = "the paired bootstrap" if by_bootstrap else "the matched-pairs test"
        return f"No difference shown: {which} alone finds one (p < {ALPHA:.2f}), the other does not."
    return "No difference shown. That does not show that there is none: a larger test set may."


def text_lines(systems: Systems, most: int | None = None) -> Iterator[str]:
    """The comparison for people, with at most `most` of the changed utterances of each system."""
    first = systems.names[0]
    for letter, name, system in zip(_letters(systems), systems.names, systems.scores, strict=True):
        rate = rates(system.utterances, systems.units)["wer"]
        yield f"{letter}\t{name}\tWER {format_rate(rate)}\t95% {format_interval(rate)} ({systems.units})"
    yield f"style {systems.scores[0].style}, on both sides; bootstrap: {DRAWS} draws over {systems.units}"
    if caution := interval_caution(str(systems.units)):
        yield f"caution: {caution}"
    for letter, one in zip(_letters(systems)[1:], systems.comparisons, strict=True):
        yield ""
        yield from _figures(letter, one, len(systems.comparisons))
        yield verdict(one, first)
        better, worse = (sum(sign * gain(*pair) > 0 for pair in one.changed) for sign in (1, -1))
        same = len(one.changed) - better - worse
        total = len(systems.scores[0].utterances)
        yield f"{len(one.changed)} of {total} utterances changed: {better} better, {worse} worse, {same} as many errors"
        for a, b in one.changed[:most]:
            yield from ("", f"id: {a.id}", f"A {sclite_scores(a.alignment)}", str(a.alignment))
            yield from (f"{letter} {sclite_scores(b.alignment)}", str(b.alignment))
        if most is not None and len(one.changed) > most:
            yield from ("", f"... and {len(one.changed) - most} more; all of them with --output-dir")


def _letters(systems: Systems) -> list[str]:
    return [chr(ord("A") + number) if number < 26 else f"#{number + 1}" for number in range(len(systems.names))]


def _figures(letter: str, one: Comparison, comparisons: int) -> Iterator[str]:
    bootstrap, matched = one.bootstrap, one.matched
    if bootstrap.difference is None or bootstrap.interval is None:
        yield f"{letter} - A: undefined, the references have no words"
    else:
        low, high = (100 * end for end in bootstrap.interval)
        yield f"{letter} - A: {100 * bootstrap.difference:+.2f} points, 95% {low:+.2f} to {high:+.2f}"
    ahead = f"{letter} makes fewer errors in {bootstrap.better:.1%} of the draws, ties halved"
    yield f"paired bootstrap: {ahead}, {_p(one.p[0])}"
    few = f"; fewer than {FEW_SEGMENTS} segments, so p is rough" if matched.segments < FEW_SEGMENTS else ""
    yield f"matched pairs (MAPSSWE): {matched.segments} segments with errors, z = {matched.z:.2f}, {_p(one.p[1])}{few}"
    if comparisons > 1:
        yield f"p of {comparisons} comparisons, adjusted by Holm's method"


def _p(value: float) -> str:
    return f"p = {value:.4f}" if value >= 0.0001 else "p < 0.0001"


def comparison_record(systems: Systems) -> Record:
    """The comparison in plain values, as compare.json holds it."""
    return {
        "format": 1,
        "style": systems.scores[0].style,
        "interval_over": str(systems.units),
        "draws": DRAWS,
        "systems": [
            {"name": name, "wer": rates(score.utterances, systems.units)["wer"]}
            for name, score in zip(systems.names, systems.scores, strict=True)
        ],
        "comparisons": [_comparison(systems.names[0], one) for one in systems.comparisons],
    }


def _comparison(first: str, one: Comparison) -> Record:
    interval = one.bootstrap.interval
    return {
        "a": first,
        "b": one.name,
        "verdict": verdict(one, first),
        "bootstrap": {
            "difference": one.bootstrap.difference,
            "interval": None if interval is None else list(interval),
            "better": one.bootstrap.better,
            "p": one.bootstrap.p,
            "p_adjusted": one.p[0],
        },
        "matched_pairs": {
            "segments": one.matched.segments,
            "mean": one.matched.mean,
            "z": one.matched.z,
            "p": one.matched.p,
            "p_adjusted": one.p[1],
        },
        "changed": [
            {
                "id": a.id,
                "reference": a.reference,
                "a": a.hypothesis,
                "b": b.hypothesis,
                "errors_a": a.alignment.counts.errors,
                "errors_b": b.alignment.counts.errors,
            }
            for a, b in one.changed
        ],
    }
