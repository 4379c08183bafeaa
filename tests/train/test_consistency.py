from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from las.batch import Batch, pad
from las.data.augment import change_speed
from las.model.las import Listened, Output
from las.model.masking import valid_frames
from las.train.consistency import disagreement, two_passes

V = 5  # tokens


def passes(lengths, frames, logits, ctc_logits):
    """Two passes over utterances of these lengths: an output and its batch."""
    lengths, frames = torch.tensor(lengths * 2), torch.tensor(frames * 2)
    tokens = torch.ones(len(lengths), int(lengths.max()), dtype=torch.int64)
    batch = Batch([""] * len(lengths), torch.zeros(len(lengths), 1), torch.ones_like(lengths), tokens, lengths)
    listened = Listened(
        torch.zeros(len(lengths), int(frames.max()), 1), frames, valid_frames(frames, int(frames.max()))
    )
    return Output(logits, torch.zeros(()), ctc_logits, listened), batch


def test_passes_that_say_the_same_are_not_apart():
    torch.manual_seed(0)
    logits, ctc = torch.randn(2, 4, V).repeat(2, 1, 1), torch.randn(2, 6, V).repeat(2, 1, 1)
    found = disagreement(*passes([3, 1], [6, 2], logits, ctc))
    assert (found.speller.item(), found.ctc.item()) == (0.0, 0.0)


def test_the_divergence_is_that_of_the_formula():
    """Of one token and one frame: .5 .5 there, .8 .2 here, other tokens impossible."""
    one, other = torch.tensor([0.5, 0.5, 0, 0, 0]), torch.tensor([0.8, 0.2, 0, 0, 0])
    both = torch.stack([one, other]).clamp(min=1e-30).log().unsqueeze(1)  # (2, 1, V)
    by_hand = 0.5 * ((one - other) * (one / other).log())[:2].sum().item()
    found = disagreement(*passes([0], [1], both, both))
    assert found.speller.item() == pytest.approx(by_hand, rel=1e-5)
    assert found.ctc.item() == pytest.approx(by_hand, rel=1e-5)


def test_padding_is_not_compared():
    torch.manual_seed(1)
    logits, ctc = torch.randn(4, 4, V), torch.randn(4, 6, V)
    together = disagreement(*passes([3, 1], [6, 2], logits, ctc))
    long = disagreement(*passes([3], [6], logits[::2], ctc[::2]))
    short = disagreement(*passes([1], [2], logits[1::2, :2], ctc[1::2, :2]))
    assert together.speller.item() == pytest.approx((long.speller + short.speller).item(), rel=1e-6)
    assert together.ctc.item() == pytest.approx((long.ctc + short.ctc).item(), rel=1e-6)


def test_each_pass_goes_half_way_to_the_other_as_it_stands():
    """The gradient of a cross-entropy is what is said less what it should be; of the other pass there is none."""
    torch.manual_seed(2)
    logits = torch.randn(2, 1, V, requires_grad=True)
    disagreement(*passes([0], [1], logits, None)).speller.backward()
    said = logits.detach().softmax(-1)
    torch.testing.assert_close(logits.grad[0], (said[0] - said[1]) / 2)
    torch.testing.assert_close(logits.grad[1], (said[1] - said[0]) / 2)


def test_without_ctc_only_the_speller_is_compared():
    torch.manual_seed(3)
    found = disagreement(*passes([2], [3], torch.randn(2, 3, V), None))
    assert found.speller > 0
    assert found.ctc.item() == 0.0


def test_ctc_is_compared_where_both_passes_have_the_same_frames():
    torch.manual_seed(4)
    logits, ctc = torch.randn(2, 4, V), torch.randn(2, 6, V)
    output, batch = passes([3], [6], logits, ctc)
    other = replace(output, listened=replace(output.listened, lengths=torch.tensor([6, 5])))
    assert disagreement(output, batch).ctc > 0
    assert disagreement(other, batch).ctc.item() == 0.0
    assert disagreement(other, batch).speller == disagreement(output, batch).speller


def test_each_pass_is_heard_at_a_speed_of_its_own():
    torch.manual_seed(5)
    rate, rows = 8_000, [torch.randn(4_000), torch.randn(2_500)]
    waves, samples = pad(rows)
    batch = Batch(["a", "b"], waves, samples, torch.tensor([[3, 4], [5, 0]]), torch.tensor([2, 1]))
    found = [two_passes(batch, (0.8, 1.0, 1.25), rate, 0, update) for update in range(20)]
    drawn = set()
    for update, both in enumerate(found):
        assert both.ids == ["a", "b"] * 2
        assert torch.equal(both.tokens, batch.tokens.repeat(2, 1))
        assert both.lengths.tolist() == [2, 1, 2, 1]
        speeds = tuple(round(4_000 / int(both.samples[first]), 2) for first in (0, 2))
        for row, (wave, speed) in enumerate((wave, speed) for speed in speeds for wave in rows):
            expected = change_speed(wave, speed, rate)
            assert torch.equal(both.waves[row, : int(both.samples[row])], expected)
        drawn.add(speeds)
        assert torch.equal(both.waves, two_passes(batch, (0.8, 1.0, 1.25), rate, 0, update).waves)
    assert len(drawn) > 4
    assert torch.equal(two_passes(batch, (), rate, 0, 0).waves, batch.repeated(2).waves)
