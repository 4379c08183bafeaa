"""A model and its tokens -> transcripts of audio files, in batches of like length, each with its verdict."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from las import audio
from las.audio import Source
from las.batch import pad
from las.data.augment import change_speed
from las.errors import UserError
from las.model.las import LAS, Listened
from las.search.beam import Hypothesis, SearchConfig, beam_search
from las.search.ctc_prefix import CtcPrefixScorer
from las.search.hot_words import HotWordScorer
from las.search.rescore import rescore
from las.search.scorers import Ending, MeanScorer, Part, SpellerScorer, internal_language_model
from las.search.trace import Trace, trace
from las.text.normalize import basic
from las.text.tokenizer import BLANK, BOS, EOS, UNK, Tokenizer
from las.transcribe import confidence, segments
from las.transcribe.sound import ends_loud
from las.transcribe.timing import Word, spelled_words, word_times
from las.transcribe.verdict import NEAR, OK, Evidence, Thresholds, Verdict, judge, weigh

NEVER = (BLANK, UNK, BOS)  # what no transcript holds
LONGEST = 30.0  # s; longer recordings are cut into pieces, where the model does not know better
SHORTEST = 3.0  # s; no recording is cut into shorter pieces on a model's own account
NOTHING = torch.empty(0)
QUIET = 0.1  # s that the listener hears before sound with which a short piece begins, after sound with which it ends
SHORT = 1.2  # s; in longer pieces of `english` it changed some words, and no more to the better than to the worse
LOUDEST = 1e12  # of a sample; whole numbers of 32 bits as floats reach 2e9, what is beyond is damage
CUT_AGAIN = 0.6  # of a piece, the most that a part of it holds when it is decoded again in parts
TWINS = 2  # times as many hypotheses as alternatives that are asked for: some are the same text in other tokens
AHEAD = 16  # batches' worth of recordings that are read before they are sorted by length


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording that was decoded in one piece."""

    text: str
    start: float  # s
    end: float
    score: float  # the search's
    complete: bool  # False where the transcript reached its greatest length
    words: tuple[Word, ...] = ()  # where they were asked for
    alternatives: tuple[tuple[str, float], ...] = ()  # n-best texts and their scores, where more than one was asked for
    verdict: Verdict = OK  # whether it can be believed; its place is s from the recording's beginning
    confidence: float = 1.0  # probability of a token, the mean by log-odds, by which the verdict went


@dataclass(frozen=True)
class Transcript:
    """What was recognised in one recording."""

    source: str  # its path, or what it was called
    seconds: float  # length of the recording
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        return " ".join(one.text for one in self.segments if one.text)

    @property
    def score(self) -> float:
        """The search's score, summed over the segments."""
        return sum(one.score for one in self.segments)

    @property
    def complete(self) -> bool:
        """False where a segment's transcript reached its greatest length."""
        return all(one.complete for one in self.segments)

    @property
    def complaints(self) -> tuple[Verdict, ...]:
        """What is not ok. Silence is complained of only where there is nothing else: speakers may pause."""
        if not self.segments:
            return (Verdict("silence", 0.0, "no sample in it"),)
        spoken = [one.verdict for one in self.segments if one.verdict.name != "silence"]
        return tuple(one for one in spoken if one.name != "ok") if spoken else (self.segments[0].verdict,)

    @property
    def verdict(self) -> Verdict:
        """The first complaint, or that there is none."""
        return next(iter(self.complaints), OK)

    @property
    def words(self) -> tuple[Word, ...]:
        """All words with times and confidence, where they were asked for."""
        return tuple(word for one in self.segments for word in one.words)

    @property
    def alternatives(self) -> tuple[str, ...]:
        """N-best texts of a recording of one segment, best first, where more than one was asked for."""
        return tuple(text for text, _ in self.segments[0].alternatives) if len(self.segments) == 1 else ()


@dataclass(eq=False)
class _Recording:
    """One that is being read or decoded."""

    name: str
    pieces: list[_Piece] = field(default_factory=list)
    samples: int = 0
    read: bool = False


@dataclass(eq=False)
class _Piece:
    """A stretch of one recording."""

    recording: _Recording
    start: int  # samples before it
    wave: Tensor  # (N,)
    segments: tuple[Segment, ...] = ()  # one, or more where it was decoded again in parts


class Recognizer:
    """Transcribes recordings with one model. Made by `las.load`.

    The model is in evaluation mode and on its device already.
    """

    def __init__(
        self,
        model: LAS,
        tokenizer: Tokenizer,
        search: SearchConfig,
        name: str = "model",
        language_models: Sequence[Callable[[int], Part]] = (),
        confidence_map: confidence.ConfidenceMap = confidence.UNFITTED,
        thresholds: Thresholds | None = None,
    ):
        """`language_models` are asked for their part in the search of so many utterances. Without `thresholds` verdicts
        go by the defaults."""
        self.model = model
        self.tokenizer = tokenizer
        self.search = search
        self.name = name
        self.language_models = language_models
        self.confidence = confidence_map
        self.thresholds = thresholds or Thresholds()
        self.rate = model.config.frontend.sample_rate  # Hz

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.frontend.mean.device

    def transcribe(
        self,
        sources: Iterable[Source],
        *,
        beam: int | None = None,
        best: int = 1,
        batch_seconds: float = 120.0,
        on_error: Callable[[Source, UserError], None] | None = None,
        on_progress: Callable[[float], None] | None = None,
        hot_words: Sequence[str] = (),
        words: bool = False,
        retry: bool = False,
    ) -> list[Transcript]:
        """Transcripts in the order of the sources: paths, file objects, bytes, or (samples, rate) pairs.

        `beam` overrides the model's own beam, `best` asks for that many alternatives, `batch_seconds` bounds the
        padded audio decoded at once. A source that cannot be read raises `UserError`, or, where `on_error` is given,
        is handed to it and left out. `on_progress` is called with the seconds of audio finished each time.
        `hot_words` are words or phrases to listen for, each written as the transcripts write it. `words` asks for
        the times and the confidence of words. With `retry` what has a bad verdict is decoded again, with more CTC
        weight and in parts, and the better is kept.
        """
        return list(self.stream(sources, beam, best, batch_seconds, on_error, on_progress, hot_words, words, retry))

    def stream(
        self,
        sources: Iterable[Source],
        beam: int | None = None,
        best: int = 1,
        batch_seconds: float = 120.0,
        on_error: Callable[[Source, UserError], None] | None = None,
        on_progress: Callable[[float], None] | None = None,
        hot_words: Sequence[str] = (),
        words: bool = False,
        retry: bool = False,
    ) -> Iterator[Transcript]:
        """The same, handed out as they are ready, still in order. What is held does not grow with their length."""
        search = replace(self.search, beam=beam or self.search.beam)
        asked = _Asked(search, best, self.phrases(hot_words), words, retry)
        if isinstance(sources, (str, Path)):
            sources = [sources]
        waiting: deque[_Recording] = deque()
        for group in self._read_ahead(sources, AHEAD * batch_seconds, waiting, on_error):
            for numbers in batches([len(piece.wave) / self.rate for piece in group], batch_seconds):
                batch = [group[number] for number in numbers]
                self._fill(batch, asked)
                if on_progress is not None:
                    on_progress(sum(len(piece.wave) for piece in batch) / self.rate)
            for piece in group:
                piece.wave = NOTHING
            while waiting and waiting[0].read:
                one = waiting.popleft()
                segments = tuple(segment for piece in one.pieces for segment in piece.segments)
                yield Transcript(one.name, one.samples / self.rate, segments)

    def phrases(self, hot_words: Sequence[str]) -> list[list[int]]:
        """Hot words in tokens; what they cannot write as it stands is taken in the style `basic`.

        Raises `UserError` for one that they cannot write so either.
        """
        written = [basic(text) if self.tokenizer.unknown(text) else text for text in hot_words]
        for text, own in zip(written, hot_words, strict=True):
            if unknown := self.tokenizer.unknown(text):
                raise UserError(f"hot word {own!r}: the model's tokens cannot write {unknown!r}")
        return [ids for text in written if (ids := self.tokenizer.encode(text))]

    def hear(self, waves: Sequence[Tensor], search: SearchConfig) -> list[Listened]:
        """What the listener makes of waves (N,) as they are, and then at the search's other speeds."""
        others = ([change_speed(wave, speed, self.rate) for wave in waves] for speed in search.other_speeds)
        return [self.listen(own) for own in (waves, *others)]

    def listen(self, waves: Sequence[Tensor]) -> Listened:
        """What the listener makes of waves (N,).

        Where sound begins or ends with a short wave it hears quiet around, as in training: single words that were cut
        out tightly are read far better so (egs/digits/RESULTS.md). No frame of the quiet is left in what is returned.
        """
        hop = self.model.config.frontend.hop_samples * self.model.config.listener.reduction  # samples
        quiet = math.ceil(QUIET * self.rate / hop)  # listener frames
        tight = torch.tensor([self._tight(wave) for wave in waves])  # (B, 2) bool
        around = (tight * quiet * hop).tolist()
        padded, samples = pad([functional.pad(wave, own) for wave, own in zip(waves, around, strict=True)])
        heard = self.model.listen(padded.to(self.device), samples.to(self.device))
        if not tight.any():
            return heard
        first = (tight[:, 0] * quiet).to(self.device)
        within = torch.tensor([math.ceil(len(wave) / hop) for wave in waves], device=self.device)
        return heard.part(first, torch.minimum(heard.lengths - first, within))

    def _tight(self, wave: Tensor) -> tuple[bool, bool]:
        return ends_loud(wave, self.rate) if len(wave) < SHORT * self.rate else (False, False)

    def spell(
        self, hearings: Sequence[Listened], search: SearchConfig, best: int = 1, phrases: Sequence[Sequence[int]] = ()
    ) -> list[list[Hypothesis]]:
        """The best hypotheses of utterances that the listener has heard, by the mean of all it made of each."""
        lengths = torch.stack([one.lengths for one in hearings]).amin(0)
        batch, speller = len(lengths), self.model.speller
        scorer = _mean([
            SpellerScorer(speller, self.model.remember(one), NEVER, search.temperature, coverage=search.coverage > 0)
            for one in hearings
        ])  # fmt: skip
        ending = Ending("coverage", search.coverage) if search.coverage else None
        parts, refine = [Part("speller", scorer, 1.0, ending)], []
        heard = [ctc for one in hearings if (ctc := self._ctc(one)) is not None] if search.ctc_weight > 0 else []
        if heard:
            parts = [Part("speller", scorer, 1 - search.ctc_weight, ending)]
            ctc = _mean([
                CtcPrefixScorer(own, one.lengths, BLANK, EOS) for own, one in zip(heard, hearings, strict=True)
            ])  # fmt: skip
            refine = [Part("ctc", ctc, search.ctc_weight)]
        models = [make(batch) for make in self.language_models]
        parts += [] if search.rescore else models
        if search.internal_weight:
            parts.append(Part("internal", internal_language_model(speller, batch, NEVER), -search.internal_weight))
        if phrases and search.hot_word_bonus:
            hot = HotWordScorer(phrases, self.tokenizer.size, batch, self.device)
            parts.append(Part("hot words", hot, search.hot_word_bonus))
        if not search.patience and (search.token_reward > 0 or any(part.gain > 0 for part in parts)):
            search = replace(search, patience=1.0)  # else the search would go on to the greatest length
        limits = (lengths * search.longest).ceil().long()
        least = (lengths * search.shortest).floor().long()
        if not search.rescore:
            return beam_search(parts, limits, search, BOS, EOS, best, least, refine)
        found = beam_search(parts, limits, search, BOS, EOS, max(best, search.rescore), least, refine)
        ranked, others = [row[: search.rescore] for row in found], [row[search.rescore :] for row in found]
        for part in models:  # the others stay behind, however many are asked for: the best is the same for any number
            ranked, others = (rescore(rows, part, search, BOS, EOS, self.device) for rows in (ranked, others))
        return [[*first, *then][:best] for first, then in zip(ranked, others, strict=True)]

    @property
    def frame(self) -> float:
        """Seconds of a listener frame."""
        return self.model.config.frontend.hop_samples / self.rate * self.model.config.listener.reduction

    @property
    def whole(self) -> float:
        """Seconds of the longest recording that is decoded in one piece."""
        return self.search.whole or max(LONGEST, self.search.piece)

    def _cut(self, source: Source) -> Iterator[Tensor]:
        piece = self.search.piece or min(LONGEST, self.whole)
        return self._pieces(audio.stream(source, self.rate), piece, self.whole)

    def _pieces(self, blocks: Iterable[Tensor], longest: float, whole: float = 0.0) -> Iterator[Tensor]:
        """Pieces of a recording that comes in blocks, cut where it is quiet and CTC, if the model has it, is silent."""
        heard = self._heard if self.model.ctc is not None else None
        return segments.pieces(blocks, self.rate, longest, whole, heard)

    @torch.no_grad()
    def _heard(self, wave: Tensor) -> Tensor:
        """The probability that CTC hears a token in each listener frame of a wave (N,): (S,)."""
        ctc = self._ctc(self.listen([wave]))
        assert ctc is not None
        return (1 - ctc[0, :, BLANK].exp()).cpu()

    def _ctc(self, listened: Listened) -> Tensor | None:
        """CTC's log-probabilities (B, S, V), where the model has a CTC branch."""
        return None if self.model.ctc is None else self.model.ctc(listened.frames).float().log_softmax(-1)

    def _read_ahead(
        self,
        sources: Iterable[Source],
        seconds: float,
        waiting: deque[_Recording],
        on_error: Callable[[Source, UserError], None] | None,
    ) -> Iterator[list[_Piece]]:
        """Pieces of recordings, as many at a time as make up `seconds`; the recordings are put to those `waiting`."""
        group: list[_Piece] = []
        held = 0.0
        for source in sources:
            recording = _Recording(_name(source))
            waiting.append(recording)
            try:
                for wave in self._cut(source):
                    if (peak := float(wave.abs().max())) > LOUDEST:
                        raise UserError(f"{recording.name}: a sample of {peak:g}; wanted sound, about -1 to 1")
                    if held >= seconds:
                        yield group
                        group, held = [], 0.0
                    group.append(_Piece(recording, recording.samples, wave))
                    recording.pieces.append(group[-1])
                    recording.samples += len(wave)
                    held += len(wave) / self.rate
            except UserError as error:
                if on_error is None:
                    raise
                on_error(source, error)
                waiting.remove(recording)
                group = [piece for piece in group if piece.recording is not recording]
                held = sum(len(piece.wave) for piece in group) / self.rate
                continue
            recording.read = True
            if held >= seconds:
                yield group
                group, held = [], 0.0
        if group:
            yield group

    def _fill(self, batch: Sequence[_Piece], asked: _Asked) -> None:
        """Decode pieces and give them their segments."""
        for piece, segment in zip(batch, self._decode(batch, asked), strict=True):
            piece.segments = (segment,)
        if asked.retry:
            bad = [piece for piece in batch if piece.segments[0].verdict.name not in ("ok", "silence")]
            if self.model.ctc is not None:
                weight = (1 + asked.search.ctc_weight) / 2
                self._again(
                    bad, [[piece] for piece in bad], replace(asked, search=replace(asked.search, ctc_weight=weight))
                )
                bad = [piece for piece in bad if _standing(piece.segments)[0] < 0]
            self._again(bad, [self._parts(piece) for piece in bad], asked)

    def _again(self, pieces: Sequence[_Piece], parts: Sequence[Sequence[_Piece]], asked: _Asked) -> None:
        """Decode the parts of pieces, and keep what they say where it stands better."""
        for piece, own in zip(pieces, parts, strict=True):
            found = tuple(self._decode(own, asked))
            if _standing(found) > _standing(piece.segments):
                piece.segments = found

    def _parts(self, piece: _Piece) -> list[_Piece]:
        parts, start = [], piece.start
        for wave in self._pieces([piece.wave], CUT_AGAIN * len(piece.wave) / self.rate):
            parts.append(_Piece(piece.recording, start, wave))
            start += len(wave)
        return parts

    @torch.no_grad()
    def _decode(self, batch: Sequence[_Piece], asked: _Asked) -> list[Segment]:
        """What is recognised in each of some pieces. Where there is no speech nothing is."""
        if not batch:
            return []
        hearings = self.hear([piece.wave for piece in batch], asked.search)
        best = 1 if asked.best == 1 else TWINS * asked.best
        best = max(best, confidence.AGREEMENT) if asked.words else best
        hypotheses = self.spell(hearings, asked.search, best, asked.phrases)
        found = [one[0].tokens if one else () for one in hypotheses]
        weighed = self.weigh(hearings[0], found, [piece.wave for piece in batch])
        made = []
        for piece, options, (evidence, traced) in zip(batch, hypotheses, weighed, strict=True):
            start = piece.start / self.rate
            verdict = judge(evidence, self.thresholds)
            verdict = replace(verdict, place=start + verdict.place)
            if verdict.name == "silence":
                options = []
            scores: dict[str, float] = {}
            for one in options:
                scores.setdefault(self.tokenizer.decode(one.tokens), one.score)
            texts = list(scores.items())[: asked.best]
            made.append(Segment(
                texts[0][0] if texts else "",
                start,
                start + len(piece.wave) / self.rate,
                options[0].score if options else 0.0,
                options[0].complete if options else True,
                self._words(piece, options, traced) if asked.words else (),
                tuple(texts) if asked.best > 1 else (),
                verdict,
                evidence.confidence,
            ))  # fmt: skip
        return made

    @torch.no_grad()
    def weigh(
        self, listened: Listened, transcripts: Sequence[Sequence[int]], waves: Sequence[Tensor]
    ) -> list[tuple[Evidence, Trace]]:
        """What speaks for and against one transcript of each utterance, in tokens, and where its tokens are."""
        ctc = self._ctc(listened)
        memory, near = self.model.remember(listened), NEAR / self.frame
        traces = trace(transcripts, self.model.speller, memory, listened.lengths, BOS, ctc, BLANK, near)
        ctc = None if ctc is None else ctc.cpu()
        return [
            (
                weigh(tokens, traced, wave, self.rate, self.frame, None if ctc is None else ctc[row, :frames], BLANK),
                traced,
            )
            for row, (tokens, traced, wave, frames) in enumerate(
                zip(transcripts, traces, waves, listened.lengths.tolist(), strict=True)
            )
        ]

    def _words(self, piece: _Piece, options: Sequence[Hypothesis], found: Trace) -> tuple[Word, ...]:
        """The words of a piece's best hypothesis, with times in its recording and their confidence."""
        if not options:
            return ()
        spelled = spelled_words(self.tokenizer.pieces(options[0].tokens))
        others = [(self.tokenizer.decode(one.tokens), one.log_probability) for one in options]
        features = confidence.word_features(spelled, found, others)
        times = word_times(spelled, found, piece.wave, self.rate, self.frame)
        before = piece.start / self.rate
        return tuple(
            Word(word.text, before + start, before + end, self.confidence(own), word.spaced, own)
            for word, (start, end), own in zip(spelled, times, features, strict=True)
        )


def _mean(scorers: Sequence[Any]) -> Any:
    return MeanScorer(scorers) if len(scorers) > 1 else scorers[0]


@dataclass(frozen=True)
class _Asked:
    """What is wanted of each recording."""

    search: SearchConfig
    best: int
    phrases: Sequence[Sequence[int]]
    words: bool
    retry: bool


def _standing(found: Sequence[Segment]) -> tuple[float, float]:
    """How well segments of one stretch stand: less the seconds with a bad verdict, then by confidence.

    There is none in an empty transcript of speech; silence has no part in it.
    """
    fine = {"ok", "silence"} if any(one.verdict.name != "silence" for one in found) else {"ok"}
    bad = sum(one.end - one.start for one in found if one.verdict.name not in fine)
    spoken = [one.confidence if one.text else 0.0 for one in found if one.verdict.name != "silence"]
    return -bad, sum(spoken) / max(1, len(spoken))


def known_lengths(seconds: Sequence[float], search: SearchConfig) -> SearchConfig:
    """The search of a model that was trained on utterances of so many seconds: `whole` and `piece` where they are 0."""
    ordered = sorted(seconds)
    longest, most = ordered[-1], ordered[len(ordered) * 9 // 10]
    whole, piece = (round(min(max(one, SHORTEST), LONGEST), 2) for one in (longest, most))
    whole = search.whole or max(whole, search.piece)
    return replace(search, whole=whole, piece=search.piece or min(whole, piece))


def _name(source: Source) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    return str(getattr(source, "name", f"<{type(source).__name__}>"))


def batches(seconds: list[float], budget: float) -> Iterator[list[int]]:
    """Numbers of recordings, longest first, in batches of at most `budget` padded seconds."""
    batch: list[int] = []
    for number in sorted(range(len(seconds)), key=lambda one: -seconds[one]):
        if batch and (len(batch) + 1) * seconds[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
