"""From waveform to logits: a padded batch gives what single utterances give."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from las.batch import Batch, pad
from las.errors import UserError
from las.model.attention import CONFIGS
from las.model.attention_history import LocationConfig
from las.model.frontend import FrontendConfig
from las.model.las import LAS, ModelConfig, Output
from las.model.listener import ListenerConfig
from las.model.speller import SpellerConfig

BEGIN = 2
CONFIG = ModelConfig(
    frontend=FrontendConfig(sample_rate=8000, window=0.016, hop=0.010, mel_bins=7, low=100.0),  # 128 and 80 samples
    listener=ListenerConfig(width=4),
    speller=SpellerConfig(width=5, embedding=3, attention=LocationConfig(width=4, kernel=3, channels=2)),
)
LISTENERS = [
    ListenerConfig(width=4),
    ListenerConfig(width=4, reduce=(2, 2, 2)),
    ListenerConfig(width=4, reduce=(1,)),
    ListenerConfig(width=4, reduce=(3, 1)),
    ListenerConfig(width=4, reduce=(1,), convolutions=3),
    ListenerConfig(width=4, reduce=(2, 1), convolutions=2),
]
# whole windows, odd tails, shorter than one window, one sample
SAMPLES = [1328, 1000, 128, 127, 1, 207, 208, 400, 50, 1247]


def model_of(config: ModelConfig) -> LAS:
    torch.manual_seed(0)
    model = LAS(config, vocabulary=9).double().eval()
    for name, weight in model.named_parameters():
        if not name.startswith("frontend"):
            torch.nn.init.normal_(weight, std=0.4)
    model.frontend.mean.normal_()
    model.frontend.deviation.uniform_(0.5, 2.0)
    return model


def utterances() -> Batch:
    generator = torch.manual_seed(1)
    waves = [torch.randn(samples, dtype=torch.float64, generator=generator) for samples in SAMPLES]
    tokens = [torch.randint(4, 9, (number % 4,), generator=generator) for number in range(len(SAMPLES))]
    return Batch([str(samples) for samples in SAMPLES], *pad(waves), *pad(tokens))


def single(batch: Batch, row: int) -> Batch:
    one = slice(row, row + 1)
    samples, length = int(batch.samples[row]), int(batch.lengths[row])
    return Batch(
        batch.ids[one], batch.waves[one, :samples], batch.samples[one], batch.tokens[one, :length], batch.lengths[one]
    )


def close(ours: Tensor, theirs: Tensor, within: float = 1e-9) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=within)


def assert_row_equals(together: Output, row: int, alone: Output, within: float = 1e-9) -> None:
    steps, frames = alone.logits.shape[1], alone.listened.frames.shape[1]
    assert together.listened.lengths[row] == alone.listened.lengths[0] == frames
    close(together.listened.frames[row, :frames], alone.listened.frames[0], within)
    close(together.logits[row, :steps], alone.logits[0], within)
    close(together.weights[row, :steps, :frames], alone.weights[0], within)
    assert (together.weights[row, :, frames:] == 0).all()
    assert (together.listened.frames[row, frames:] == 0).all()
    assert together.ctc_logits is not None
    assert alone.ctc_logits is not None
    close(together.ctc_logits[row, :frames], alone.ctc_logits[0], within)


@torch.no_grad()
@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize(("layers", "kind"), [(1, "content"), (2, "location")])
def test_a_padded_batch_gives_what_single_utterances_give(listener, layers, kind):
    attention = CONFIGS[kind](kind, 4)
    speller = replace(CONFIG.speller, layers=layers, attention=attention)
    model = model_of(replace(CONFIG, listener=listener, speller=speller))
    batch = utterances()
    together = model(batch, BEGIN)
    for row, samples in enumerate(SAMPLES):
        alone = model(single(batch, row), BEGIN)
        assert alone.listened.frames.shape[1] == model.config.listener_frames(samples)
        assert_row_equals(together, row, alone)


@torch.no_grad()
@pytest.mark.parametrize("listener", LISTENERS[::4])
@pytest.mark.parametrize("filling", [1e6, math.nan])
def test_what_padding_holds_does_not_matter(listener, filling):
    model = model_of(replace(CONFIG, listener=listener))
    batch = utterances()
    past = torch.arange(batch.waves.shape[1]) >= batch.samples.unsqueeze(1)
    clean = model(batch, BEGIN)
    dirty = model(replace(batch, waves=batch.waves.masked_fill(past, filling)), BEGIN)
    longer = model(replace(batch, waves=torch.nn.functional.pad(batch.waves, (0, 999), value=filling)), BEGIN)
    for row, samples in enumerate(SAMPLES):
        steps, frames = int(batch.lengths[row]) + 1, model.config.listener_frames(samples)
        for other in (dirty, longer):
            close(other.logits[row, :steps], clean.logits[row, :steps])
            close(other.weights[row, :steps, :frames], clean.weights[row, :steps, :frames])


@torch.no_grad()
def test_tokens_past_the_end_do_not_matter():
    model, batch = model_of(CONFIG), utterances()
    past = torch.arange(batch.tokens.shape[1]) >= batch.lengths.unsqueeze(1)
    clean, other = model(batch, BEGIN), model(replace(batch, tokens=batch.tokens.masked_fill(past, 7)), BEGIN)
    for row, length in enumerate(batch.lengths.tolist()):
        close(other.logits[row, : length + 1], clean.logits[row, : length + 1])


@torch.no_grad()
@pytest.mark.parametrize("listener", LISTENERS[::4])
def test_in_float32_a_batch_and_single_utterances_are_near(listener):
    model = model_of(replace(CONFIG, listener=listener)).float()
    batch = utterances()
    batch = replace(batch, waves=batch.waves.float())
    together = model(batch, BEGIN)
    for row in range(len(SAMPLES)):
        assert_row_equals(together, row, model(single(batch, row), BEGIN), within=1e-3)


def test_logits_are_one_for_each_token_and_one_for_the_end():
    batch = utterances()
    output = model_of(CONFIG)(batch, BEGIN)
    assert output.logits.shape == (len(batch), int(batch.lengths.max()) + 1, 9)
    assert output.listened.valid.sum(1).tolist() == output.listened.lengths.tolist()


def test_without_ctc_there_are_no_ctc_logits():
    model = model_of(replace(CONFIG, ctc=False))
    assert model(utterances(), BEGIN).ctc_logits is None
    assert not [name for name in model.state_dict() if name.startswith("ctc")]


def test_features_are_masked_in_training_only():
    model, batch = model_of(replace(CONFIG, listener=replace(CONFIG.listener, dropout=0.0))), utterances()
    assert torch.equal(model.listen(batch.waves, batch.samples).frames, model.listen(batch.waves, batch.samples).frames)
    model.train()
    first, second = (model.listen(batch.waves, batch.samples).frames for _ in range(2))
    assert not torch.equal(first, second)


def test_gradients_reach_every_weight():
    model, batch = model_of(CONFIG), utterances()
    output = model(batch, BEGIN)
    assert output.ctc_logits is not None
    (output.logits.square().sum() + output.ctc_logits.square().sum()).backward()
    unmoved = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert [name for name in unmoved if not name.endswith("key.bias")] == []


def test_no_vocabulary_is_refused():
    with pytest.raises(UserError, match="a vocabulary of 0 tokens"):
        LAS(CONFIG, vocabulary=0)
