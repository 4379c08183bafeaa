"""A set of recordings with transcripts, transcribed and scored; its worst utterances with sound and picture."""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import torch

from las import audio
from las.audio import Source
from las.data.manifest import read_manifest
from las.data.shards import Entry, Index, holds_shards, read_index, read_sample
from las.errors import UserError
from las.evaluate.breakdown import Record
from las.evaluate.media import Attention, Media
from las.evaluate.report import SetResult
from las.evaluate.score import score, with_missing
from las.text.normalize import normalize
from las.text.tokenizer import BOS
from las.train.distributed import World
from las.train.loop import ALONE
from las.transcribe import confidence
from las.transcribe.recognizer import Recognizer, Transcript
from las.transcribe.timing import Word

REPORT_AUDIO = 16_000_000  # bytes of recordings that a set puts into its report
REPORT_PICTURES = 1_000  # utterances of a set whose attention is pictured


def evaluate_set(
    recognizer: Recognizer,
    name: str,
    path: str | Path,
    style: str,
    on_progress: Callable[[float, float], None] | None = None,
    world: World = ALONE,
    words: bool = False,
    on_error: Callable[[UserError], None] | None = None,
) -> SetResult:
    """Transcribe a set, shards or a manifest, and score it. `on_progress` gets seconds done and in all.

    The ranks of `world` each transcribe a part, and all have the whole result. With `words` each has its confidence,
    which is held against whether it is right. A recording that cannot be read raises `UserError`; where `on_error` is
    given that gets it, and the words of the recording count as deleted, as long as any other can be read.
    """
    recordings, total = recordings_of(path, world)
    started = time.perf_counter()
    done = 0.0

    def progress(seconds: float) -> None:
        nonlocal done
        done += seconds * world.size
        if on_progress is not None:
            on_progress(min(done, total), total)

    known: list[tuple[str, str, str | None]] = []
    unread: list[tuple[tuple[str, str, str | None], str]] = []  # and why

    def leave(source: Source, error: UserError) -> None:
        unread.append((known.pop(), str(error)))  # the last that was asked for
        if on_error is None:
            raise error
        on_error(error)

    transcripts = recognizer.transcribe(
        sources_of(recordings, known), on_progress=progress, words=words, on_error=leave
    )
    sure = [
        [(word.confidence, right) for word, right in judged_words(one, about[1], style)]
        for about, one in zip(known, transcripts, strict=True)
    ]
    own = [[*about, one.verdict.name, one.text, one.seconds] for about, one in zip(known, transcripts, strict=True)]
    every = [json.loads(lines) for lines in world.gather_text(json.dumps(own), recognizer.device)]
    judged = [json.loads(lines) for lines in world.gather_text(json.dumps(sure), recognizer.device)]
    lost = [row for lines in world.gather_text(json.dumps(unread), recognizer.device) for row in json.loads(lines)]
    found = [one for row in zip_longest(*every) for one in row if one is not None]  # in order
    if lost and not found:
        raise UserError(f"{path}: no recording of it can be read; the first: {lost[0][1]}")
    seconds = time.perf_counter() - started
    abouts = [*(one[:3] for one in found), *(about for about, _ in lost)]
    references = {id: reference for id, reference, _ in abouts}
    speakers = {id: speaker for id, _, speaker in abouts if speaker}
    verdicts = {id: verdict for id, *_, verdict, _, _ in found}
    hypotheses = {id: text for id, *_, text, _ in found}
    lengths = {id: length for id, *_, length in found}
    decoding = _decoding(recognizer, style)
    hypotheses, missing = with_missing(references, hypotheses)
    if missing:
        decoding += f", {len(missing)} recordings that cannot be read counted as deleted"
    scored = score(references, hypotheses, style)
    return SetResult(
        name, scored, references, hypotheses, lengths, seconds, recognizer.name, decoding, speakers,
        tuple(missing), verdicts, reliability=_reliability([pair for part in judged for one in part for pair in one]),
    )  # fmt: skip


def _decoding(recognizer: Recognizer, style: str) -> str:
    """How transcripts are searched for and scored, for people."""
    search = recognizer.search
    ctc = f"CTC {search.ctc_weight:g}, " if recognizer.model.ctc is not None else ""
    ranked = f" on {search.rescore}-best lists" if search.rescore else ""
    added = f"language model {search.language_weight:g}{ranked}, " if recognizer.language_models else ""
    speeds = (
        f"speeds {' '.join(f'{speed:g}' for speed in (1.0, *search.other_speeds))}, " if search.other_speeds else ""
    )
    return f"beam {search.beam}, {speeds}{ctc}{added}length exponent {search.length_exponent:g}, style {style}"


def judged_words(one: Transcript, reference: str, style: str) -> list[tuple[Word, bool]]:
    """The words of a transcript, and whether each is right. Those that the style leaves out do not count."""
    parts = [(place, part) for place, word in enumerate(one.words) for part in normalize(word.text, style).split()]
    right = confidence.right_words([part for _, part in parts], normalize(reference, style))
    wrong = {place for (place, _), good in zip(parts, right, strict=True) if not good}
    return [(one.words[place], place not in wrong) for place in dict(parts)]


def _reliability(judged: list[tuple[float, bool]]) -> Record | None:
    """How far the confidence of words can be trusted, for a report; None where there is no word."""
    if not judged:
        return None
    sure, right = (np.array(column, dtype=float) for column in zip(*judged, strict=True))
    separation = confidence.separation(sure, right)
    return {
        "words": len(right),
        "error": confidence.calibration_error(sure, right),
        "separation": None if math.isnan(separation) else separation,
        "bins": [list(row) for row in confidence.reliability(sure, right)],
    }


class _Recording(NamedTuple):
    """What is transcribed, and what is known of it."""

    id: str
    reference: str
    speaker: str | None
    source: Source


def recordings_of(path: str | Path, world: World = ALONE) -> tuple[Iterator[_Recording], float]:
    """The recordings of a set that are this rank's, read when they are asked for, and the set's seconds."""
    if holds_shards(path):
        index = read_index(path)
        return (_from_shard(index, entry) for entry in index.entries[world.rank :: world.size]), index.seconds
    utterances = read_manifest(path)
    own = utterances[world.rank :: world.size]
    seconds = sum(one.seconds or 0.0 for one in utterances)
    return (_Recording(one.id, one.text, one.speaker, one.audio) for one in own), seconds


def _from_shard(index: Index, entry: Entry) -> _Recording:
    sample = read_sample(index, entry)
    recording = io.BytesIO(sample.audio_bytes)
    recording.name = sample.id
    return _Recording(sample.id, sample.text, sample.speaker, recording)


def sources_of(recordings: Iterable[_Recording], known: list[tuple[str, str, str | None]]) -> Iterator[Source]:
    """The recordings one after another; what is known of them is kept, they are not."""
    for one in recordings:
        known.append((one.id, one.reference, one.speaker))
        yield one.source


def illustrate(recognizer: Recognizer, result: SetResult, path: str | Path, folder: Path) -> dict[str, Media]:
    """Recordings and pictures of a set's utterances for a report in `folder`, those with most errors first.

    Recordings go into the report while there is room; after that a manifest's are linked to, a shard's left out.
    """
    media: dict[str, Media] = {}
    room = REPORT_AUDIO
    order = sorted(result.score.utterances, key=lambda one: -one.alignment.counts.errors)
    ids = [one.id for one in order if one.id not in result.missing]
    for number, (id, read, address) in enumerate(_recordings(ids, path)):
        early = number < REPORT_PICTURES
        pictured = early and result.lengths[id] <= recognizer.whole  # longer ones are read in pieces
        if room <= 0 and not early and not address:
            break
        data = read() if room > 0 or pictured else b""
        fits = 0 < len(data) <= room
        if fits:
            room -= len(data)
        elif not early:
            room = 0  # no more are read to see whether they fit
        link = quote(os.fsencode(os.path.relpath(address, folder))) if address and not fits else ""
        attention = attention_of(recognizer, data, result.hypotheses[id]) if pictured else None
        media[id] = Media(data if fits else None, link, attention)
    return media


def _recordings(ids: list[str], path: str | Path) -> Iterator[tuple[str, Callable[[], bytes], str]]:
    """Utterances of a set in the order of `ids`: id, what reads its audio file, the file's path where it has one."""
    if holds_shards(path):
        index = read_index(path)
        entries = {entry.id: entry for entry in index.entries}
        for id in ids:
            yield id, partial(lambda entry: read_sample(index, entry).audio_bytes, entries[id]), ""
    else:
        files = {utterance.id: utterance.audio for utterance in read_manifest(path)}
        for id in ids:
            yield id, Path(files[id]).read_bytes, files[id]


@torch.no_grad()
def attention_of(recognizer: Recognizer, recording: bytes, text: str) -> Attention | None:
    """Where the speller looks as it writes `text`; None without attention, or where the recording is read in pieces."""
    model, tokenizer = recognizer.model, recognizer.tokenizer
    wave = audio.load(recording, recognizer.rate)
    if len(wave) > recognizer.whole * recognizer.rate or model.speller.attention is None:
        return None
    tokens = tokenizer.encode(text)
    listened = recognizer.listen([wave])
    before = torch.tensor([[BOS, *tokens]], device=recognizer.device)
    _, weights = model.speller(before, model.remember(listened))  # (1, L + 1, S)
    return Attention((*tokenizer.pieces(tokens), "</s>"), weights[0].float().cpu().numpy())
