"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from las.errors import UserError

DECAYS = ("cosine", "linear", "none")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) with warm-up and decay."""

    rate: float = 0.001  # learning rate at its highest
    weight_decay: float = 0.01  # pulls matrices, not biases, towards 0
    momentum: float = 0.9  # beta 1
    memory: float = 0.98  # beta 2
    warmup: int = 500  # updates over which the rate rises from 0
    decay: str = "cosine"  # how it falls from there to the last update: cosine, linear or none
    final: float = 0.02  # share of the rate that is left at the last update
    clip: float = 5.0  # greatest norm of the gradient; 0: not clipped

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise UserError(f"optimizer.decay {self.decay!r}: wanted one of {', '.join(DECAYS)}")
        if self.rate <= 0 or self.warmup < 0 or self.clip < 0:
            raise UserError("optimizer: rate must be above 0, warmup and clip 0 or more")
        if not 0 <= self.momentum < 1 or not 0 <= self.memory < 1:
            raise UserError("optimizer: momentum and memory must be at least 0 and below 1")
        if self.weight_decay < 0 or not 0 <= self.final <= 1:
            raise UserError("optimizer: weight_decay must be 0 or more, final between 0 and 1")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the model's parameters, in two groups: matrices decay, vectors do not."""
    parameters = [value for value in model.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in parameters if value.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [value for value in parameters if value.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.rate, betas=(config.momentum, config.memory), fused=True)


def rate_at(update: int, updates: int, config: OptimizerConfig) -> float:
    """The learning rate of one update, counted from 0, out of `updates`.

    >>> config = OptimizerConfig(rate=1.0, warmup=2, decay="linear", final=0.0)
    >>> [rate_at(update, 10, config) for update in (0, 1, 2, 6)]
    [0.5, 1.0, 1.0, 0.5]
    """
    if update < config.warmup:
        return config.rate * (update + 1) / config.warmup
    if config.decay == "none":
        return config.rate
    way = min(1.0, (update - config.warmup) / max(1, updates - config.warmup))
    share = (1 + math.cos(math.pi * way)) / 2 if config.decay == "cosine" else 1 - way
    return config.rate * (config.final + (1 - config.final) * share)
