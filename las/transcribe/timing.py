"""Tokens of a transcript and where they were found -> words and their times in the recording.

Words. A piece that begins with the word mark begins a word, in Hangul as in Latin script. Scripts that set no space
between words (Han, kana, Thai, Lao, Khmer, Burmese) have none to find: each of their characters, with the marks that
belong to it, is timed as a word of its own, and a piece of several is divided evenly.

Times. CTC says in which listener frames the tokens of a word are; without CTC, or without an alignment, attention's
peaks do. That is where the word certainly is, not where it begins and ends: a token that stands for a whole word is
heard in one frame of it, and listener frames are 40 to 80 ms long. The edges come from the loudness of the recording,
in steps of 5 ms: between two words, the longest stretch no louder than the noise is the pause, and where there is none
they meet at the quietest place. LEVEL, FLOOR and SMOOTH were chosen on 200 training strings of five speakers of
egs/digits (half of them with noise between the words), and judged on the sixth.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np
from torch import Tensor

from las.search.trace import Trace
from las.text.normalize import nfc
from las.text.tokenizer import WORD_START

STEP = 0.005  # s, in which loudness is measured
SMOOTH = 3  # steps over which it is averaged
FLOOR = 10  # percent of a piece's steps that are taken for noise
LEVEL = 6.0  # dB above them where speech begins
SILENCE = -90.0  # dB, below which all is the same
SHORTEST = 0.03  # s, of a pause
ATTACHED = ("Mn", "Mc", "Me", "Po", "Pe", "Pf")  # marks, and what closes: they go with the character before them
SPACELESS = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")  # Unicode names begin so


@dataclass(frozen=True)
class Word:
    """A word of a transcript."""

    text: str
    start: float  # s, from the beginning of the recording
    end: float
    confidence: float  # probability that it is right; how good a one, see las/transcribe/confidence.py
    spaced: bool = True  # white space stands before it, unless it comes first
    evidence: tuple[float, ...] = ()  # what its confidence is made of


@dataclass(frozen=True)
class Spelled:
    """A word and the tokens that spell it. A place counts tokens: 2.5 is the middle of the third."""

    text: str
    first: float  # place of what begins it
    last: float  # place of what ends it
    spaced: bool  # as in `Word`


def units(text: str) -> list[str]:
    """The words of a text without spaces in it: characters of scripts that set none, and what is between them.

    >>> units("las로"), units("今日は、LAS")
    (['las로'], ['今', '日', 'は、', 'LAS'])
    """
    found: list[str] = []
    after_spaceless = False
    for sign in text:
        if found and unicodedata.category(sign) in ATTACHED:
            found[-1] += sign
            continue
        spaceless = unicodedata.name(sign, "").startswith(SPACELESS)
        if not found or spaceless or after_spaceless:
            found.append(sign)
        else:
            found[-1] += sign
        after_spaceless = spaceless
    return found


def spelled_words(pieces: Sequence[str]) -> list[Spelled]:
    """The words that pieces spell; joined, with spaces where `spaced` says so, they are the tokenizer's text.

    >>> [(word.text, word.first, word.last) for word in spelled_words(["▁on", "e", "▁", "t", "wo"])]
    [('one', 0.5, 1.5), ('two', 3.5, 4.5)]
    """
    words: list[Spelled] = []
    spaced = True
    for token, piece in enumerate(pieces):
        for run in re.split(f"({WORD_START})", piece):
            if run in (WORD_START, ""):
                spaced = spaced or run == WORD_START
                continue
            found = units(run)
            places = [token + (number + 0.5) / len(found) for number in range(len(found))]
            if words and not spaced and len(units(words[-1].text + found[0])) == 1:  # the last word goes on
                words[-1] = replace(words[-1], text=words[-1].text + found.pop(0), last=places.pop(0))
            for text, place in zip(found, places, strict=True):
                words.append(Spelled(text, place, place, spaced))
                spaced = False
    return [replace(word, text=nfc(word.text)) for word in words]


def word_times(
    words: Sequence[Spelled], found: Trace, wave: Tensor, rate: int, frame: float
) -> list[tuple[float, float]]:
    """Start and end of each word in s from the beginning of `wave` (N,); `frame` s is a listener frame's length.

    They never run backwards, overlap or leave the wave.
    """
    if not words:
        return []
    seconds = len(wave) / rate
    hop = max(1, round(STEP * rate))
    step = hop / rate
    levels = loudness(wave - wave.median(), hop)  # cheap microphones add a constant, which pauses show plainest
    loud = levels >= noise_edge(levels)
    tokens = _token_times(found, seconds, frame)
    inside = [
        [min(len(levels), int(_time(tokens, place) / step)) for place in (word.first, word.last)] for word in words
    ]
    head = _pause(loud, 0, inside[0][0])
    tail = _pause(loud, inside[-1][1], len(levels))
    starts, ends = [head[1] if head else 0], []
    for (_, last), (first, _) in pairwise(inside):
        quietest = last + int(levels[last:first].argmin()) if first > last else first
        end, start = _pause(loud, last, first) or (quietest, quietest)
        ends.append(end)
        starts.append(start)
    ends.append(tail[0] if tail else len(levels) + 1)  # what does not fill a step is the last word's
    return [(min(seconds, start * step), min(seconds, end * step)) for start, end in zip(starts, ends, strict=True)]


def _token_times(found: Trace, seconds: float, frame: float) -> list[tuple[float, float]]:
    """Seconds, first and last, in which each token was heard, in order."""
    if found.spans is not None:
        return [(first * frame, (last + 1) * frame) for first, last in found.spans]
    count = len(found.weights) - 1
    if not bool((found.weights[:-1] > 0).any()):  # no attention either: evenly
        return [(number * seconds / count, (number + 1) * seconds / count) for number in range(count)]
    times = []
    for peak, group in groupby(np.maximum.accumulate(found.peaks).tolist()):  # those of one frame share it
        many = len(list(group))
        times += [((peak + number / many) * frame, (peak + (number + 1) / many) * frame) for number in range(many)]
    return times


def _time(tokens: Sequence[tuple[float, float]], place: float) -> float:
    first, last = tokens[int(place)]
    return first + place % 1 * (last - first)


def loudness(wave: Tensor, hop: int, smooth: int = SMOOTH) -> np.ndarray:
    """Loudness in dB of each step of `hop` samples, a tail shorter than that left out."""
    steps = len(wave) // hop
    power = wave[: steps * hop].double().view(steps, hop).square().mean(1).numpy()
    if steps:
        power = np.convolve(np.pad(power, smooth // 2, mode="edge"), np.full(smooth, 1 / smooth), "valid")
    return 10 * np.log10(np.maximum(power, 10 ** (SILENCE / 10)))


def noise_edge(levels: np.ndarray) -> float:
    """What is louder is no noise, in dB; where nothing stands out from the rest there is no telling, and all counts."""
    floor = float(np.percentile(levels, FLOOR)) if len(levels) else 0.0
    return floor + LEVEL if len(levels) and levels.max() > floor + 2 * LEVEL else -np.inf


def _pause(loud: np.ndarray, first: int, last: int) -> tuple[int, int] | None:
    """The longest stretch of steps between two that is not loud; None where none is long enough for a pause."""
    flags = np.concatenate([[0], ~loud[first:last], [0]]).astype(int)
    begins, ends = np.flatnonzero(np.diff(flags) > 0), np.flatnonzero(np.diff(flags) < 0)
    if len(begins) == 0:
        return None
    longest = int((ends - begins).argmax())
    if (ends - begins)[longest] * STEP < SHORTEST:
        return None
    return first + int(begins[longest]), first + int(ends[longest])
