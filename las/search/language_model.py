"""The LSTM language model as search sees it (shallow fusion: Gulcehre et al. 2015, arXiv:1503.03535)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from las.model.language_model import LanguageModelState, LanguageModelSteps


@dataclass(frozen=True)
class LanguageModelScorer:
    """The language model's next-token log-probabilities for some utterances; a `Scorer`."""

    steps: LanguageModelSteps  # made once for many searches; it knows which tokens no transcript holds
    utterances: int  # B

    def start(self) -> LanguageModelState:
        return self.steps.start(self.utterances)

    def step(self, tokens: Tensor, state: LanguageModelState) -> tuple[Tensor, LanguageModelState]:
        return self.steps.step(tokens, state)

    def select(self, state: LanguageModelState, utterances: Tensor, parents: Tensor) -> LanguageModelState:
        return state.select(utterances, parents)
