"""The BiLSTM against torch's own packed one, which is the slow independent reference."""

import os

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from las.model.lstm import SPAN, BiLSTM, OwnLoops

LENGTHS = torch.tensor([2 * SPAN + 5, 1, SPAN, 17])
TIME = int(LENGTHS.max()) + 3  # even the longest utterance is padded


def packed(lstm: nn.LSTM, frames: Tensor, lengths: Tensor) -> Tensor:
    sequence = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(sequence)[0], batch_first=True, total_length=frames.shape[1])[0]


def by_own_loops(lstm: nn.LSTM, frames: Tensor, lengths: Tensor) -> Tensor:
    return OwnLoops.apply(frames, lengths, frames.dtype, *lstm.parameters())


def gradients(output: Tensor, frames: Tensor, lstm: nn.LSTM) -> list[Tensor]:
    weighting = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).sin().view_as(output)
    return list(torch.autograd.grad((output * weighting).sum(), [frames, *lstm.parameters()], retain_graph=True))


def test_own_loops_equal_packed_lstm_in_float64():
    torch.manual_seed(0)
    lstm = nn.LSTM(5, 7, batch_first=True, bidirectional=True).double()
    frames = torch.randn(len(LENGTHS), TIME, 5, dtype=torch.float64, requires_grad=True)
    expected, output = packed(lstm, frames, LENGTHS), by_own_loops(lstm, frames, LENGTHS)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-9)
    for ours, theirs in zip(gradients(output, frames, lstm), gradients(expected, frames, lstm), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_own_gradients_are_the_numerical_ones():
    torch.manual_seed(0)
    lstm = nn.LSTM(2, 3, batch_first=True, bidirectional=True).double()
    frames = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    weights = [weight.detach().requires_grad_() for weight in lstm.parameters()]
    lengths = torch.tensor([4, 2])
    assert torch.autograd.gradcheck(
        lambda frames, *weights: OwnLoops.apply(frames, lengths, torch.float64, *weights), (frames, *weights)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lengths", [LENGTHS, torch.full_like(LENGTHS, TIME)], ids=["ragged", "full"])
def test_module_equals_packed_lstm(dtype, training, lengths):
    torch.manual_seed(0)
    layer = BiLSTM(5, 7).to(dtype)
    frames = torch.randn(len(LENGTHS), TIME, 5, dtype=dtype, requires_grad=training)
    with torch.set_grad_enabled(training):
        output, expected = layer(frames, lengths), packed(layer.lstm, frames, lengths)
    close = {"rtol": 0, "atol": 1e-9 if dtype == torch.float64 else 1e-5}
    torch.testing.assert_close(output, expected, **close)
    if training:
        ours, theirs = gradients(output, frames, layer.lstm), gradients(expected, frames, layer.lstm)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, **close)


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_stays_near_fp32(training):
    """Within 1% of what outputs reach (1); gradients within 2% in length, 3% where the bias sums many."""
    torch.manual_seed(0)
    layer = BiLSTM(40, 64)
    frames = torch.randn(len(LENGTHS), TIME, 40, requires_grad=True)
    exact = packed(layer.lstm, frames, LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.set_grad_enabled(training):
        rounded = layer(frames, LENGTHS)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.01
    if training:
        for ours, exactly in zip(
            gradients(rounded, frames, layer.lstm), gradients(exact, frames, layer.lstm), strict=True
        ):
            assert (ours - exactly).norm() < 0.03 * exactly.norm()


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_padding_is_zero_and_has_no_influence(autocast, training):
    torch.manual_seed(0)
    layer = BiLSTM(5, 8)
    frames = torch.randn(len(LENGTHS), TIME, 5)
    padding = torch.arange(TIME) >= LENGTHS.unsqueeze(1)
    outputs, weight_gradients = [], []
    for filling in (0.0, 1e4):
        filled = frames.masked_fill(padding.unsqueeze(2), filling).requires_grad_(training)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), torch.set_grad_enabled(training):
            output = layer(filled, LENGTHS)
        assert output[padding].abs().max() == 0
        outputs.append(output.detach())
        if training:
            to_frames, *to_weights = gradients(output, filled, layer.lstm)
            assert to_frames[padding].abs().max() == 0
            assert to_frames[~padding].abs().amax(1).min() > 0
            weight_gradients.append(torch.cat([gradient.flatten() for gradient in to_weights]))
    assert torch.equal(*outputs)
    assert not training or torch.equal(*weight_gradients)


def test_backward_may_be_repeated():
    layer, frames = BiLSTM(3, 4), torch.randn(2, 5, 3, requires_grad=True)
    output = by_own_loops(layer.lstm, frames, torch.tensor([5, 2]))
    for first, second in zip(*(gradients(output, frames, layer.lstm) for _ in range(2)), strict=True):
        assert torch.equal(first, second)


def test_frozen_frames_and_weights_get_no_gradient():
    layer, frames = BiLSTM(3, 4), torch.randn(2, 5, 3)
    layer.lstm.weight_hh_l0.requires_grad_(False)
    output = by_own_loops(layer.lstm, frames, torch.tensor([5, 2]))
    output.sum().backward()
    assert frames.grad is None
    assert layer.lstm.weight_hh_l0.grad is None
    assert layer.lstm.weight_hh_l0_reverse.grad is not None


def test_weights_are_those_of_an_lstm():
    theirs, ours = nn.LSTM(5, 7, batch_first=True, bidirectional=True), BiLSTM(5, 7)
    ours.lstm.load_state_dict(theirs.state_dict())
    back = nn.LSTM(5, 7, batch_first=True, bidirectional=True)
    back.load_state_dict(ours.lstm.state_dict())
    frames = torch.randn(2, 6, 5)
    lengths = torch.tensor([6, 4])
    torch.testing.assert_close(ours(frames, lengths), packed(back, frames, lengths))


def test_number_of_threads_is_left_alone():
    before = torch.get_num_threads()
    by_own_loops(BiLSTM(3, 4).lstm, torch.randn(2, 5, 3), torch.tensor([5, 2]))
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_makes_threads_of_its_own():
    lstm, frames, lengths = BiLSTM(3, 4).lstm, torch.randn(2, 5, 3), torch.tensor([5, 2])
    by_own_loops(lstm, frames, lengths)
    child = os.fork()
    if child == 0:  # without threads of its own it would wait for ever
        by_own_loops(lstm, frames, lengths)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
