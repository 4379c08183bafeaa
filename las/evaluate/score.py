"""References and hypotheses by utterance id -> error counts of the set and of each utterance.

Pairs are made by id, never by line number; both sides go through the same text style; an empty hypothesis is a
hypothesis.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from las.errors import UserError
from las.text.alignment import Alignment, ErrorCounts, align
from las.text.normalize import nfc, style_named

SHOWN_IDS = 10  # how many missing ids an error names
CHARACTER = "code points of the NFC text without its spaces; a Hangul syllable is one"  # what CER counts


@dataclass(frozen=True)
class UtteranceScore:
    id: str
    reference: str  # in the style it was scored in
    hypothesis: str
    alignment: Alignment  # of words
    characters: ErrorCounts


@dataclass(frozen=True)
class SetScore:
    """What `score` found: the summed counts, and the utterances in the order of the references."""

    counts: ErrorCounts  # of words
    characters: ErrorCounts
    utterances: tuple[UtteranceScore, ...]
    style: str


def score(references: Mapping[str, str], hypotheses: Mapping[str, str], style: str = "basic") -> SetScore:
    """Score id -> text against id -> text. A text that is empty in this style is scored like any other.

    Raises UserError where an id is on one side only, where there is no utterance and for an unknown style.

    >>> found = score({"a": "One, two.", "b": "Three"}, {"a": "one too", "b": ""})
    >>> format_counts(found.counts), format_counts(found.characters)
    ('66.67% (S 1 D 1 I 0 / N 3)', '54.55% (S 1 D 5 I 0 / N 11)')
    """
    normalized = style_named(style)
    _check_ids(references, hypotheses)
    utterances = []
    for id, reference in references.items():
        reference, hypothesis = normalized(reference), normalized(hypotheses[id])
        alignment = align(reference, hypothesis)
        characters = align(reference, hypothesis, "character").counts
        utterances.append(UtteranceScore(id, reference, hypothesis, alignment, characters))
    counts = sum((utterance.alignment.counts for utterance in utterances), ErrorCounts())
    characters = sum((utterance.characters for utterance in utterances), ErrorCounts())
    return SetScore(counts, characters, tuple(utterances), style)


def with_missing(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Hypotheses with an empty one for each reference that has none, and those ids: their words count as deleted."""
    missing = [id for id in references if id not in hypotheses]
    return {**hypotheses, **dict.fromkeys(missing, "")}, missing


def _check_ids(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> None:
    unheard = [id for id in references if id not in hypotheses]
    unasked = [id for id in hypotheses if id not in references]
    complaints = []
    if unheard:
        complaints.append(f"{len(unheard)} of {len(references)} references have no hypothesis ({first_ids(unheard)})")
    if unasked:
        complaints.append(f"{len(unasked)} of {len(hypotheses)} hypotheses have no reference ({first_ids(unasked)})")
    if complaints:
        told = f"{' and '.join(complaints)}; to be scored, an id must stand on both sides"
        raise UserError(told + _alike(unheard, unasked))
    if not references:
        raise UserError("nothing to score: no utterance on either side")


def _alike(unheard: list[str], unasked: list[str]) -> str:
    """What is to be said where ids look the same: macOS decomposes Hangul in file names (NFD)."""
    both = {nfc(id) for id in unheard} & {nfc(id) for id in unasked}
    return f"; {len(both)} differ only in how Unicode writes them (NFC, NFD)" if both else ""


def first_ids(ids: list[str]) -> str:
    """As many ids as a line holds."""
    return ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")


def format_counts(counts: ErrorCounts) -> str:
    """The rate with what it is made of, as a table shows it.

    >>> format_counts(ErrorCounts(substitutions=10, deletions=2, insertions=1, reference=106))
    '12.26% (S 10 D 2 I 1 / N 106)'
    """
    rate = "undefined" if counts.rate is None else f"{counts.rate:.2%}"
    return f"{rate} (S {counts.substitutions} D {counts.deletions} I {counts.insertions} / N {counts.reference})"
