"""The GRU listener layer: torch's own, for each utterance as if it were alone."""

import pytest
import torch

from las.model.gru import BiGRU


@pytest.mark.parametrize("autocast", [False, True])
def test_each_utterance_is_heard_as_if_alone_and_padding_is_zero(autocast):
    torch.manual_seed(0)
    layer = BiGRU(3, 4)
    frames, lengths = torch.randn(3, 6, 3), torch.tensor([4, 6, 1])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        together = layer(frames, lengths)
        assert together.shape == (3, 6, 8)
        for row, length in enumerate(lengths.tolist()):
            alone, _ = layer.gru(frames[row : row + 1, :length])
            torch.testing.assert_close(together[row, :length], alone[0], rtol=0, atol=2e-2 if autocast else 1e-6)
            assert not together[row, length:].any()
    together.float().square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in layer.parameters())
