"""Manifests and shards -> what is odd in them: recordings, texts and splits that will harm training or its figures.

Nothing is judged by one number alone where corpora differ: durations and speaking rates are compared with those of
the set itself, by their distance from the median in logarithms, in units of the median distance on that side (after
Leys et al. 2013, Detecting outliers: use absolute deviation around the median).
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from las import audio
from las.data.manifest import read_manifest
from las.data.shards import Entry, Index, holds_shards, read_index, read_sample
from las.errors import UserError
from las.text.normalize import is_invisible, nfc
from las.text.tokenizer import Tokenizer

FAR = 6.0  # median distances from the median, from where a duration or a speaking rate is odd
CLOSE = 0.1  # least median distance, in logarithms: sets that are all alike have no outliers
CLIPPED = 0.001  # share of samples at full scale
FULL_SCALE = 0.999
OFFSET = 0.01  # mean of the samples
QUIET = -50.0  # dB of full scale: the loudest 25 ms are below that
SILENT = 0.8  # share of 25 ms windows that lie `BELOW` dB under the loudest
BELOW = 50.0
MUTED = -48.0  # dB, all above half the band against all below it: it was recorded at half the rate
RARE = 2  # times that a character comes in a set of more than `MANY` characters
MANY = 10_000
JOINERS = "\u200b\u200c\u200d"  # signs nobody sees that scripts have a use for: Khmer, Persian, Hindi
SHOWN = 3  # cases of a finding that the text names


@dataclass(frozen=True)
class Facts:
    """What is measured of one utterance; only `problem` is set where it cannot be read."""

    set: str
    id: str
    text: str
    speaker: str | None
    problem: str = ""
    seconds: float = 0.0
    rate: int = 0  # Hz
    clipped: float = 0.0  # share of samples at full scale
    offset: float = 0.0  # mean of the samples
    level: float = 0.0  # dB of full scale, of the loudest 25 ms
    silent: float = 0.0  # share of 25 ms windows that are silent beside the loudest
    treble: float = 0.0  # dB, upper half of the band against the lower
    fingerprint: bytes = b""  # of the samples: BLAKE2b, 128 bits; CRC-32 takes some pairs of 280,000 for the same


@dataclass(frozen=True)
class Case:
    """One utterance, or what it shares with others, that a finding is about."""

    set: str
    id: str
    detail: str


def examine(
    sets: Mapping[str, str | Path],
    tokenizer: Tokenizer | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, object]:
    """A report on named sets, shards or manifests: {"sets": what they hold, "findings": cause -> cases}.

    Every recording is decoded, by `workers` threads; `progress(done, total)` is called after each. Findings about
    characters the `tokenizer` cannot write come only where one is given. Raises `UserError` where a set cannot be read
    at all.
    """
    reads = [read for name, path in sets.items() for read in _reads(name, path)]
    facts: list[Facts] = []
    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(reads)
        while some := [pool.submit(read) for read in islice(waiting, 16 * workers)]:
            for future in some:
                facts.append(future.result())
                if progress is not None:
                    progress(len(facts), len(reads))
    findings: dict[str, list[Case]] = defaultdict(list)
    for name in sets:
        own = [one for one in facts if one.set == name]
        for cause, case in [*_recordings(own), *_texts(own, tokenizer)]:
            findings[cause].append(case)
    for cause, case in _shared(facts):
        findings[cause].append(case)
    return {
        "sets": {name: _summary([one for one in facts if one.set == name]) for name in sets},
        "findings": {cause: [asdict(case) for case in cases] for cause, cases in sorted(findings.items())},
    }


def render(report: Mapping[str, object]) -> str:
    """The report for people: a paragraph a set, a line a finding with its first cases."""
    sets, findings = report["sets"], report["findings"]
    assert isinstance(sets, dict)
    assert isinstance(findings, dict)
    lines = []
    for name, summary in sets.items():
        lines.append(f"{name}: {', '.join(f'{key} {value}' for key, value in summary.items())}")
    lines.append("")
    for cause, cases in findings.items():
        shown = "; ".join(
            f"{case['set']} {_printable(case['id'])}{' ' * bool(case['detail'])}{_printable(case['detail'])}"
            for case in cases[:SHOWN]
        )
        lines.append(f"{cause}: {len(cases)} ({shown}{'; ...' if len(cases) > SHOWN else ''})")
    return "\n".join(lines if findings else [*lines, "nothing odd was found"])


def _printable(text: str) -> str:
    """Text as it is, or quoted where it would break the line or turn its direction."""
    return text if text.isprintable() else repr(text)


def to_json(report: Mapping[str, object]) -> str:
    return json.dumps(report, ensure_ascii=False, indent=1) + "\n"


# -------------------------------------------------------------------------------------------------------- measuring


def _reads(name: str, path: str | Path) -> Iterator[Callable[[], Facts]]:
    """What measures each utterance of a set, when called."""
    if not holds_shards(path):
        for utterance in read_manifest(path, check_audio=False):
            known = Facts(name, utterance.id, nfc(utterance.text), utterance.speaker)
            yield partial(_measure, known, utterance.audio)
        return
    index = read_index(path)
    for entry in index.entries:
        yield partial(_measure_sample, name, index, entry)


def _measure_sample(name: str, index: Index, entry: Entry) -> Facts:
    try:
        sample = read_sample(index, entry)
    except UserError as error:
        return Facts(name, entry.id, "", None, str(error))
    return _measure(Facts(name, sample.id, nfc(sample.text), sample.speaker), sample.audio_bytes)


def _measure(known: Facts, source: str | bytes) -> Facts:
    try:
        rate = audio.probe(source).rate
        wave = audio.load(source, rate)  # (N,)
    except UserError as error:
        return replace(known, problem=str(error))
    levels = _levels(wave, rate)  # (windows,) dB
    loudest = float(levels.max())
    return replace(
        known,
        seconds=len(wave) / rate,
        rate=rate,
        clipped=float((wave.abs() >= FULL_SCALE).float().mean()),
        offset=float(wave.mean()),
        level=loudest,
        silent=float((levels < loudest - BELOW).float().mean()),
        treble=_treble(wave),
        fingerprint=blake2b(wave.numpy().tobytes(), digest_size=16).digest(),
    )


def _levels(wave: Tensor, rate: int) -> Tensor:
    """dB of full scale of each whole 25 ms, or of a shorter recording as a whole: (N,) -> (windows,)."""
    window = min(max(1, rate // 40), len(wave))
    power = wave[: len(wave) // window * window].view(-1, window).square().mean(1)
    return 10 * power.clamp(min=1e-12).log10()


def _treble(wave: Tensor) -> float:
    """dB of the power in the upper half of the band, over that in the lower half."""
    size = 512
    if len(wave) < size:
        return 0.0
    spectrum = torch.stft(wave, size, window=torch.hann_window(size), return_complex=True).abs().square().sum(1)
    below, above = spectrum[1 : size // 4].sum(), spectrum[size // 4 + size // 32 :].sum()
    return float(10 * (above.clamp(min=1e-20) / below.clamp(min=1e-20)).log10())


# ---------------------------------------------------------------------------------------------------------- finding


def _recordings(facts: Sequence[Facts]) -> Iterator[tuple[str, Case]]:
    """What is odd in the recordings of one set."""
    heard = [one for one in facts if not one.problem]
    for one in facts:
        if one.problem:
            yield "cannot be read", Case(one.set, one.id, one.problem)
    for one in heard:
        if one.clipped > CLIPPED:
            yield "clipped", Case(one.set, one.id, f"{one.clipped:.2%} of the samples at full scale")
        if abs(one.offset) > OFFSET:
            yield "direct current", Case(one.set, one.id, f"the samples' mean is {one.offset:+.3f}")
        if one.level < QUIET:
            yield "nothing to hear", Case(one.set, one.id, f"loudest at {one.level:.0f} dB of full scale")
        elif one.silent > SILENT:
            yield "mostly silence", Case(one.set, one.id, f"{one.silent:.0%} of {one.seconds:.1f} s")
        if one.level >= QUIET and one.treble < MUTED:
            yield "recorded at a lower rate", Case(one.set, one.id, f"{one.rate} Hz, nothing above {one.rate // 4} Hz")
    if rates := Counter(one.rate for one in heard):
        usual = rates.most_common(1)[0][0]
        for one in heard:
            if one.rate != usual:
                yield "another rate", Case(one.set, one.id, f"{one.rate} Hz, most have {usual}")
    yield from _outliers("odd duration", [(one, one.seconds, f"{one.seconds:.2f} s") for one in heard])
    spoken = [(one, len(one.text) / one.seconds) for one in heard if one.text]
    yield from _outliers("odd speaking rate", [(one, rate, f"{rate:.1f} characters/s") for one, rate in spoken])


def _outliers(cause: str, values: Sequence[tuple[Facts, float, str]]) -> Iterator[tuple[str, Case]]:
    """The farthest first. Each side of the median is measured by its own median distance: sets may lean to one side."""
    if not values:
        return
    middle = median(math.log(value) for _, value, _ in values)
    distances = [math.log(value) - middle for _, value, _ in values]
    usual = [max(CLOSE, median(max(0.0, sign * one) for one in distances if sign * one >= 0)) for sign in (1, -1)]
    far = [(abs(one) / usual[one < 0], place) for place, one in enumerate(distances)]
    for times, place in sorted(far, reverse=True):
        if times > FAR:
            facts, _, detail = values[place]
            yield cause, Case(facts.set, facts.id, f"{detail}, the median is {math.exp(middle):.2f}")


def _texts(facts: Sequence[Facts], tokenizer: Tokenizer | None) -> Iterator[tuple[str, Case]]:
    """What is odd in the texts of one set."""
    for one in facts:
        if not one.text.strip() and not one.problem:
            yield "empty text", Case(one.set, one.id, "")
        if tokenizer is not None and (unknown := tokenizer.unknown(one.text)):
            yield "characters the tokenizer cannot write", Case(one.set, one.id, repr(unknown))
        if unseen := sorted({sign for sign in one.text if is_invisible(sign) and sign not in JOINERS}):
            yield "characters nobody sees", Case(one.set, one.id, " ".join(f"U+{ord(sign):04X}" for sign in unseen))
    first = {one.text: one for one in reversed(facts)}
    for text, times in Counter(one.text for one in facts if one.text.strip()).items():
        if times > 1:
            yield "repeated text", Case(first[text].set, first[text].id, f"{times} times: {text[:60]}")
    characters = Counter(character for one in facts for character in one.text)
    if characters.total() > MANY:
        for one in facts:
            if rare := sorted({character for character in one.text if characters[character] <= RARE}):
                yield "rare characters", Case(one.set, one.id, repr("".join(rare)))


def _shared(facts: Sequence[Facts]) -> Iterator[tuple[str, Case]]:
    """What utterances have in common that they should not."""
    speakers: dict[str, dict[str, Facts]] = defaultdict(dict)
    sounds: dict[bytes, list[Facts]] = defaultdict(list)
    ids: dict[str, dict[str, Facts]] = defaultdict(dict)
    for one in facts:
        ids[one.id].setdefault(one.set, one)
        if one.speaker is not None:
            speakers[one.speaker].setdefault(one.set, one)
        if not one.problem:
            sounds[one.fingerprint].append(one)
    for cause, found in (("speaker in several sets", speakers), ("id in several sets", ids)):
        for name, places in found.items():
            if len(places) > 1:
                some = next(iter(places.values()))
                yield cause, Case(some.set, some.id, f"{name}: {', '.join(places)}")
    for first, *others in sounds.values():
        for one in others:
            texts = (
                "the same text" if one.text == first.text else f"another text: {one.text[:40]!r}, {first.text[:40]!r}"
            )
            yield "the same recording twice", Case(one.set, one.id, f"as {first.set} {first.id}, {texts}")


def _summary(facts: Sequence[Facts]) -> dict[str, object]:
    heard = [one for one in facts if not one.problem]
    seconds = sorted(one.seconds for one in heard) or [0.0]
    pace = sorted(len(one.text) / one.seconds for one in heard) or [0.0]
    return {
        "utterances": len(facts),
        "hours": round(sum(seconds) / 3600, 2),
        "speakers": len({one.speaker for one in facts if one.speaker is not None}),
        "seconds": f"{seconds[0]:.2f} to {seconds[-1]:.2f}, median {median(seconds):.2f}",
        "characters/s": f"{pace[0]:.1f} to {pace[-1]:.1f}, median {median(pace):.1f}",
        "rates": ", ".join(f"{rate} Hz x {times}" for rate, times in Counter(one.rate for one in heard).most_common()),
        "characters": "".join(sorted({character for one in facts for character in one.text})),
    }
