"""The pyramid: how many frames come out, how pairs are joined, and that neighbours do not matter."""

import pytest
import torch

from las.errors import UserError
from las.model.listener import ConvolutionalFront, Listener, ListenerConfig, concatenate, pool
from las.model.masking import valid_frames

CONFIGS = [
    ListenerConfig(width=2),
    ListenerConfig(width=2, reduce=(1,)),
    ListenerConfig(width=2, reduce=(2, 2, 2)),
    ListenerConfig(width=2, reduce=(3, 1, 2)),
    ListenerConfig(width=2, reduce=(1,), convolutions=2),
    ListenerConfig(width=2, reduce=(2, 1, 3), convolutions=3),
    ListenerConfig(width=2, reduce=(1, 2), cell="gru"),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_frames_out_is_what_comes_out(config):
    listener = Listener(config, 5).double().eval()
    lengths = torch.arange(1, 51)
    features = torch.randn(50, 50, 5, dtype=torch.float64)
    features = features * valid_frames(lengths, 50).unsqueeze(2)
    with torch.no_grad():
        together, frames = listener(features, lengths)
        assert frames.tolist() == [config.frames_out(time) for time in range(1, 51)]
        assert together.shape == (50, config.frames_out(50), listener.width)
        for time in range(1, 51):
            alone, count = listener(features[time - 1 : time, :time], torch.tensor([time]))
            assert alone.shape[1] == count.item() == config.frames_out(time)
            torch.testing.assert_close(together[time - 1, :count], alone[0], rtol=0, atol=1e-9)
            assert (together[time - 1, count:] == 0).all()


def test_reduction_is_what_long_utterances_lose():
    assert [config.reduction for config in CONFIGS] == [4, 1, 8, 6, 4, 24, 2]
    for config in CONFIGS:
        assert config.frames_out(1200) == 1200 // config.reduction


def test_pairs_are_joined_and_an_odd_tail_gets_a_zero_frame():
    features = torch.tensor([[[1, 2], [3, 4], [5, 6]], [[7, 8], [0, 0], [0, 0]]])
    joined, frames = concatenate(features, torch.tensor([3, 1]), 2)
    assert joined.tolist() == [[[1, 2, 3, 4], [5, 6, 0, 0]], [[7, 8, 0, 0], [0, 0, 0, 0]]]
    assert frames.tolist() == [2, 1]


def test_threes_are_joined():
    joined, frames = concatenate(torch.arange(1, 5).view(1, 4, 1), torch.tensor([4]), 3)
    assert joined.tolist() == [[[1, 2, 3], [4, 0, 0]]]
    assert frames.tolist() == [2]


def test_joining_one_frame_changes_nothing():
    features = torch.randn(2, 3, 4)
    assert concatenate(features, torch.tensor([3, 2]), 1)[0] is features


def test_convolutions_see_zeros_past_the_end():
    front = ConvolutionalFront(2, 5).double()
    for convolution in front.convolutions:
        torch.nn.init.constant_(convolution.bias, 0.7)  # so that padding would not stay 0 by itself
    features = torch.randn(3, 9, 5, dtype=torch.float64)
    lengths = torch.tensor([9, 6, 1])
    features = features * valid_frames(lengths, 9).unsqueeze(2)
    together, frames = front(features, lengths)
    assert together.shape == (3, 3, front.width)
    for row, length in enumerate(lengths.tolist()):
        alone, count = front(features[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row, : int(count)], alone[0], rtol=0, atol=1e-12)
        assert (together[row, int(frames[row]) :] == 0).all()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_dropout_sets_a_share_of_what_each_layer_says_to_zero(cell):
    """Between the layers and behind the last; the rest is made louder by as much. The features are left whole."""
    torch.manual_seed(0)
    listener = Listener(ListenerConfig(width=32, reduce=(1, 2, 1), dropout=0.3, cell=cell), 5)
    said, dropped, read = [], [], []
    for layer in listener.layers:
        layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        layer.register_forward_hook(lambda _, inputs, output: said.append(output))
    listener.dropout.register_forward_hook(lambda _, inputs, output: dropped.append((inputs[0], output)))
    features, frames = torch.randn(4, 50, 5), torch.full((4,), 50)
    listened, _ = listener(features, frames)
    assert torch.equal(read[0], features)
    assert len(dropped) == len(said) == 3
    for (before, after), layer, above in zip(dropped, said, (read[1].view(4, 50, 64), read[2], listened), strict=True):
        assert torch.equal(before, layer)
        assert torch.equal(after, above)
        assert torch.allclose(after, torch.where(after == 0, 0.0, before / 0.7))
        assert (after == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_dropout_in_training_only_and_padding_stays_zero():
    listener = Listener(ListenerConfig(width=8, dropout=0.5), 5)
    features, lengths = torch.randn(2, 12, 5), torch.tensor([12, 12])
    first, second = listener(features, lengths)[0], listener(features, lengths)[0]
    assert not torch.equal(first, second)
    shorter, frames = listener(features, torch.tensor([12, 4]))
    assert frames.tolist() == [3, 1]
    assert (shorter[1, 1:] == 0).all()
    listener.eval()
    assert torch.equal(listener(features, lengths)[0], listener(features, lengths)[0])


@pytest.mark.parametrize("running", [2, 3, 4])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_listener_that_is_not_grown_gives_as_many_frames_and_knows_no_neighbours(running, cell):
    config = ListenerConfig(width=2, reduce=(1, 2, 3, 2), cell=cell)
    listener = Listener(config, 5).double().eval()
    listener.running = running
    lengths = torch.arange(1, 30)
    features = torch.randn(29, 29, 5, dtype=torch.float64) * valid_frames(lengths, 29).unsqueeze(2)
    with torch.no_grad():
        together, frames = listener(features, lengths)
        assert frames.tolist() == [config.frames_out(time) for time in range(1, 30)]
        for time in range(1, 30):
            alone, count = listener(features[time - 1 : time, :time], torch.tensor([time]))
            torch.testing.assert_close(together[time - 1, :count], alone[0], rtol=0, atol=1e-9)
            assert (together[time - 1, count:] == 0).all()


@pytest.mark.parametrize(("running", "learns"), [(2, "1001"), (3, "1101"), (4, "1111")])
def test_the_lowest_layers_and_the_top_one_run(running, learns):
    listener = Listener(ListenerConfig(width=2, reduce=(2, 2, 2, 2)), 5)
    before = listener.state_dict().keys()
    listener.running = running
    listener(torch.randn(2, 40, 5), torch.tensor([40, 40]))[0].sum().backward()
    got = ["1" if all(value.grad is not None for value in layer.parameters()) else "0" for layer in listener.layers]
    assert "".join(got) == learns
    assert listener.state_dict().keys() == before


def test_a_layer_that_waits_takes_the_greatest_of_the_frames_it_would_join():
    features = torch.tensor([[[1.0, -4], [3, -2], [5, 6]], [[-7, 8], [0, 0], [0, 0]]])
    pooled, frames = pool(features, torch.tensor([3, 1]), 2)
    assert pooled.tolist() == [[[3, -2], [5, 6]], [[0, 8], [0, 0]]]  # the zero frame of a tail counts
    assert frames.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reduce": ()}, r"listener.reduce \[\]: one number of frames per layer"),
        ({"reduce": (1, 0)}, r"listener.reduce \[1, 0\]"),
        ({"width": 0}, "width must be at least 1"),
        ({"convolutions": -1}, "convolutions 0 or more"),
        ({"cell": "rnn"}, "listener.cell 'rnn': wanted one of lstm, gru"),
        ({"dropout": 1.0}, r"listener.dropout 1\.0 must be at least 0 and below 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        ListenerConfig(**settings)
