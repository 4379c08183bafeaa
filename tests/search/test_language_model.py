"""The LSTM language model as search sees it."""

import pytest
import torch

from las.model.language_model import LanguageModel, LanguageModelConfig, LanguageModelSteps
from las.search.language_model import LanguageModelScorer

NEVER = (0, 1, 2)


def model_of() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(LanguageModelConfig(embedding=4, width=6, layers=2), 8).double().eval()


@torch.no_grad()
@pytest.mark.parametrize("kept", [[0, 1, 2], [0, 2], [1]])
def test_beams_are_scored_by_all_their_tokens_whoever_left(kept):
    model = model_of()
    scorer = LanguageModelScorer(LanguageModelSteps(model, never=NEVER), 3)
    _, state = scorer.step(torch.tensor([[2], [2], [2]]), scorer.start())
    state = scorer.select(state, torch.arange(3), torch.zeros(3, 2, dtype=torch.int64))
    _, state = scorer.step(torch.tensor([[4, 5], [5, 6], [6, 7]]), state)
    state = scorer.select(state, torch.tensor(kept), torch.tensor([[1, 0]]).expand(len(kept), 2))
    scores, _ = scorer.step(torch.tensor([[7, 4]]).expand(len(kept), 2), state)
    first = torch.tensor([[5, 4], [6, 5], [7, 6]])[kept]  # what the new beams' parents had
    for row in range(len(kept)):
        for beam, last in enumerate((7, 4)):
            logits = model(torch.tensor([[2, first[row, beam], last]]))[0, -1]
            logits[list(NEVER)] = -torch.inf
            torch.testing.assert_close(scores[row, beam], logits.log_softmax(0), rtol=0, atol=1e-12)
