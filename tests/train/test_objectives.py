from __future__ import annotations

import itertools
import math

import pytest
import torch

from las.batch import Batch
from las.errors import UserError
from las.model.las import Listened, Output
from las.model.masking import valid_frames
from las.train.objectives import ObjectiveConfig, losses

END = 3
V = 6  # tokens


def batch_of(rows):
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
    ids = [f"u{number}" for number in range(len(rows))]
    return Batch(ids, torch.zeros(len(rows), 1), torch.ones(len(rows), dtype=torch.int64), tokens, lengths)


def output_of(logits, ctc_logits=None, frames=None):
    frames = torch.tensor(frames if frames is not None else [1] * len(logits))
    listened = Listened(torch.zeros(len(logits), int(frames.max()), 1), frames, valid_frames(frames, int(frames.max())))
    return Output(logits, torch.zeros(()), ctc_logits, listened)


def test_certain_and_right_costs_nothing():
    batch = batch_of([[4, 5], [4]])
    target = torch.tensor([[4, 5, END], [4, END, 0]])
    logits = 1000.0 * torch.nn.functional.one_hot(target, V).float()
    logits[1, 2] = 1000.0 * torch.nn.functional.one_hot(torch.tensor(5), V)  # padding is not looked at
    found = losses(output_of(logits), batch, END, smoothing=0.0)
    assert (found.speller.item(), found.tokens, found.correct.item()) == (0.0, 5, 5)
    assert (found.ctc.item(), found.pathless) == (0.0, [])


def test_knowing_nothing_costs_the_logarithm_of_the_vocabulary_a_token():
    found = losses(output_of(torch.zeros(2, 3, V)), batch_of([[4, 5], [4]]), END, smoothing=0.1)
    assert found.speller.item() == pytest.approx(5 * math.log(V))


def test_losses_add_up_over_utterances():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, V)
    ctc = torch.randn(2, 4, V)
    together = losses(output_of(logits, ctc, [4, 3]), batch_of([[4, 5], [4]]), END, 0.1)
    first = losses(output_of(logits[:1], ctc[:1], [4]), batch_of([[4, 5]]), END, 0.1)
    second = losses(output_of(logits[1:, :2], ctc[1:, :3], [3]), batch_of([[4]]), END, 0.1)
    assert together.speller.item() == pytest.approx(first.speller.item() + second.speller.item(), rel=1e-5)
    assert together.ctc.item() == pytest.approx(first.ctc.item() + second.ctc.item(), rel=1e-5)
    assert together.tokens == first.tokens + second.tokens


def test_ctc_is_the_sum_over_all_paths():
    """The slow way: every path of 3 frames over 3 tokens that reads `1 2` when repeats and blanks (0) are gone."""
    torch.manual_seed(1)
    logits = torch.randn(1, 3, 3)
    probability = logits[0].softmax(-1)
    total = 0.0
    for path in itertools.product(range(3), repeat=3):
        read = [token for token, _ in itertools.groupby(path) if token != 0]
        if read == [1, 2]:
            total += math.prod(probability[frame, token].item() for frame, token in enumerate(path))
    found = losses(output_of(torch.zeros(1, 3, 3), logits, [3]), batch_of([[1, 2]]), end=2, smoothing=0.0)
    assert found.ctc.item() == pytest.approx(-math.log(total), rel=1e-5)


def test_an_utterance_without_a_path_is_named_and_weighs_nothing():
    ctc = torch.randn(2, 4, V, requires_grad=True)
    batch = batch_of([[4, 4, 5], [4, 5]])  # the first needs 4 frames and has 3
    found = losses(output_of(torch.zeros(2, 4, V), ctc, [3, 4]), batch, END, 0.0)
    assert found.pathless == ["u0"]
    found.ctc.backward()
    assert ctc.grad is not None
    assert not ctc.grad[0].any()
    assert ctc.grad[1].any()
    assert ctc.grad.isfinite().all()
    alone = losses(output_of(torch.zeros(1, 3, V), ctc[1:].detach(), [4]), batch_of([[4, 5]]), END, 0.0)
    assert found.ctc.item() == pytest.approx(alone.ctc.item(), rel=1e-5)


def test_losses_are_float32_whatever_the_logits_are():
    with torch.autocast("cpu", torch.bfloat16):
        logits, ctc = torch.zeros(1, 3, V, dtype=torch.bfloat16), torch.zeros(1, 4, V, dtype=torch.bfloat16)
        found = losses(output_of(logits, ctc, [4]), batch_of([[4, 5]]), END, 0.1)
    assert found.speller.dtype == found.ctc.dtype == torch.float32


@pytest.mark.parametrize("settings", [{"ctc_weight": 1.5}, {"ctc_weight": -0.1}, {"label_smoothing": 1.0}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(UserError, match="ctc_weight must be between 0 and 1, label_smoothing at least 0 and below 1"):
        ObjectiveConfig(**settings)
