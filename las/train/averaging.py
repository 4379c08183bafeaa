"""Weights of many updates -> one smoother set of weights: an exponential moving average.

Polyak & Juditsky 1992, with the rising decay of TensorFlow's ExponentialMovingAverage, min(d, (1 + n) / (10 + n)) at
update n, so that the random weights of the start are soon forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """The moving average of a model's trainable weights; with a decay of 0 the weights themselves, at no cost."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        trained = ((name, value) for name, value in model.named_parameters() if value.requires_grad)
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in trained} if decay else {}

    @torch.no_grad()
    def take_in(self, model: nn.Module) -> None:
        """Move towards the model's weights, after an update."""
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, value in model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(value, share)

    def forget(self) -> None:
        """Let what is averaged so far weigh as little as at the start; after a change of what the weights do."""
        self.updates = 0

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Within: the model's weights are the average; after that they are again what they were, to the bit."""
        replaced = [(value, value.detach().clone()) for name, value in model.named_parameters() if name in self.weights]
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name in self.weights:
                    value.copy_(self.weights[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for value, before in replaced:
                    value.copy_(before)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {"updates": self.updates, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was called."""
        self.updates = state["updates"]
        for name, value in state["weights"].items():
            self.weights[name].copy_(value)
