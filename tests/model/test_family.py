"""Every decoder and every attention can learn two batches by heart: listener 2x32, speller 32, 4 x 1 s x 8 tokens."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from las.batch import Batch
from las.model.attention import CONFIGS, KINDS
from las.model.attention_parts import MultiHeadConfig
from las.model.frontend import FrontendConfig, SpecAugmentConfig
from las.model.las import LAS, ModelConfig
from las.model.listener import ListenerConfig
from las.model.speller import SpellerConfig

RATE, BEGIN, END, VOCABULARY, LENGTH = 8_000, 2, 3, 12, 8
VARIANTS = {kind: {"attention": CONFIGS[kind](kind)} for kind in KINDS} | {
    "multi_head, additive": {"attention": MultiHeadConfig(energy="additive")},
    "initial": {"context": "initial"},
    "initial, gru": {"context": "initial", "cell": "gru"},
    "every_step": {"context": "every_step"},
    "every_step, gru": {"context": "every_step", "cell": "gru"},
    "gru": {"cell": "gru"},
    "unfed": {"input_feeding": False},
    "unfed, gru, location": {"input_feeding": False, "cell": "gru", "attention": CONFIGS["location"]("location")},
}


def batches() -> list[Batch]:
    """Two batches of four utterances; each token is an eighth of a second of its tone."""
    chance = torch.Generator().manual_seed(0)
    time = torch.arange(RATE // LENGTH) / RATE
    made = []
    for number in range(2):
        tokens = torch.randint(4, VOCABULARY, (4, LENGTH), generator=chance)
        waves = torch.sin(2 * math.pi * 250.0 * (tokens - 3).unsqueeze(2) * time).flatten(1)
        waves = waves + 0.01 * torch.randn(waves.shape, generator=chance)
        ids = [f"{number}-{row}" for row in range(4)]
        made.append(Batch(ids, waves, torch.full((4,), RATE), tokens, torch.full((4,), LENGTH)))
    return made


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_two_batches_by_heart(variant):
    torch.manual_seed(0)
    settings = VARIANTS[variant]
    cell = settings.get("cell", "lstm")
    config = ModelConfig(
        FrontendConfig(sample_rate=RATE, mel_bins=16),
        SpecAugmentConfig(time_masks=0, frequency_masks=0),
        ListenerConfig(width=32, reduce=(4, 2), dropout=0.0, cell=cell),
        SpellerConfig(width=32, embedding=16, dropout=0.0, **settings),
        ctc=False,
    )
    model = LAS(config, VOCABULARY)
    data = batches()
    model.frontend.fit(data)
    optimizer = torch.optim.Adam(model.parameters(), 0.01, betas=(0.9, 0.98))
    first, last = [1.0, 1.0], [1.0, 1.0]  # losses of the two batches, at the start and lately
    for update in range(300):
        batch, place = data[update % 2], update % 2
        logits = model(batch, BEGIN).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), functional.pad(batch.tokens, (0, 1), value=END).flatten())
        last[place] = loss.item()
        if update < 2:
            first[place] = loss.item()
        elif sum(last) < 0.05 * sum(first):
            return
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    pytest.fail(f"{sum(last) / sum(first):.0%} of the loss is left")
