"""Optimiser and learning-rate schedule.

AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) or Adadelta (Zeiler 2012, arXiv:1212.5701); the rate rises over a
warm-up and then falls by a fixed curve, or by what validations say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from las.errors import UserError

KINDS = ("adamw", "adadelta")
CURVES = ("cosine", "linear", "exponential")
DECAYS = (*CURVES, "noam", "plateau", "none")


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights follow their gradients. What Adadelta is run with elsewhere: rate 1, memory 0.95, decay plateau."""

    kind: str = "adamw"  # adamw or adadelta
    rate: float = 0.001  # learning rate at its highest
    weight_decay: float = 0.01  # pulls matrices, not biases, towards 0; adadelta adds it to the gradient
    momentum: float = 0.9  # beta 1 of adamw
    memory: float = 0.98  # beta 2 of adamw, rho of adadelta
    epsilon: float = 1e-8  # keeps the divisor of a step above 0
    warmup: int = 500  # updates over which the rate rises from 0
    hold: int = 0  # updates at the highest rate before a cosine, linear or exponential fall
    decay: str = "cosine"  # how it falls after that: cosine, linear, exponential (a constant factor an update, Park et
    #                        al. 2019), noam (1 / root of the update, Vaswani et al. 2017), plateau or none
    until: int = 0  # update at which a cosine, linear or exponential fall ends; 0: the last one
    final: float = 0.02  # share of the rate that is left where a fall ends; a plateau's factors stop there too
    patience: int = 2  # validations without a new best after which a plateau multiplies the rate by plateau_factor
    plateau_factor: float = 0.5  # for decay plateau
    clip: float = 5.0  # greatest norm of the gradient; 0: not clipped

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"optimizer.kind {self.kind!r}: wanted one of {', '.join(KINDS)}")
        if self.decay not in DECAYS:
            raise UserError(f"optimizer.decay {self.decay!r}: wanted one of {', '.join(DECAYS)}")
        if not 0 < self.rate < math.inf or self.epsilon <= 0 or min(self.warmup, self.clip, self.hold, self.until) < 0:
            raise UserError(
                "optimizer: rate and epsilon must be above 0, rate finite; warmup, clip, hold and until 0 or more"
            )
        if not 0 <= self.momentum < 1 or not 0 <= self.memory < 1:
            raise UserError("optimizer: momentum and memory must be at least 0 and below 1")
        if self.weight_decay < 0 or not 0 <= self.final <= 1:
            raise UserError("optimizer: weight_decay must be 0 or more, final between 0 and 1")
        if self.decay == "exponential" and self.final == 0:
            raise UserError("optimizer: an exponential decay never reaches a final of 0; give a final above 0")
        if self.until and self.until <= self.warmup + self.hold:
            raise UserError(f"optimizer.until {self.until}: the rate only begins to fall at {self.warmup + self.hold}")
        if self.patience < 1 or not 0 < self.plateau_factor < 1:
            raise UserError("optimizer: patience must be at least 1, plateau_factor between 0 and 1")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser of the model's parameters, in two groups: matrices decay, vectors do not."""
    parameters = [value for value in model.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in parameters if value.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [value for value in parameters if value.dim() <= 1], "weight_decay": 0.0},
    ]
    if config.kind == "adadelta":
        return torch.optim.Adadelta(groups, lr=config.rate, rho=config.memory, eps=config.epsilon)
    betas = (config.momentum, config.memory)
    return torch.optim.AdamW(groups, lr=config.rate, betas=betas, eps=config.epsilon, fused=True)


def rate_at(update: int, updates: int, config: OptimizerConfig) -> float:
    """The learning rate of one update, counted from 0, out of `updates`; without what a plateau takes from it.

    >>> config = OptimizerConfig(rate=1.0, warmup=2, decay="linear", final=0.0)
    >>> [rate_at(update, 10, config) for update in (0, 1, 2, 6)]
    [0.5, 1.0, 1.0, 0.5]
    """
    if update < config.warmup:
        return config.rate * (update + 1) / config.warmup
    if config.decay == "noam":
        return config.rate * math.sqrt(max(1, config.warmup) / (update + 1))
    top = config.warmup + config.hold  # the first update of the fall
    if config.decay not in CURVES or update < top:
        return config.rate
    way = min(1.0, (update - top) / max(1, (config.until or updates) - top))
    if config.decay == "exponential":
        return config.rate * config.final**way
    share = (1 + math.cos(math.pi * way)) / 2 if config.decay == "cosine" else 1 - way
    return config.rate * (config.final + (1 - config.final) * share)


@dataclass
class Plateau:
    """What is left of the rate after validations that brought nothing new; a part of a run's state.

    >>> plateau, config = Plateau(), OptimizerConfig(decay="plateau", patience=2, plateau_factor=0.1)
    >>> [plateau.validated(rate, 0.0, config) for rate in (0.5, 0.4, 0.4, 0.4, 0.3)]
    [1.0, 1.0, 1.0, 0.1, 0.1]
    """

    share: float = 1.0  # of the rate
    best: tuple[float, float] = (math.inf, math.inf)  # error rate, loss
    waited: int = 0  # validations since the best, or since the rate was last lowered

    def validated(self, error_rate: float, loss: float, config: OptimizerConfig) -> float:
        """Take in a validation; the share is returned. Of equal error rates the one with the lower loss is better."""
        if (error_rate, loss) < tuple(self.best):
            self.best, self.waited = (error_rate, loss), 0
        else:
            self.waited += 1
        if config.decay == "plateau" and self.waited >= config.patience:
            self.share, self.waited = max(config.final, self.share * config.plateau_factor), 0
        return self.share
