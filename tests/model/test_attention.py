"""Attention of every kind: exact masks, weights that sum to one, and an example by eye for each."""

import math

import pytest
import torch
from torch import Tensor

from las.errors import UserError
from las.model.attention import KINDS, AttentionConfig, ContentAttention, LocationAttention, Memory
from las.model.masking import valid_frames

Attention = ContentAttention | LocationAttention
LENGTHS = torch.tensor([7, 3, 1, 6])
VALID = valid_frames(LENGTHS, 7)


def made(kind: str) -> tuple[Attention, Tensor, Tensor]:
    """An attention, questions of three steps (3, 4, 2, 5) and frames (4, 7, 6)."""
    torch.manual_seed(0)
    config = AttentionConfig(kind, width=4, kernel=3, channels=2)
    attention = KINDS[kind](config, speller_width=5, frame_width=6).double()
    return attention, torch.randn(3, 4, 2, 5).double(), torch.randn(4, 7, 6).double()


def steps(attention: Attention, questions: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    """Contexts and weights of the steps one after another: (steps, B, Q, H), (steps, B, Q, S)."""
    state = attention.start(memory, questions.shape[2])
    contexts, weights = [], []
    for question in questions:
        context, weight, state = attention(question, memory, state)
        contexts.append(context)
        weights.append(weight)
    return torch.stack(contexts), torch.stack(weights)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_content_by_eye():
    attention = ContentAttention(AttentionConfig(width=2), speller_width=2, frame_width=2)
    for linear in (attention.query, attention.key):
        torch.nn.init.eye_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    frames = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    memory = attention.remember(frames, torch.tensor([[True, True, False]]))
    questions = torch.tensor(
        [[[[math.log(3), 0.0], [0.0, 0.0]]]]
    )  # the first likes the first frame three times as much
    contexts, weights = steps(attention, questions, memory)
    torch.testing.assert_close(weights[0], torch.tensor([[[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]]]))
    torch.testing.assert_close(contexts[0], torch.tensor([[[0.75, 0.25], [0.5, 0.5]]]))


def test_location_by_eye():
    """Equal frames; a kernel that looks one frame back moves on from where it was, and padding holds it."""
    config = AttentionConfig("location", width=1, kernel=3, channels=1)
    attention = LocationAttention(config, speller_width=1, frame_width=1)
    for weight in attention.parameters():
        torch.nn.init.zeros_(weight)
    attention.location.weight.data[0, 0] = torch.tensor([1000.0, 0.0, 0.0])
    attention.place.weight.data.fill_(1.0)
    attention.energy.weight.data.fill_(1000.0)
    memory = attention.remember(torch.ones(1, 4, 1), torch.tensor([[True, True, True, False]]))
    state = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]])
    _, weights, seen = attention(torch.zeros(1, 3, 1), memory, state)
    third = 1 / 3  # from the last frame there is nowhere to go
    expected = torch.tensor([[[0.0, 1, 0, 0], [0, 0, 1, 0], [third, third, third, 0]]])
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(seen, state + expected)


@torch.no_grad()
def test_location_equals_its_formula_frame_by_frame():
    attention, questions, frames = made("location")
    _, weights = steps(attention, questions, attention.remember(frames, VALID))
    for row, length in enumerate(LENGTHS.tolist()):
        summed = [0.0] * length
        for step in range(len(questions)):
            energies = []
            for place in range(length):
                around = [summed[one] if 0 <= one < length else 0.0 for one in (place - 1, place, place + 1)]
                seen = attention.location.weight[:, 0] @ torch.tensor(around, dtype=torch.float64)
                mixed = (
                    attention.query.weight @ questions[step, row, 0]
                    + attention.key(frames[row, place])
                    + attention.place.weight @ seen
                )
                energies.append(float(attention.energy.weight[0] @ mixed.tanh()))
            total = sum(math.exp(energy) for energy in energies)
            expected = [math.exp(energy) / total for energy in energies]
            close(weights[step, row, 0, :length], torch.tensor(expected, dtype=torch.float64))
            summed = [old + new for old, new in zip(summed, expected, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_weights_are_a_distribution_over_real_frames(kind, scale):
    attention, questions, frames = made(kind)
    _, weights = steps(attention, questions * scale, attention.remember(frames, VALID))
    assert weights.shape == (3, 4, 2, 7)
    assert (weights >= 0).all()
    assert (weights.masked_fill(VALID.unsqueeze(1), 0.0) == 0).all()
    close(weights.sum(3), torch.ones(3, 4, 2).double())


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_one_utterance_is_heard_as_in_the_batch_whatever_the_padding_holds(kind):
    attention, questions, frames = made(kind)
    results = []
    for filling in (0.0, 1e5):
        filled = frames.masked_fill(~VALID.unsqueeze(2), filling)
        results.append(steps(attention, questions, attention.remember(filled, VALID)))
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs)
    for row, length in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1)
        memory = attention.remember(frames[one, :length], VALID[one, :length])
        contexts, weights = steps(attention, questions[:, one], memory)
        close(results[0][0][:, one], contexts)
        close(results[0][1][:, one, :, :length], weights)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_questions_do_not_disturb_each_other(kind):
    attention, questions, frames = made(kind)
    memory = attention.remember(frames, VALID)
    together, _ = steps(attention, questions, memory)
    apart = torch.cat([steps(attention, questions[:, :, place : place + 1], memory)[0] for place in range(2)], 2)
    close(together, apart)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chosen", [[0, 2, 3], [3, 0, 1, 2]])
def test_select_keeps_the_named_utterances_in_the_named_order(kind, chosen):
    attention, questions, frames = made(kind)
    memory = attention.remember(frames, VALID)
    rows = torch.tensor(chosen, dtype=torch.int64)
    selected = steps(attention, questions[:, rows], memory.select(rows))
    for ours, theirs in zip(selected, steps(attention, questions, memory), strict=True):
        close(ours, theirs[:, rows])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_questions_and_real_frames_only(kind):
    attention, questions, frames = made(kind)
    questions.requires_grad_()
    frames.requires_grad_()
    contexts, _ = steps(attention, questions, attention.remember(frames, VALID))
    contexts.square().sum().backward()
    assert questions.grad is not None
    assert frames.grad is not None
    assert (questions.grad[:, LENGTHS > 1] != 0).all()
    assert (frames.grad[VALID] != 0).all()
    assert (frames.grad[~VALID] == 0).all()
    idle = [name for name, weight in attention.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "loction"}, "attention.kind 'loction': wanted one of content, location"),
        ({"width": 0}, "attention: width and channels must be at least 1"),
        ({"channels": 0}, "attention: width and channels must be at least 1"),
        ({"kernel": 30}, "attention.kernel 30 must be odd"),
        ({"kernel": -1}, "attention.kernel -1 must be odd"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        AttentionConfig(**settings)
