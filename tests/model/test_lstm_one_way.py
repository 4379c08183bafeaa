"""The forward LSTM's own loops against torch's LSTM."""

import pytest
import torch
from torch import nn

from las.model.lstm_one_way import OneWayLoops, one_way


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("batch", [1, 5])
def test_outputs_and_gradients_are_near_those_of_torch(threads, batch):
    torch.manual_seed(0)
    layer = nn.LSTM(6, 8, batch_first=True)
    frames = torch.randn(batch, 11, 6, requires_grad=True)
    wanted_outputs = layer(frames)[0]
    slope = torch.randn_like(wanted_outputs)
    wanted = torch.autograd.grad(wanted_outputs, [frames, *layer.parameters()], slope)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = one_way(layer, frames)
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, wanted_outputs, rtol=0, atol=0.02)
    for found, one in zip(torch.autograd.grad(outputs, [frames, *layer.parameters()], slope), wanted, strict=True):
        assert (found - one).norm() < 0.02 * one.norm()


def test_what_comes_later_changes_nothing(threads):
    layer = nn.LSTM(6, 8, batch_first=True)
    frames = torch.randn(3, 9, 6)
    longer = torch.cat([frames, torch.randn(3, 4, 6)], dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(one_way(layer, longer)[:, :9], one_way(layer, frames))


def test_inputs_without_gradients_are_read_too():
    layer = nn.LSTM(6, 8, batch_first=True)
    with torch.autocast("cpu", torch.bfloat16):
        one_way(layer, torch.randn(2, 3, 6)).sum().backward()
    assert all(value.grad is not None for value in layer.parameters())


def test_all_else_is_torchs(monkeypatch):
    monkeypatch.setattr(OneWayLoops, "apply", None)
    layer, frames = nn.LSTM(6, 8, batch_first=True), torch.randn(2, 3, 6)
    torch.testing.assert_close(one_way(layer, frames), layer(frames)[0], rtol=0, atol=0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert one_way(layer, frames).shape == (2, 3, 8)
