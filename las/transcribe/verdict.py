"""Where a transcript's tokens are and what was heard between them -> whether the transcript can be believed.

    silence    there is no speech to read: nothing is written of it
    loop       tokens repeat while attention does not move on
    truncated  there is speech after the last token
    skipped    there is speech between two tokens, or before the first
    low        the scores of the tokens are low
    ok         none of these

The first that holds is the verdict. `weigh` makes numbers of a piece, `judge` holds them against thresholds, which are
fitted on cases whose verdict is known (`las doctor verdicts`) and lie in the model folder's `calibration.json`. Speech
that no token stands for is found twice: by CTC, in nats that it costs to call those frames blank, and by loudness, in
seconds of sound from pause to pause that no token lies in. A model without CTC or without attention is judged by what
it has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from torch import Tensor

from las.errors import UserError
from las.search.trace import Trace
from las.transcribe.confidence import log_odds
from las.transcribe.fitted import FILE, read_section, write_section
from las.transcribe.sound import loud_stretches, only_clicks, sounds, stillness, variation

VERDICTS = ("ok", "silence", "loop", "truncated", "skipped", "low")
SECTION = "verdicts"  # of calibration.json
NEAR = 0.5  # s; CTC's alignment has a token no further than that from its attention, or pays
BACK = 4  # a token repeats when it is one of so many before it
AUDIBLE = 0.05  # probability of any token from which a frame counts as heard
TOUCH = 0.04  # s that a token may lie outside a sound and still stand for it
TELLING = 0.2  # s of a sound whose stillness counts for the piece: a beep beside speech does not make it a tone
STEADY = 5.0  # stillness of a sound; words of egs/digits reach 3.9, beeps 6.8 and more
READ = 0.3  # attention, of one token's, that a sound must get to count as read where there is no CTC
VARIES = 30.0  # dB beyond which more variation says no more
SURE = 7.0  # log-odds beyond which CTC says no more


@dataclass(frozen=True)
class Thresholds:
    """What decides a verdict. The defaults: the four weights of speech lie between those fitted for `english` and for
    `digits`; the others are of models of egs/digits, rounded, pace, inside_seconds and confidence more lenient, for
    speech not said word by word."""

    heard_weight: float = 0.4  # log-odds of speech for each of CTC's log-odds of some token where it is surest
    still_weight: float = -2.9  # log-odds of speech for each unit of stillness
    varies_weight: float = 0.38  # log-odds of speech for each dB of variation
    bias: float = -0.3  # log-odds of speech besides
    speech: float = 0.0  # log-odds of speech below which it is silence
    pace: float = 0.04  # s that attention moves on for each token at least, where it does move on
    repeats: float = 3.8  # repeated tokens, less those that attention moved on for, from which it is a loop
    end_nats: float = 2.3  # speech that CTC hears after the last token, from which it is truncated
    end_seconds: float = 0.33  # s of sound after the last token, from which it is truncated
    inside_nats: float = 4.4  # the same between tokens and before the first, from which it is skipped
    inside_seconds: float = 0.5
    confidence: float = 0.2  # probability of a token, the mean by log-odds, below which it is low

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not math.isfinite(value):
                raise UserError(f"{name} {value} must be a finite number")
        if self.pace <= 0:
            raise UserError(f"pace {self.pace} s must be above 0")


@dataclass(frozen=True)
class Evidence:
    """What a piece and its transcript give a verdict to go by; places are s from the beginning of the piece."""

    heard: float  # log-odds that CTC gives any token in the frame where it is surest; 0 without CTC
    still: float  # stillness of the sound that stands least still, or of all where none stands out
    varies: float  # dB
    places: tuple[float, ...]  # where attention was for each token, or CTC where there is none
    repeated: tuple[bool, ...]  # whether each token is one of those just before it
    end: float  # where the last token ends
    end_nats: float
    end_seconds: float
    inside: float  # where the speech that was skipped begins
    inside_nats: float
    inside_seconds: float
    confidence: float  # mean of the tokens' probabilities, CTC's and the speller's, by log-odds; 1 without tokens
    clicks: bool = False  # nothing in it that is louder than the rest lasts longer than a click

    def speech(self, by: Thresholds) -> float:
        """Log-odds of there being speech.

        Those of the transcript count too where CTC hears something and it is more likely right than not: a word that
        was cut out tightly may vary as little as noise does.
        """
        if self.clicks:
            return -math.inf
        read = max(0.0, log_odds(self.confidence)) if self.places and self.heard > 0 else 0.0
        signal = by.still_weight * self.still + by.varies_weight * self.varies
        return by.bias + by.heard_weight * self.heard + signal + read

    def repeats(self, pace: float) -> tuple[float, float]:
        """Most repeated tokens in a row that attention did not move on for, and the place of the first.

        A token that attention moved on `pace` s for makes up for one that was repeated.
        """
        best, count, place, began = 0.0, 0.0, 0.0, 0.0
        furthest = self.places[0] if self.places else 0.0
        for here, again in zip(self.places[1:], self.repeated[1:], strict=True):
            if count == 0.0:
                began = furthest
            count = max(0.0, count + again - max(0.0, here - furthest) / pace)
            furthest = max(furthest, here)
            if count > best:
                best, place = count, began
        return best, place


@dataclass(frozen=True)
class Verdict:
    """Whether a transcript can be believed, and why not."""

    name: str = "ok"  # one of `VERDICTS`
    place: float = 0.0  # s, where what is wrong begins
    reason: str = ""

    def __str__(self) -> str:
        return self.name if self.name == "ok" else f"{self.name} at {self.place:.1f} s: {self.reason}"


OK = Verdict()


def judge(found: Evidence, by: Thresholds) -> Verdict:
    """The verdict on a piece; places are s from its beginning."""
    if found.speech(by) < by.speech:
        return Verdict("silence", 0.0, "no speech to read")
    repeats, place = found.repeats(by.pace)
    if repeats >= by.repeats:
        return Verdict("loop", place, "tokens repeat while attention does not move on")
    if found.end_nats >= by.end_nats or found.end_seconds >= by.end_seconds:
        where = "speech after the last word" if found.places else "speech, and no word was written"
        return Verdict("truncated", found.end, where)
    if found.inside_nats >= by.inside_nats or found.inside_seconds >= by.inside_seconds:
        return Verdict("skipped", found.inside, "speech that no word stands for")
    if found.confidence < by.confidence:
        return Verdict("low", 0.0, f"confidence {found.confidence:.2f}")
    return OK


def weigh(
    tokens: Sequence[int], found: Trace, wave: Tensor, rate: int, frame: float, ctc: Tensor | None, blank: int
) -> Evidence:
    """Evidence of a transcript of `wave` (N,): its trace, and CTC's log-probabilities (S, V) where the model has them.

    `frame` s is a listener frame's length. All lie on the CPU.
    """
    means = found.means if bool((found.weights > 0).any()) else None
    spans = found.spans
    placed = means is not None or ctc is not None  # else nobody knows which sound a token stands for
    silent = None if ctc is None else ctc[:, blank].double().numpy()  # (S,)
    frames = found.weights.shape[1] if silent is None else len(silent)
    if means is None:
        means = [first for first, _ in spans] if spans else [0.0] * len(tokens)
    if spans is None:  # too many tokens for CTC, or no CTC: attention knows best
        spans = [(round(one), round(one)) for one in means]
    standing_out = loud_stretches(wave, rate)
    stretches = sounds(standing_out)
    still = [stillness(wave[int(start * rate) : math.ceil(end * rate)], rate) for start, end in stretches]
    telling = [value for (start, end), value in zip(stretches, still, strict=True) if end - start >= TELLING]
    speech = [one for one, value in zip(stretches, still, strict=True) if placed and value < STEADY]
    read = _read_by_attention(found, speech, frame) if silent is None else None
    end = (max(last for _, last in spans) + 1) * frame if spans else 0.0
    costs = np.zeros(frames) if silent is None else _costs(silent)
    gaps = _gaps(spans, frames)
    inside_nats, inside_frame = max(((costs[a:b].sum(), a) for a, b in gaps[:-1]), default=(0.0, 0))
    unread = [one for place, one in enumerate(speech) if not _is_read(one, spans, frame, read, place)]
    after = [one for one in unread if one[0] > end - frame / 2]
    before = [one for one in unread if one not in after]
    longest = max(before, key=lambda one: one[1] - one[0], default=(0.0, 0.0))
    loud = longest[1] > longest[0]
    return Evidence(
        0.0 if silent is None else _most_heard(silent),
        min(telling) if telling else stillness(wave, rate),
        min(VARIES, variation(wave, rate)),
        tuple(one * frame for one in means),
        tuple(placed and token in tokens[max(0, place - BACK) : place] for place, token in enumerate(tokens)),
        min(end, len(wave) / rate),
        float(costs[slice(*gaps[-1])].sum()),
        sum((b - a for a, b in after), 0.0),
        longest[0] if loud else inside_frame * frame,
        float(inside_nats),
        longest[1] - longest[0],
        _confidence(found),
        only_clicks(standing_out),
    )


def _gaps(spans: Sequence[tuple[int, int]], frames: int) -> list[tuple[int, int]]:
    """First and past-last frame before each token and, last, after them; a token's neighbours in time are its own."""
    edges = [-2, *(edge for span in spans for edge in span), frames + 1]
    return [(last + 2, max(last + 2, first - 1)) for last, first in zip(edges[::2], edges[1::2], strict=True)]


def _costs(silent: np.ndarray) -> np.ndarray:
    """Nats that it costs to call a frame blank (S,), from blank's log-probabilities; 0 where little was heard."""
    return np.where(1 - np.exp(silent) >= AUDIBLE, -silent, 0.0)


def _most_heard(silent: np.ndarray) -> float:
    """Log-odds of some token in the frame where blank is least likely."""
    if len(silent) == 0:
        return -SURE
    least = min(float(silent.min()), -1e-12)
    return max(-SURE, min(SURE, math.log(-math.expm1(least)) - least))


def _read_by_attention(found: Trace, speech: Sequence[tuple[float, float]], frame: float) -> list[bool]:
    """Whether attention was in each of some stretches."""
    total = found.weights[:-1].double().sum(0).numpy()  # (S,)
    return [total[int(start / frame) : math.ceil(end / frame)].sum() >= READ for start, end in speech]


def _is_read(
    one: tuple[float, float], spans: Sequence[tuple[int, int]], frame: float, read: Sequence[bool] | None, place: int
) -> bool:
    """Whether a token stands for a stretch of sound."""
    if read is not None:
        return read[place]
    start, end = one[0] - TOUCH, one[1] + TOUCH
    return any((first + 0.5) * frame <= end and (last + 0.5) * frame >= start for first, last in spans)


def _confidence(found: Trace) -> float:
    odds = [log_odds(math.exp(one)) for one in (*found.spoken, *(found.heard or ()))]
    return 1 / (1 + math.exp(-sum(odds) / len(odds))) if odds else 1.0


def read_thresholds(folder: Path) -> Thresholds:
    """Those of a model folder; where it has none, the defaults."""
    record = read_section(folder, SECTION)
    if record is None:
        return Thresholds()
    try:
        return Thresholds(**{one.name: float(record[one.name]) for one in fields(Thresholds)})
    except (KeyError, TypeError, ValueError, UserError) as error:
        found = f" ({error})" if isinstance(error, UserError) else ""
        raise UserError(
            f"{folder / FILE}: {SECTION} are no thresholds of `las doctor verdicts`{found}; fit them again"
        ) from None


def write_thresholds(folder: Path, fitted: Thresholds, facts: dict[str, object]) -> None:
    """Put thresholds into a model folder, with `facts` on how they were fitted."""
    write_section(folder, SECTION, {**asdict(fitted), **facts})
