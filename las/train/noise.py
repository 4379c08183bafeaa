"""Weights -> weights with Gaussian noise while a gradient is taken: weight noise.

Graves 2011 (Practical Variational Inference for Neural Networks): the gradient is that of the noisy weights, the update
is made to the clean ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def weight_noise(model: nn.Module, deviation: float) -> Iterator[None]:
    """Within: every trainable weight has noise of that standard deviation; afterwards none, to the bit.

    The noise comes from the global generator of the weights' device, which a run's state holds.
    """
    if deviation == 0:
        yield
        return
    trained = [value for value in model.parameters() if value.requires_grad]
    clean = [value.detach().clone() for value in trained]
    with torch.no_grad():
        for value in trained:
            value.add_(torch.randn_like(value), alpha=deviation)
    try:
        yield
    finally:
        with torch.no_grad():
            for value, before in zip(trained, clean, strict=True):
                value.copy_(before)
