"""The batches of an update on every rank -> what they come to together: losses, tokens, and what did not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from las.batch import Batch
from las.train.objectives import Losses
from las.train.pieces import Pieces

Asked = tuple[bool, bool]  # to stop, to save


@dataclass(frozen=True)
class Sums:
    """Sums over all ranks, of what was trained on."""

    speller: float  # losses, as in `Losses`
    ctc: float
    correct: float
    errors: float
    seconds: float  # of audio
    tokens: int  # ends of sentence included
    heard: int  # utterances
    left: int  # utterances that could not be read, or did not fit into memory
    splits: int  # batches that did not fit into memory
    split_seconds: float  # of padded audio in those
    asked: Asked  # by any rank

    @classmethod
    def of(
        cls,
        found: Sequence[Pieces[Batch, Losses]],
        missing: int,
        asked: Asked,
        rate: int,
        add: Callable[[Sequence[float]], list[float]],
    ) -> Sums:
        """Of this rank's batches, of audio at `rate` Hz and without `missing` utterances, and those of the others, with
        which `add` adds figures up."""
        done = [one for pieces in found for one in pieces.done]
        split = [one for pieces in found for one in pieces.split]
        own = [
            sum(one.speller.item() for _, one in done),
            sum(one.ctc.item() for _, one in done),
            sum(one.correct.item() for _, one in done),
            sum(one.expected_errors.item() for _, one in done if one.expected_errors is not None),
            sum(float(batch.samples.sum()) for batch, _ in done) / rate,
            sum(one.tokens for _, one in done),
            sum(len(batch) for batch, _ in done),
            missing + sum(len(batch) for pieces in found for batch in pieces.left),
            len(split),
            sum(batch.waves.numel() for batch in split) / rate,
            *asked,
        ]
        speller, ctc, correct, errors, seconds, *counts, padded, stop, save = add(own)
        tokens, heard, left, splits = map(int, counts)
        together = bool(stop), bool(save)
        return cls(speller, ctc, correct, errors, seconds, tokens, heard, left, splits, padded, together)

    def figures(self, mwer: bool) -> dict[str, float]:
        """Losses and hits per token; word errors per utterance where they were looked for."""
        each = {"loss": self.speller, "ctc_loss": self.ctc, "accuracy": self.correct}
        more = {"expected_errors": self.errors / self.heard} if mwer else {}
        return {name: value / self.tokens for name, value in each.items()} | more
