from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from las.batch import Batch
from las.errors import UserError
from las.model.las import Listened, Output
from las.model.masking import valid_frames
from las.train.objectives import ObjectiveConfig, guide, losses, token_shares

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


def test_smoothing_by_equal_shares_is_uniform_smoothing():
    torch.manual_seed(2)
    logits, batch = torch.randn(2, 3, V), batch_of([[4, 5], [4]])
    uniform = losses(output_of(logits), batch, END, 0.1)
    shares = losses(output_of(logits), batch, END, 0.1, torch.full((V,), 1 / V))
    assert shares.speller.item() == pytest.approx(uniform.speller.item(), rel=1e-6)


def test_smoothed_by_shares_the_best_guess_is_the_mixture():
    """The cross-entropy is least, its gradient zero, where the model says the smoothed target."""
    shares = token_shares([[4, 5], [4]], V, END)
    mixture = 0.9 * torch.nn.functional.one_hot(torch.tensor([5, END]), V) + 0.1 * shares
    logits = (mixture + 1e-12).log().unsqueeze(0).requires_grad_()
    losses(output_of(logits), batch_of([[5]]), END, 0.1, shares).speller.backward()
    assert logits.grad.abs().max() < 1e-6


def test_smoothing_has_a_start_and_an_end():
    config = ObjectiveConfig(label_smoothing=0.1, smoothing_start=2, smoothing_end=4)
    assert [config.smoothing_at(update) for update in range(6)] == [0, 0, 0.1, 0.1, 0, 0]
    assert [ObjectiveConfig(label_smoothing=0.1).smoothing_at(update) for update in (0, 10**9)] == [0.1, 0.1]


def test_the_ctc_weight_stays_or_goes_straight():
    assert {ObjectiveConfig(ctc_weight=0.3).ctc_weight_at(update) for update in (0, 5, 10**9)} == {0.3}
    config = ObjectiveConfig(ctc_weight=0.0, ctc_weight_to=1.0, ctc_weight_over=10)
    assert [config.ctc_weight_at(update) for update in (0, 5, 10, 20)] == [0.0, 0.5, 1.0, 1.0]


def attending(weights, rows, frames):
    output = output_of(torch.zeros(len(rows), weights.shape[1], V), frames=frames)
    return replace(output, weights=weights), batch_of(rows)


def test_attention_on_the_diagonal_loses_nothing_and_off_it_much():
    diagonal = torch.eye(3).unsqueeze(0)  # two tokens and the end, three frames
    assert guide(*attending(diagonal, [[4, 5]], [3]), 0.2).item() == pytest.approx(0, abs=1e-6)
    far = 1 - math.exp(-((2 / 3) ** 2) / (2 * 0.2**2))
    assert guide(*attending(diagonal.flip(2), [[4, 5]], [3]), 0.2).item() == pytest.approx(2 * far)


def test_padding_is_not_guided():
    """An utterance costs the same alone and beside a longer one, whatever stands in its padding."""
    torch.manual_seed(3)
    alone = torch.rand(1, 2, 3)
    padded = torch.rand(2, 4, 5)
    padded[0, :2, :3] = alone[0]
    long = padded[1:].clone()
    together = guide(*attending(padded, [[4], [4, 5, 4]], [3, 5]), 0.2).item()
    apart = guide(*attending(alone, [[4]], [3]), 0.2) + guide(*attending(long, [[4, 5, 4]], [5]), 0.2)
    assert together == pytest.approx(apart.item(), rel=1e-6)


def test_utterances_heard_twice_count_once():
    torch.manual_seed(0)
    logits, ctc = torch.randn(2, 3, V), torch.randn(2, 4, V)
    once = losses(output_of(logits, ctc, [4, 1]), batch_of([[4, 5], [4, 4]]), END, 0.1)
    rows = batch_of([[4, 5], [4, 4]]).repeated(2)
    twice = losses(output_of(logits.repeat(2, 1, 1), ctc.repeat(2, 1, 1), [4, 1, 4, 1]), rows, END, 0.1).a_pass(2)
    assert (twice.speller.item(), twice.ctc.item()) == pytest.approx((once.speller.item(), once.ctc.item()), rel=1e-6)
    assert (twice.tokens, twice.correct.item(), twice.pathless) == (once.tokens, once.correct.item(), ["u1"])


def test_guidance_fades():
    config = ObjectiveConfig(guide_weight=2.0, guide_over=4)
    assert [config.guide_weight_at(update) for update in range(6)] == [2.0, 1.5, 1.0, 0.5, 0.0, 0.0]
    assert ObjectiveConfig(guide_weight=2.0).guide_weight_at(10**9) == 2.0
    assert ObjectiveConfig().guide_weight_at(0) == 0.0


@pytest.mark.parametrize("settings", [{"ctc_weight": 1.5}, {"ctc_weight": -0.1}, {"label_smoothing": 1.0}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(UserError, match="ctc_weight must be between 0 and 1, label_smoothing at least 0 and below 1"):
        ObjectiveConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ctc_weight_to": 1.1, "ctc_weight_over": 5}, "ctc_weight_to must be between 0 and 1, and ctc_weight_over at"),
        ({"ctc_weight_to": 0.1}, "ctc_weight_over at least 1 with it"),
        ({"ctc_weight_over": 5}, "objective.ctc_weight_over: says how fast, not where to; set objective.ctc_weight_to"),
        ({"smoothing": "bigram"}, "objective.smoothing 'bigram': wanted one of uniform, unigram"),
        ({"smoothing_start": 3, "smoothing_end": 2}, "objective.smoothing_start 3, objective.smoothing_end 2: the end"),
        ({"guide_weight": -1.0}, "guide_weight and guide_over must be 0 or more, guide_width above 0"),
        ({"guide_width": 0.0}, "guide_width above 0"),
        ({"ctc_consistency": -0.1}, "ctc_consistency and speller_consistency must be 0 or more"),
        (
            {"speller_consistency": 1.0, "pass_speeds": (0.9, 3.0)},
            r"objective.pass_speeds \[0\.9, 3\.0\]: each between",
        ),
        ({"ctc_consistency": 1.0, "pass_speeds": (0.9, 1.1)}, "objective.pass_speeds without speller_consistency"),
        ({"speller_consistency": -1.0}, "ctc_consistency and speller_consistency must be 0 or more"),
    ],
)
def test_other_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        ObjectiveConfig(**settings)
