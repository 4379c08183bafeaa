"""The language model: its two passes agree, and its loss is that of Graves' equations."""

import math

import pytest
import torch

from las.errors import UserError
from las.model.language_model import LanguageModel, LanguageModelConfig, LanguageModelSteps

VOCABULARY = 7
SHAPES = [
    {"layers": 1},
    {"layers": 3},
    {"layers": 3, "skip": False},
    {"layers": 2, "tied": True},
    {"layers": 2, "tied": True, "skip": False},
]


def model_of(**changes) -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(embedding=3, width=5, **changes), VOCABULARY).double().eval()
    for value in model.parameters():
        torch.nn.init.normal_(value)
    return model


@torch.no_grad()
@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_steps_say_what_the_teacher_forced_pass_says(changes):
    model = model_of(**changes)
    tokens = torch.randint(0, VOCABULARY, (4, 6))
    steps = LanguageModelSteps(model)
    state, found = steps.start(4), []
    for token in tokens.split(1, dim=1):
        scores, state = steps.step(token, state)
        found.append(scores)
    torch.testing.assert_close(torch.cat(found, 1), model(tokens).log_softmax(-1), rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_stack_is_that_of_the_paper():
    """h^n_t = H(W x_t + W h^{n-1}_t + W h^n_{t-1} + b), y_t = b + sum of W h^n_t over layers, written one by one."""
    model = model_of(layers=3)
    tokens = torch.tensor([2, 4, 6])
    hidden, cells = [torch.zeros(5).double()] * 3, [torch.zeros(5).double()] * 3
    for token in tokens:
        x = model.embedding.weight[token]
        y = model.output.bias.clone()
        for n, layer in enumerate(model.layers):
            gates = layer.weight_ih_l0[:, :3] @ x + layer.weight_hh_l0 @ hidden[n] + layer.bias_ih_l0 + layer.bias_hh_l0
            if n > 0:
                gates += layer.weight_ih_l0[:, 3:] @ hidden[n - 1]
            i, f, g, o = gates.split(5)
            cells[n] = f.sigmoid() * cells[n] + i.sigmoid() * g.tanh()
            hidden[n] = o.sigmoid() * cells[n].tanh()
            y += model.output.weight[:, 5 * n : 5 * n + 5] @ hidden[n]
    torch.testing.assert_close(model(tokens.unsqueeze(0))[0, -1], y, rtol=0, atol=1e-12)


@torch.no_grad()
def test_select_moves_every_layer_of_the_state():
    steps = LanguageModelSteps(model_of(layers=2))
    _, state = steps.step(torch.tensor([[1], [2], [3]]), steps.start(3))
    kept = state.select(torch.tensor([0, 2]), torch.tensor([[0, 0], [0, 0]]))
    ours, _ = steps.step(torch.tensor([[4, 5], [4, 5]]), kept)
    for row, first in enumerate((1, 3)):
        for beam, second in enumerate((4, 5)):
            _, alone = steps.step(torch.tensor([[first]]), steps.start(1))
            expected, _ = steps.step(torch.tensor([[second]]), alone)
            torch.testing.assert_close(ours[row, beam], expected[0, 0], rtol=0, atol=1e-12)


@torch.no_grad()
def test_tokens_that_never_come_leave_their_probability_to_the_others():
    model = model_of()
    scores, _ = LanguageModelSteps(model, never=(0, 2)).step(torch.tensor([[2]]), LanguageModelSteps(model).start(1))
    logits = model(torch.tensor([[2]]))[0, 0]
    assert (scores[0, 0, [0, 2]] == -torch.inf).all()
    kept = [1, 3, 4, 5, 6]
    torch.testing.assert_close(scores[0, 0, kept], logits[kept].log_softmax(0), rtol=0, atol=1e-12)


@torch.no_grad()
def test_steps_in_bfloat16_are_near():
    model = LanguageModel(LanguageModelConfig(embedding=32, width=64), 50).eval()
    exact, rough = LanguageModelSteps(model), LanguageModelSteps(model, torch.bfloat16)
    one, other = exact.start(2), rough.start(2)
    for token in torch.randint(0, 50, (2, 9)).split(1, dim=1):
        wanted, one = exact.step(token, one)
        found, other = rough.step(token, other)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.01)


def test_steps_are_a_copy():
    model = model_of()
    steps = LanguageModelSteps(model, never=(0,))
    before = steps.step(torch.tensor([[2]]), steps.start(1))[0]
    assert model.output.bias.isfinite().all()
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    after = steps.step(torch.tensor([[2]]), steps.start(1))[0]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_an_untrained_model_knows_about_nothing():
    torch.manual_seed(0)
    logits = LanguageModel(LanguageModelConfig(embedding=8, width=16, tied=True), 50)(torch.randint(0, 50, (3, 20)))
    entropy = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
    assert (entropy > math.log(50) - 0.1).all()


def test_tied_weights_are_one():
    model = LanguageModel(LanguageModelConfig(tied=True), 50)
    assert model.output.weight is model.embedding.weight


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "embedding, width and layers of a language model must be at least 1"),
        ({"dropout": 1.0}, "model.dropout 1.0 must be at least 0 and below 1"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        LanguageModelConfig(**changes)
