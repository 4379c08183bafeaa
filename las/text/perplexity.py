"""How well a language model foretells a text: counts that add up, and the two perplexities made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Perplexity:
    """What a text cost. Every sentence ends with an end of sentence, which is foretold as well: it counts as one token
    and, as in SRILM's `ppl`, as one word.

    >>> one = Perplexity(nats=6 * math.log(4), tokens=6, words=2, sentences=1)
    >>> one.per_token, one.per_word, (one + one).per_word
    (4.0, 16.0, 16.0)
    """

    nats: float = 0.0  # -sum log p
    tokens: int = 0  # ends of sentences included
    words: int = 0  # ends of sentences not included
    sentences: int = 0
    unknown: int = 0  # tokens among them that stand for what the tokenizer cannot write

    def __add__(self, other: Perplexity) -> Perplexity:
        return Perplexity(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.words + other.words,
            self.sentences + other.sentences,
            self.unknown + other.unknown,
        )

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / max(1, self.tokens)

    @property
    def per_token(self) -> float:
        return _exp(self.loss)

    @property
    def per_word(self) -> float:
        return _exp(self.nats / max(1, self.words + self.sentences))


def _exp(nats: float) -> float:
    return round(math.exp(nats), 9) if nats < 700 else math.inf
