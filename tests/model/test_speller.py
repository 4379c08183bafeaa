"""One step for training and search: teacher-forced equals unrolled, for any number of layers and beams."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from las.errors import UserError
from las.model.attention import KINDS, AttentionConfig, Memory
from las.model.masking import valid_frames
from las.model.speller import Speller, SpellerConfig, SpellerState, cell_step

LENGTHS = torch.tensor([6, 1, 4])
TOKENS = torch.tensor([[2, 4, 5, 5, 6], [2, 7, 4, 0, 0], [2, 4, 4, 6, 0]])
CONFIG = SpellerConfig(width=6, embedding=3, dropout=0.5)


def speller_and_memory(layers: int = 1, kind: str = "location") -> tuple[Speller, Memory]:
    torch.manual_seed(layers)
    config = replace(CONFIG, layers=layers, attention=AttentionConfig(kind, width=4, kernel=3, channels=2))
    speller = Speller(config, frame_width=5, vocabulary=8).double().eval()
    for weight in speller.parameters():
        nn.init.normal_(weight, std=0.5)
    valid = valid_frames(LENGTHS, 6)
    frames = torch.randn(3, 6, 5).double() * valid.unsqueeze(2)
    return speller, speller.remember(frames, valid)


def unrolled(speller: Speller, tokens: Tensor, memory: Memory) -> tuple[Tensor, SpellerState]:
    """Logits of the steps over tokens (B, K, L), and the state after the last."""
    state = speller.start(memory, tokens.shape[1])
    logits = []
    for step in tokens.unbind(2):
        one, state = speller.step(step, state, memory)
        logits.append(one)
    return torch.stack(logits, 2), state


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_teacher_forced_equals_unrolled_steps(layers, kind):
    speller, memory = speller_and_memory(layers, kind)
    logits, weights = speller(TOKENS, memory)
    assert logits.shape == (3, 5, 8)
    state = speller.start(memory)
    for place in range(TOKENS.shape[1]):
        one, state = speller.step(TOKENS[:, place : place + 1], state, memory)
        torch.testing.assert_close(one[:, 0], logits[:, place], rtol=0, atol=1e-9)
        torch.testing.assert_close(state.weights[:, 0], weights[:, place], rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
def test_beams_are_spelled_as_if_each_were_alone(layers, kind):
    speller, memory = speller_and_memory(layers, kind)
    beams = torch.stack([TOKENS, TOKENS.flip(1)], 1)  # (B, 2, L)
    together, _ = unrolled(speller, beams, memory)
    apart = torch.cat([unrolled(speller, beams[:, place : place + 1], memory)[0] for place in range(2)], 1)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
def test_select_takes_each_beam_with_its_whole_past(layers, kind):
    speller, memory = speller_and_memory(layers, kind)
    beams = torch.stack([TOKENS, TOKENS.flip(1), TOKENS.roll(1, 1)], 1)  # (B, 3, L)
    utterances = torch.tensor([0, 2])
    parents = torch.tensor([[2, 2, 0, 1], [1, 0, 0, 2]])
    _, state = unrolled(speller, beams, memory)
    following = torch.tensor([[4, 5, 6, 7], [7, 7, 4, 5]])
    ours, _ = speller.step(following, state.select(utterances, parents), memory.select(utterances))
    pasts = torch.cat([beams[utterances.unsqueeze(1), parents], following.unsqueeze(2)], 2)
    theirs, _ = unrolled(speller, pasts, memory.select(utterances))
    torch.testing.assert_close(ours, theirs[:, :, -1], rtol=0, atol=1e-9)


def test_a_step_depends_on_the_last_context():
    speller, memory = speller_and_memory()
    start = speller.start(memory)
    fed = replace(start, context=start.context + 1)
    first, second = (speller.step(TOKENS[:, :1], state, memory)[0] for state in (start, fed))
    assert ((first - second).abs() > 1e-6).all()


def test_cell_step_is_that_of_torch():
    torch.manual_seed(0)
    cell = nn.LSTMCell(3, 4).double()
    read, output, memory = torch.randn(2, 3).double(), torch.randn(2, 4).double(), torch.randn(2, 4).double()
    gates = nn.functional.linear(read, cell.weight_ih, cell.bias_ih)
    gates = gates + nn.functional.linear(output, cell.weight_hh, cell.bias_hh)
    for ours, theirs in zip(cell_step(gates, memory), cell(read, (output, memory)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_dropout_in_training_only():
    speller, memory = speller_and_memory(2)
    assert torch.equal(speller(TOKENS, memory)[0], speller(TOKENS, memory)[0])
    speller.train()
    assert not torch.equal(speller(TOKENS, memory)[0], speller(TOKENS, memory)[0])


def test_gradients_reach_every_weight():
    speller, memory = speller_and_memory(2)
    speller(TOKENS, speller.remember(memory.frames, memory.hidden.squeeze(1) == 0))[0].square().sum().backward()
    unmoved = [name for name, weight in speller.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert [name for name in unmoved if not name.endswith("key.bias")] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "width, layers and embedding must be at least 1"),
        ({"width": 0}, "width, layers and embedding must be at least 1"),
        ({"dropout": -0.1}, r"speller.dropout -0\.1 must be at least 0 and below 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SpellerConfig(**settings)
