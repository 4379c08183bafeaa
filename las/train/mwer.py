"""A batch and what search finds in it -> the word errors that are to be expected: minimum word error rate training.

Prabhavalkar et al. 2018 (arXiv:1712.01818), with n-best lists: of an utterance's n best hypotheses y_i, whose
probabilities are made to sum to 1 among themselves,

    sum of P(y_i) / sum of P(y_j) * (W(y_i) - mean of W)

is made small, W being a hypothesis' word errors. The mean changes no gradient here, it keeps the numbers small. Beside
it stands the ordinary objective with a small weight (their lambda). It is for models that are trained already.

What counts as P is the speller's own probability with the hypothesis given, whatever scorers the search had. Search
hears the frames of this very pass, so with the listener's dropout and SpecAugment, but spells without dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from las.batch import Batch, pad
from las.errors import UserError
from las.model.las import LAS, Listened
from las.model.memory import Memory
from las.model.speller import Speller
from las.search.beam import Hypothesis
from las.train.objectives import exact, next_tokens


@dataclass(frozen=True)
class MwerConfig:
    """Fine-tuning of a trained model (init=MODEL) to make fewer word errors."""

    hypotheses: int = 0  # of each utterance, such as 4: those that a beam of that width finds; 0: off
    objective_weight: float = 0.01  # lambda, weight of the ordinary loss, all that train.objective says, beside it

    def __post_init__(self) -> None:
        if self.hypotheses < 0 or self.hypotheses == 1:
            raise UserError(f"mwer.hypotheses {self.hypotheses}: errors are compared between at least 2; 0 is off")
        if self.objective_weight < 0:
            raise UserError(f"mwer.objective_weight {self.objective_weight} must be 0 or more")


@dataclass(frozen=True)
class Expectation:
    """Word errors to be expected, summed over a batch."""

    loss: Tensor  # (), less the mean of each utterance; its gradient is that of the errors
    errors: Tensor  # (), without gradient, for a person to read


@dataclass(frozen=True)
class Mwer:
    """What it takes to find errors.

    `search` gives the best hypotheses of each utterance, `count` the word errors of a hypothesis: (reference's token
    ids, its token ids) -> errors. `begin` and `end` are the token ids of a sentence's ends.
    """

    search: Callable[[Listened], list[list[Hypothesis]]]
    count: Callable[[Sequence[int], Sequence[int]], int]
    begin: int
    end: int

    def __call__(self, model: LAS, listened: Listened, batch: Batch) -> Expectation:
        """The errors to be expected of a batch that `model`, in training mode, has listened to.

        Utterances whose hypotheses all have the same errors, as one alone has, have them whatever their
        probabilities: they give no gradient, nor does an utterance without hypothesis, which is read as empty.
        """
        found = self._search(model, listened)
        references = [ids[:length].tolist() for ids, length in zip(batch.tokens, batch.lengths.tolist(), strict=True)]
        loss, errors = torch.zeros((), device=batch.tokens.device), torch.zeros((), device=batch.tokens.device)
        rows: list[int] = []  # the utterance of each hypothesis that matters
        tokens: list[Tensor] = []
        counts: list[list[int]] = []
        for row, (reference, hypotheses) in enumerate(zip(references, found, strict=True)):
            count = [self.count(reference, hypothesis.tokens) for hypothesis in hypotheses]
            if len(set(count)) > 1:
                rows += [row] * len(count)
                tokens += [torch.tensor(hypothesis.tokens, dtype=torch.int64) for hypothesis in hypotheses]
                counts.append(count)
            else:
                errors += count[0] if count else self.count(reference, ())
        if rows:
            memory = model.remember(listened).select(torch.tensor(rows, device=loss.device))
            padded, lengths = (one.to(loss.device) for one in pad(tokens))
            scores = self._log_probabilities(model.speller, memory, padded, lengths)
            for score, count in zip(scores.split([len(count) for count in counts]), counts, strict=True):
                wrong = torch.tensor(count, device=score.device, dtype=score.dtype)
                shares = score.softmax(0)
                loss = loss + (shares * (wrong - wrong.mean())).sum()
                errors = errors + (shares.detach() * wrong).sum()
        return Expectation(loss, errors)

    def _log_probabilities(self, speller: Speller, memory: Memory, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Of whole sentences, their ends included: tokens (B, L), lengths (B,) -> (B,), at least in float32."""
        logits, _ = speller(functional.pad(tokens, (1, 0), value=self.begin), memory)  # (B, L + 1, V)
        target, real = next_tokens(tokens, lengths, self.end)
        each = exact(logits).log_softmax(-1).gather(2, target.unsqueeze(2)).squeeze(2)
        return each.masked_fill(~real, 0.0).sum(1)

    @torch.no_grad()
    def _search(self, model: LAS, listened: Listened) -> list[list[Hypothesis]]:
        model.eval()
        try:
            return self.search(listened)
        finally:
            model.train()
