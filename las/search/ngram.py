"""Back-off n-grams as search sees them: tensors of all orders, looked up for all beams at once.

The model of an ARPA file: log p(w | h) is that of the n-gram h w where there is one, else b(h) + log p(w | h'), where
h' is h without its oldest token and b(h) is 0 for a context that is not listed (Katz 1987). The n-grams of order k are
rows, sorted by (row of their first k - 1 tokens, last token): what may follow a context is a range of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from las.errors import UserError
from las.search.arpa import Ngrams, read_arpa
from las.text.tokenizer import UNK, Tokenizer


@dataclass(frozen=True)
class NgramModel:
    """n-grams of the orders 1 to n; lists hold an item for each order but the first, unless they say so."""

    scores: list[Tensor]  # of all orders: log p (V), then (G_k)
    backoffs: list[Tensor]  # of all orders but the last: b (V), then (G_k)
    keys: list[Tensor]  # row of the first k - 1 tokens * V + the last token (G_k), rising
    starts: list[Tensor]  # where the rows of what follows each context begin (G_{k-1} + 1)
    read_as: Tensor | None  # (V) the token that each token is looked up as, where the file does not list all of them

    @property
    def order(self) -> int:
        return len(self.scores)

    @property
    def vocabulary(self) -> int:
        return len(self.scores[0])

    def advance(self, tokens: Tensor, contexts: Tensor) -> Tensor:
        """Contexts (..., n - 1), the row of the last 1 to n - 1 tokens or -1, after one more token (...)."""
        if self.order == 1:
            return contexts
        tokens = tokens if self.read_as is None else self.read_as[tokens]
        rows = [tokens]
        for keys, before in zip(self.keys[: self.order - 2], contexts.unbind(-1), strict=False):
            wanted = torch.where(before < 0, -1, before * self.vocabulary + tokens)
            found = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
            rows.append(torch.where(keys[found] == wanted, found, -1))
        return torch.stack(rows, dim=-1)

    def log_probabilities(self, contexts: Tensor) -> Tensor:
        """Contexts (R, n - 1) -> natural log-probabilities of all tokens (R, V)."""
        found = self.scores[0].repeat(len(contexts), 1)
        for context, backoffs, starts, keys, scores in zip(
            contexts.unbind(-1), self.backoffs, self.starts, self.keys, self.scores[1:], strict=True
        ):
            listed = context >= 0
            row = context.clamp(min=0)
            found += torch.where(listed, backoffs[row], 0.0).unsqueeze(1)
            first = starts[row]
            counts = torch.where(listed, starts[row + 1] - first, 0)  # (R)
            ends = counts.cumsum(0)
            beams = torch.repeat_interleave(counts)  # which context each of the following n-grams is of
            at = torch.arange(len(beams), device=beams.device) + (first - ends + counts)[beams]
            found[beams, keys[at] % self.vocabulary] = scores[at]
        return found if self.read_as is None else found[:, self.read_as]

    def to(self, device: torch.device) -> NgramModel:
        def moved(tensors: list[Tensor]) -> list[Tensor]:
            return [tensor.to(device) for tensor in tensors]

        read_as = None if self.read_as is None else self.read_as.to(device)
        parts = (self.scores, self.backoffs, self.keys, self.starts)
        scores, backoffs, keys, starts = (moved(part) for part in parts)
        return NgramModel(scores, backoffs, keys, starts, read_as)


@dataclass(frozen=True)
class NgramScorer:
    """The n-gram model's next-token log-probabilities for some utterances; a `Scorer` whose state is (B, K, n - 1)."""

    model: NgramModel
    utterances: int  # B
    never: tuple[int, ...]  # tokens that no transcript holds

    def start(self) -> Tensor:
        shape = (self.utterances, 1, self.model.order - 1)
        return torch.full(shape, -1, dtype=torch.int64, device=self.model.scores[0].device)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.model.advance(tokens, state)
        found = self.model.log_probabilities(state.flatten(0, 1)).unflatten(0, tuple(tokens.shape))
        found[..., list(self.never)] = -torch.inf
        return found, state

    def select(self, state: Tensor, utterances: Tensor, parents: Tensor) -> Tensor:
        return state[utterances.unsqueeze(1), parents]


def read_ngrams(path: str | Path, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32) -> NgramModel:
    """An ARPA file over the pieces of a tokenizer; raises `UserError` as `read_arpa` and `build` do."""
    return build(read_arpa(path, tokenizer), tokenizer, dtype, str(path))


def build(
    orders: Sequence[Ngrams], tokenizer: Tokenizer, dtype: torch.dtype = torch.float32, where: str = "n-grams"
) -> NgramModel:
    """The tensors of a model from its n-grams, in any order; `where` names them in errors.

    Raises `UserError` for an n-gram that is listed twice or without its context.
    """
    vocabulary = tokenizer.size
    _order(orders[0], orders[0].tokens[:, 0], tokenizer, where)
    (scores, backoffs), read_as = _unigrams(orders[0], vocabulary)
    all_scores, all_backoffs = [scores], [backoffs]
    all_keys: list[np.ndarray] = []
    starts: list[np.ndarray] = []
    listed = max((number for number, ngrams in enumerate(orders) if len(ngrams.scores)), default=0)
    for ngrams in orders[1 : listed + 1]:  # what cut-offs left nothing of is no order of the model
        keys = ngrams.tokens[:, 0].astype(np.int64)
        for position, column in enumerate(ngrams.tokens.T[1:]):
            if position:
                keys = _rows(ngrams, all_keys[position - 1], keys, tokenizer, where)
            keys = keys * vocabulary + column
        order = _order(ngrams, keys, tokenizer, where)
        keys = keys[order]
        starts.append(np.searchsorted(keys, np.arange(len(all_scores[-1]) + 1) * vocabulary))
        all_keys.append(keys)
        all_scores.append(ngrams.scores[order])
        all_backoffs.append(ngrams.backoffs[order])
    natural = math.log(10.0)
    return NgramModel(
        [torch.from_numpy(one * natural).to(dtype) for one in all_scores],
        [torch.from_numpy(one * natural).to(dtype) for one in all_backoffs[:-1]],
        [torch.from_numpy(one) for one in all_keys],
        [torch.from_numpy(one) for one in starts],
        read_as,
    )


def _unigrams(ngrams: Ngrams, vocabulary: int) -> tuple[tuple[np.ndarray, np.ndarray], Tensor | None]:
    """Scores and back-off weights by token, -inf and 0 where it is not listed; which token each is read as."""
    listed = ngrams.tokens[:, 0]
    scores, backoffs = np.full(vocabulary, -np.inf), np.zeros(vocabulary)
    scores[listed], backoffs[listed] = ngrams.scores, ngrams.backoffs
    read_as = torch.arange(vocabulary)
    missing = np.setdiff1d(np.arange(UNK, vocabulary), listed)
    read_as[torch.from_numpy(missing)] = UNK
    return (scores, backoffs), read_as if len(missing) else None


def _order(ngrams: Ngrams, keys: np.ndarray, tokenizer: Tokenizer, where: str) -> np.ndarray:
    """What sorts n-grams by their keys, of which none may come twice."""
    order = np.argsort(keys, kind="stable")
    if len(twice := np.flatnonzero(keys[order[1:]] == keys[order[:-1]])):
        raise UserError(f"{where}: {_named(ngrams, int(order[twice[0]]), tokenizer)} is listed twice")
    return order


def _rows(ngrams: Ngrams, known: np.ndarray, keys: np.ndarray, tokenizer: Tokenizer, where: str) -> np.ndarray:
    """The rows of some keys among those of their order."""
    rows = np.searchsorted(known, keys)
    rows[rows == len(known)] = 0
    missing = known[rows] != keys if len(known) else np.ones(len(keys), dtype=bool)
    if missing.any():
        raise UserError(
            f"{where}: {_named(ngrams, int(missing.argmax()), tokenizer)} is listed, but not all that it begins with"
        )
    return rows


def _named(ngrams: Ngrams, row: int, tokenizer: Tokenizer) -> str:
    tokens = ngrams.tokens[row].tolist()
    return f"the {len(tokens)}-gram {' '.join(tokenizer.pieces(tokens))!r}"
