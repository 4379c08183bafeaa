"""A model and its tokens -> transcripts of audio files, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from las import audio
from las.audio import Source
from las.batch import pad
from las.errors import UserError
from las.model.las import LAS, Listened
from las.search.beam import Hypothesis, SearchConfig, beam_search
from las.search.ctc_prefix import CtcPrefixScorer
from las.search.hot_words import HotWordScorer
from las.search.scorers import Ending, Part, SpellerScorer, internal_language_model
from las.search.trace import Trace, trace
from las.text.tokenizer import BLANK, BOS, EOS, UNK, Tokenizer
from las.transcribe.segments import cut_points

NEVER = (BLANK, UNK, BOS)  # what no transcript holds
LONGEST = 30.0  # s; longer recordings are cut into pieces
AHEAD = 16  # batches' worth of recordings that are read before they are sorted by length


@dataclass(frozen=True)
class Transcript:
    """What was recognised in one recording."""

    source: str  # its path, or what it was called
    text: str
    seconds: float  # length of the recording
    score: float  # the search's score, summed over its pieces
    complete: bool  # False where a piece's transcript reached its greatest length
    alternatives: tuple[str, ...] = ()  # n-best texts, best first, where more than one was asked for


@dataclass(frozen=True)
class _Piece:
    """A stretch of one recording."""

    recording: int
    wave: Tensor  # (N,)


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
    ):
        """`language_models` are asked for their part in the search of so many utterances."""
        self.model = model
        self.tokenizer = tokenizer
        self.search = search
        self.name = name
        self.language_models = language_models
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
    ) -> list[Transcript]:
        """Transcripts in the order of the sources: paths, file objects, bytes, or (samples, rate) pairs.

        `beam` overrides the model's own beam, `best` asks for that many alternatives, `batch_seconds` bounds the
        padded audio decoded at once. A source that cannot be read raises `UserError`, or, where `on_error` is given,
        is handed to it and left out. `on_progress` is called with the seconds of audio finished each time.
        `hot_words` are words or phrases to listen for, each written as the transcripts write it.
        """
        return list(self.stream(sources, beam, best, batch_seconds, on_error, on_progress, hot_words))

    def stream(
        self,
        sources: Iterable[Source],
        beam: int | None = None,
        best: int = 1,
        batch_seconds: float = 120.0,
        on_error: Callable[[Source, UserError], None] | None = None,
        on_progress: Callable[[float], None] | None = None,
        hot_words: Sequence[str] = (),
    ) -> Iterator[Transcript]:
        """The same, handed out as they are ready, still in order."""
        phrases = self.phrases(hot_words)
        search = replace(self.search, beam=beam or self.search.beam)
        if isinstance(sources, (str, Path)):
            sources = [sources]
        for recordings in self._read_ahead(sources, AHEAD * batch_seconds, on_error):
            pieces = [piece for number, (_, wave) in enumerate(recordings) for piece in self._cut(number, wave)]
            found: list[list[Hypothesis]] = [[] for _ in pieces]
            for numbers in _batches([len(piece.wave) / self.rate for piece in pieces], batch_seconds):
                waves, samples = pad([pieces[number].wave for number in numbers])
                for number, hypotheses in zip(numbers, self.decode(waves, samples, search, best, phrases), strict=True):
                    found[number] = hypotheses
                if on_progress is not None:
                    on_progress(float(samples.sum()) / self.rate)
            for number, (source, wave) in enumerate(recordings):
                parts = [found[place] for place, piece in enumerate(pieces) if piece.recording == number]
                yield self._join(source, len(wave) / self.rate, parts, best)

    def phrases(self, hot_words: Sequence[str]) -> list[list[int]]:
        """Hot words in tokens. Raises `UserError` for one that the tokenizer cannot write."""
        for text in hot_words:
            if unknown := self.tokenizer.unknown(text):
                raise UserError(f"hot word {text!r}: the model's tokens cannot write {unknown!r}")
        return [ids for text in hot_words if (ids := self.tokenizer.encode(text))]

    @torch.no_grad()
    def decode(
        self, waves: Tensor, samples: Tensor, search: SearchConfig, best: int = 1, phrases: Sequence[Sequence[int]] = ()
    ) -> list[list[Hypothesis]]:
        """The best hypotheses of padded waves (B, N) with (B,) samples each; `phrases` are hot words in tokens."""
        return self.spell(self.model.listen(waves.to(self.device), samples.to(self.device)), search, best, phrases)

    def spell(
        self, listened: Listened, search: SearchConfig, best: int = 1, phrases: Sequence[Sequence[int]] = ()
    ) -> list[list[Hypothesis]]:
        """The best hypotheses of utterances that the listener has heard."""
        batch = len(listened.lengths)
        speller, memory = self.model.speller, self.model.remember(listened)
        scorer = SpellerScorer(speller, memory, NEVER, search.temperature, coverage=search.coverage > 0)
        ending = Ending("coverage", search.coverage) if search.coverage else None
        parts, refine = [Part("speller", scorer, 1.0, ending)], []
        if self.model.ctc is not None and search.ctc_weight > 0:
            ctc = self.model.ctc(listened.frames).float().log_softmax(-1)
            parts = [Part("speller", scorer, 1 - search.ctc_weight, ending)]
            refine = [Part("ctc", CtcPrefixScorer(ctc, listened.lengths, BLANK, EOS), search.ctc_weight)]
        parts += [make(batch) for make in self.language_models]
        if search.internal_weight:
            parts.append(Part("internal", internal_language_model(speller, batch, NEVER), -search.internal_weight))
        if phrases and search.hot_word_bonus:
            hot = HotWordScorer(phrases, self.tokenizer.size, batch, self.device)
            parts.append(Part("hot words", hot, search.hot_word_bonus))
        if not search.patience and (search.token_reward > 0 or any(part.gain > 0 for part in parts)):
            search = replace(search, patience=1.0)  # else the search would go on to the greatest length
        limits = (listened.lengths * search.longest).ceil().long()
        least = (listened.lengths * search.shortest).floor().long()
        return beam_search(parts, limits, search, BOS, EOS, best, least, refine)

    @torch.no_grad()
    def trace(self, listened: Listened, transcripts: Sequence[Sequence[int]]) -> list[Trace]:
        """Where the tokens of one transcript for each utterance are: attention, and CTC where the model has it."""
        ctc = None if self.model.ctc is None else self.model.ctc(listened.frames).float().log_softmax(-1)
        memory = self.model.remember(listened)
        return trace(transcripts, self.model.speller, memory, listened.lengths, BOS, ctc, BLANK)

    def _read_ahead(
        self, sources: Iterable[Source], seconds: float, on_error: Callable[[Source, UserError], None] | None
    ) -> Iterator[list[tuple[str, Tensor]]]:
        """Decoded recordings with their names, as many at a time as make up `seconds`."""
        recordings: list[tuple[str, Tensor]] = []
        held = 0.0
        for source in sources:
            try:
                wave = audio.load(source, self.rate)
            except UserError as error:
                if on_error is None:
                    raise
                on_error(source, error)
                continue
            recordings.append((_name(source), wave))
            held += len(wave) / self.rate
            if held >= seconds:
                yield recordings
                recordings, held = [], 0.0
        if recordings:
            yield recordings

    def _cut(self, number: int, wave: Tensor) -> Iterator[_Piece]:
        start = 0
        for end in cut_points(wave, self.rate, LONGEST):
            yield _Piece(number, wave[start:end])
            start = end

    def _join(self, source: str, seconds: float, parts: list[list[Hypothesis]], best: int) -> Transcript:
        texts = [[self.tokenizer.decode(list(one.tokens)) for one in part] or [""] for part in parts]
        alternatives = tuple(texts[0]) if best > 1 and len(texts) == 1 else ()
        return Transcript(
            source,
            " ".join(options[0] for options in texts if options[0]),
            seconds,
            sum(part[0].score for part in parts if part),
            all(part[0].complete for part in parts if part),
            alternatives,
        )


def _name(source: Source) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    return str(getattr(source, "name", f"<{type(source).__name__}>"))


def _batches(seconds: list[float], budget: float) -> Iterator[list[int]]:
    """Numbers of recordings, longest first, in batches of at most `budget` padded seconds."""
    batch: list[int] = []
    for number in sorted(range(len(seconds)), key=lambda one: -seconds[one]):
        if batch and (len(batch) + 1) * seconds[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
