"""Recordings with transcripts -> cases whose verdict is known, each verdict but `ok` at most a tenth of them.

    ok         recordings as they are, with noise, beside a beep, over a constant, cut in the middle, cut close to a
               single sound, and two joined with a long pause: read without a gap
    silence    nothing, noise, hum, tones, notes and clicks (las/recipe/nonspeech.py)
    loop       real transcripts with three or more repeated insertions: of inputs far longer than the model was trained
               on, read in one piece, and by a model from early in a training, with CTC and without
    truncated  the last words of a transcript taken away, in plain and in joined recordings
    skipped    words from its middle taken away
    low        half of the words or more are wrong, none too many or too few; read by the model or by an early one

Words are only taken away where one can tell which: the word beside the gap does not come in what is missing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from las.recipe.nonspeech import KINDS, nonspeech
from las.search.beam import SearchConfig
from las.text.alignment import align
from las.text.normalize import normalize
from las.text.tokenizer import WORD_START
from las.transcribe.recognizer import Recognizer, batches
from las.transcribe.sound import loud_stretches, sounds
from las.transcribe.verdict import BACK, Evidence
from las.transcribe.verdict_fit import Case

MOST = 100  # cases of a verdict; with 30 a single one more or less is three points of recall
OK_SHARE = 5  # cases that are ok for each of another verdict
MADE = 60  # recordings that are changed in each way, joined, or made of what is not speech
BATCH = 60.0  # s decoded at once
NOISE = (5.0, 25.0)  # dB that a recording is louder than the noise added to it
BEEP = (0.15, 0.6)  # s
BEEP_LEVEL = (-10.0, 6.0)  # dB, beside the loudest moment of the recording
OFFSET = (0.02, 0.3)  # of full scale, up or down
PAUSE = (1.0, 3.0)  # s between joined recordings
OVERLONG = (2.0, 4.0)  # times the longest piece that a model reads
OVERLONG_INPUTS = 15
OVERLONG_BEAM = 2  # they are many tokens, and loops most of all
LOOP = 3  # repeated insertions that make a loop
WRONG = 0.5  # share of words that makes a transcript low


@dataclass(frozen=True)
class Heard:
    """A recording and what a model made of it."""

    wave: Tensor  # (N,)
    text: str  # what was said, normalised
    tokens: tuple[int, ...]
    written: str  # what was recognised, normalised
    evidence: Evidence

    @property
    def operations(self) -> list[str]:
        """How what was said became what was written, step by step."""
        return [pair.operation for pair in align(self.text, self.written).pairs]

    @property
    def whole(self) -> bool:
        """Whether a word was written for each that was said."""
        return bool(self.written) and set(self.operations) <= {"equal", "substitution"}

    @property
    def wrong(self) -> float:
        """Share of words that are another's."""
        return self.operations.count("substitution") / max(1, len(self.text.split()))


def make_cases(
    recognizer: Recognizer,
    recordings: Iterable[tuple[Tensor, str]],
    style: str,
    early: Recognizer | None = None,
    seed: int = 0,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> list[Case]:
    """Cases from waves (N,) at the model's rate and what is said in them; `early` reads some of them for loops.

    Of recordings that are not read in one piece no case is made, and none is kept.
    """
    chance = np.random.default_rng(seed)
    most = recognizer.whole * recognizer.rate
    short = [(wave, said) for wave, text in recordings if (said := normalize(text, style)) and len(wave) <= most]
    short = [short[number] for number in chance.permutation(len(short))]
    if not short:
        return []
    made: dict[str, list[Case]] = {}
    search = recognizer.search
    plain = _read(recognizer, short, search, style)
    progress(1, 5)
    joined = _read(recognizer, _joined(short, recognizer, chance), search, style)
    changed = {}
    for kind, change in CHANGES.items():
        some = [(change(wave, recognizer.rate, chance), text) for wave, text in short[:MADE]]
        changed[kind] = _read(recognizer, some, search, style)
    parts = [(_half(wave, chance), _closest(wave, recognizer.rate)) for wave, _ in short[:MADE]]
    halves, close = (
        _read(recognizer, [(wave, "") for wave in waves], search, style) for waves in zip(*parts, strict=True)
    )
    progress(2, 5)
    made["truncated"] = [*_cut(recognizer, plain, "end", chance), *_cut(recognizer, joined, "end", chance)]
    made["skipped"] = _cut(recognizer, plain, "middle", chance)
    progress(3, 5)
    made["silence"] = list(_silences(recognizer, style, chance))
    guessed, alone = ([], []) if early is None else _read_twice(early, short, early.search, style)
    made["low"] = [
        Case("misread", "low", one.evidence)
        for one in (*plain, *changed["noisy"], *joined, *guessed)
        if one.whole and one.wrong >= WRONG
    ]
    progress(4, 5)
    models = [recognizer] if early is None else [recognizer, early]
    made["loop"] = [
        *_loops(guessed, "early"),
        *_loops(alone, "early, no CTC"),
        *_overlong(models, short, style, chance),
    ]
    ok = [
        Case(kind, "ok", one.evidence)
        for kind, heard in {"plain": plain, "joined": joined, **changed}.items()
        for one in heard
        if one.whole and one.wrong < WRONG
    ]
    ok += [
        Case(kind, "ok", one.evidence, compared=False)
        for kind, heard in (("cut in the middle", halves), ("one sound", close))
        for one in heard
        if one.written
    ]
    progress(5, 5)
    return list(_portions(made, ok, chance))


def _portions(made: dict[str, list[Case]], ok: Sequence[Case], chance: np.random.Generator) -> Iterator[Case]:
    """At most `MOST` of each verdict, and five times as many that are ok, by chance; some models hardly ever loop."""
    count = min(MOST, len(ok) // OK_SHARE)
    for cases, wanted in (*((own, count) for own in made.values()), (ok, OK_SHARE * count)):
        for number in chance.permutation(len(cases))[:wanted]:
            yield cases[number]


def _read(
    recognizer: Recognizer, recordings: Sequence[tuple[Tensor, str]], search: SearchConfig, style: str
) -> list[Heard]:
    """What a model makes of recordings, each in one piece."""
    return _read_by([search], recognizer, recordings, style)[0]


def _read_twice(
    recognizer: Recognizer, recordings: Sequence[tuple[Tensor, str]], search: SearchConfig, style: str
) -> list[list[Heard]]:
    """The same with CTC in the search as it is, and without."""
    return _read_by([search, replace(search, ctc_weight=0.0)], recognizer, recordings, style)


def _read_by(
    searches: Sequence[SearchConfig], recognizer: Recognizer, recordings: Sequence[tuple[Tensor, str]], style: str
) -> list[list[Heard]]:
    """What each search makes of recordings, which are listened to once."""
    found: list[list[Heard | None]] = [[None] * len(recordings) for _ in searches]
    for numbers in batches([len(wave) / recognizer.rate for wave, _ in recordings], BATCH):
        waves = [recordings[number][0] for number in numbers]
        with torch.no_grad():
            hearings = recognizer.hear(waves, searches[0])
            for search, row in zip(searches, found, strict=True):
                tokens = [one[0].tokens if one else () for one in recognizer.spell(hearings, search)]
                weighed = recognizer.weigh(hearings[0], tokens, waves)
                for number, own, (evidence, _) in zip(numbers, tokens, weighed, strict=True):
                    wave, text = recordings[number]
                    written = normalize(recognizer.tokenizer.decode(own), style)
                    row[number] = Heard(wave, text, own, written, evidence)
    return [[one for one in row if one is not None] for row in found]


def _weigh(recognizer: Recognizer, waves: Sequence[Tensor], tokens: Sequence[Sequence[int]]) -> list[Evidence]:
    """Evidence of transcripts that were not searched for."""
    found: list[Evidence | None] = [None] * len(waves)
    for numbers in batches([len(wave) / recognizer.rate for wave in waves], BATCH):
        own = [waves[number] for number in numbers]
        with torch.no_grad():
            weighed = recognizer.weigh(recognizer.listen(own), [tokens[number] for number in numbers], own)
        for number, (evidence, _) in zip(numbers, weighed, strict=True):
            found[number] = evidence
    return [one for one in found if one is not None]


def _cut(recognizer: Recognizer, heard: Sequence[Heard], where: str, chance: np.random.Generator) -> list[Case]:
    """Transcripts with words taken from their end or middle."""
    waves, kept = [], []
    for one in heard:
        words = _words(recognizer, one.tokens)
        if not one.whole or one.wrong >= WRONG or len(words) < (2 if where == "end" else 3):
            continue
        first = int(chance.integers(1, len(words) - (where == "middle")))  # of the words that are taken
        last = len(words) if where == "end" else int(chance.integers(first + 1, len(words)))
        texts = [recognizer.tokenizer.decode(word) for word in words]
        beside = {texts[first - 1], *texts[last : last + 1], *texts[-1:] * (where == "middle")}
        if beside.isdisjoint(texts[first:last]):
            waves.append(one.wave)
            kept.append(tuple(itertools.chain(*words[:first], *words[last:])))
    verdict = "truncated" if where == "end" else "skipped"
    return [Case(f"{where} cut", verdict, evidence) for evidence in _weigh(recognizer, waves, kept)]


def _words(recognizer: Recognizer, tokens: Sequence[int]) -> list[tuple[int, ...]]:
    """The tokens of each word."""
    words: list[list[int]] = []
    for token, piece in zip(tokens, recognizer.tokenizer.pieces(tokens), strict=True):
        if piece.startswith(WORD_START) or not words:
            words.append([])
        words[-1].append(token)
    return [tuple(word) for word in words]


def _half(wave: Tensor, chance: np.random.Generator) -> Tensor:
    return wave[: max(1, int(len(wave) * chance.uniform(0.3, 0.7)))]


def _noisy(wave: Tensor, rate: int, chance: np.random.Generator) -> Tensor:
    noise = torch.from_numpy(nonspeech(str(chance.choice(["white", "pink", "brown"])), len(wave) / rate, rate, chance))
    level = wave.square().mean().sqrt() / noise.square().mean().sqrt() / 10 ** (chance.uniform(*NOISE) / 20)
    return (wave + level * noise).clamp(-1.0, 1.0)


def _beeped(wave: Tensor, rate: int, chance: np.random.Generator) -> Tensor:
    """With a beep before it or after it, which no word stands for."""
    time = torch.arange(round(chance.uniform(*BEEP) * rate), dtype=torch.float64) / rate
    beep = torch.sin(2 * math.pi * chance.uniform(300.0, 0.3 * rate) * time)
    beep = (wave.abs().max() * 10 ** (chance.uniform(*BEEP_LEVEL) / 20) * beep).to(wave.dtype)
    pause = torch.zeros(round(chance.uniform(0.1, 0.5) * rate))
    parts = [beep, pause, wave] if chance.random() < 0.5 else [wave, pause, beep]
    return torch.cat(parts).clamp(-1.0, 1.0)


def _shifted(wave: Tensor, rate: int, chance: np.random.Generator) -> Tensor:
    """Over a constant, as cheap microphones add."""
    return wave + float(chance.choice([-1.0, 1.0]) * chance.uniform(*OFFSET))


CHANGES = {"noisy": _noisy, "beside a beep": _beeped, "over a constant": _shifted}


def _closest(wave: Tensor, rate: int) -> Tensor:
    """The longest sound of a recording, without what is around it."""
    found = sounds(loud_stretches(wave, rate))
    start, end = max(found, key=lambda one: one[1] - one[0], default=(0.0, len(wave) / rate))
    return wave[int(start * rate) : math.ceil(end * rate)]


def _joined(
    recordings: Sequence[tuple[Tensor, str]], recognizer: Recognizer, chance: np.random.Generator
) -> list[tuple[Tensor, str]]:
    """Two recordings with a long pause between them, as far as that is no longer than one piece."""
    found: list[tuple[Tensor, str]] = []
    for (first, said), (second, then) in itertools.pairwise(
        sorted(recordings[: 4 * MADE], key=lambda one: len(one[0]))
    ):
        pause = torch.zeros(round(chance.uniform(*PAUSE) * recognizer.rate))
        wave = torch.cat([first, pause, second])
        if len(wave) <= recognizer.whole * recognizer.rate and len(found) < MADE:
            found.append((wave, f"{said} {then}"))
    return found


def _silences(recognizer: Recognizer, style: str, chance: np.random.Generator) -> Iterator[Case]:
    sounds = []
    for kind, _ in zip(itertools.cycle(KINDS), range(MADE), strict=False):
        seconds = chance.uniform(min(1.0, recognizer.whole), recognizer.whole)
        sounds.append((kind, torch.from_numpy(nonspeech(kind, seconds, recognizer.rate, chance))))
    heard = _read(recognizer, [(wave, "") for _, wave in sounds], recognizer.search, style)
    for (kind, _), one in zip(sounds, heard, strict=True):
        yield Case(kind, "silence", one.evidence)


def _overlong(
    models: Sequence[Recognizer],
    recordings: Sequence[tuple[Tensor, str]],
    style: str,
    chance: np.random.Generator,
) -> list[Case]:
    """Loops of models that read many recordings as one, with CTC in the search and without."""
    inputs = []
    for _ in range(OVERLONG_INPUTS):
        wanted = chance.uniform(*OVERLONG) * models[0].whole * models[0].rate
        chosen: list[tuple[Tensor, str]] = []
        while wanted > 0:
            chosen.append(recordings[int(chance.integers(len(recordings)))])
            wanted -= len(chosen[-1][0])
        inputs.append((torch.cat([wave for wave, _ in chosen]), " ".join(text for _, text in chosen)))
    found: list[Case] = []
    for model in models:
        search = replace(model.search, beam=min(OVERLONG_BEAM, model.search.beam))
        for heard in _read_twice(model, inputs, search, style):
            found += _loops(heard, "too long")
    return found


def _loops(heard: Sequence[Heard], kind: str) -> Iterator[Case]:
    return (Case(kind, "loop", one.evidence) for one in heard if _repeated_insertions(one) >= LOOP)


def _repeated_insertions(one: Heard) -> int:
    """Words that were put in and are one of those just before them."""
    written: list[str] = []
    count = 0
    for pair in align(one.text, one.written).pairs:
        if pair.operation != "deletion":
            count += pair.operation == "insertion" and pair.hypothesis in written[-BACK:]
            written.append(pair.hypothesis)
    return count
