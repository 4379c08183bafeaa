"""The speller: listened frames and the tokens so far -> the next token.

Chan et al. 2015 (arXiv:1508.01211), eq. 6-8: s_i = RNN(s_{i-1}, y_{i-1}, c_{i-1}); c_i = Attention(s_i, h);
P(y_i) = MLP(s_i, c_i). One `step` serves training and search; what it carries is state in, state out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from las.errors import UserError
from las.model.attention import KINDS, AttentionConfig, ContentAttention, LocationAttention, Memory


@dataclass(frozen=True)
class SpellerConfig:
    """The speller's size."""

    width: int = 512  # D, cells of every layer
    layers: int = 1  # LSTM layers
    embedding: int = 128  # width of a token's embedding
    dropout: float = 0.1  # share of values set to 0 in embeddings, between layers and before the output, in training
    attention: AttentionConfig = field(default_factory=AttentionConfig)

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.embedding) < 1:
            raise UserError("speller: width, layers and embedding must be at least 1")
        if not 0 <= self.dropout < 1:
            raise UserError(f"speller.dropout {self.dropout} must be at least 0 and below 1")


@dataclass(frozen=True)
class SpellerState:
    """What one step leaves for the next; K beams of each utterance (1 in training)."""

    outputs: tuple[Tensor, ...]  # h of each layer (B, K, D)
    cells: tuple[Tensor, ...]  # c of each layer (B, K, D)
    context: Tensor  # c_i (B, K, H)
    weights: Tensor  # alpha_i (B, K, S)
    attention: Tensor  # what the kind of attention keeps (B, K, ...)

    def select(self, utterances: Tensor, parents: Tensor) -> SpellerState:
        """Some of the utterances, (B') numbers, and for each its new beams' parents, (B', K)."""
        rows = utterances.unsqueeze(1)
        return SpellerState(
            tuple(output[rows, parents] for output in self.outputs),
            tuple(cell[rows, parents] for cell in self.cells),
            self.context[rows, parents],
            self.weights[rows, parents],
            self.attention[rows, parents],
        )


class Speller(nn.Module):
    """An LSTM of 1 to n layers with input feeding and attention over V tokens."""

    def __init__(self, config: SpellerConfig, frame_width: int, vocabulary: int):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocabulary, config.embedding)
        self.attention: ContentAttention | LocationAttention = KINDS[config.attention.kind](
            config.attention, config.width, frame_width
        )
        self.from_token = nn.Linear(config.embedding, 4 * config.width)  # y_{i-1} into the gates
        below = [frame_width] + [config.width] * (config.layers - 1)  # c_{i-1}, then the layer below
        self.recurrent = nn.ModuleList(
            nn.Linear(width + config.width, 4 * config.width, bias=layer > 0) for layer, width in enumerate(below)
        )
        self.hidden = nn.Linear(config.width + frame_width, config.width)
        self.output = nn.Linear(config.width, vocabulary)
        self.dropout = nn.Dropout(config.dropout)
        self._start_weights()

    def _start_weights(self) -> None:
        bound = self.config.width**-0.5  # as torch's own LSTM starts
        for linear in (self.from_token, *self.recurrent):
            nn.init.uniform_(linear.weight, -bound, bound)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
                linear.bias.data[self.config.width : 2 * self.config.width] = 1.0  # forget gates start open
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def remember(self, frames: Tensor, valid: Tensor) -> Memory:
        """Listened frames (B, S, H), valid (B, S) bool -> what `step` reads of them, made once per utterance."""
        return self.attention.remember(frames, valid)

    def start(self, memory: Memory, beams: int = 1) -> SpellerState:
        """The state before the first step: zeros."""
        batch, frames, width = memory.frames.shape
        zeros = memory.frames.new_zeros(batch, beams, self.config.width)
        layers = (zeros,) * self.config.layers
        contexts, weights = memory.frames.new_zeros(batch, beams, width), memory.frames.new_zeros(batch, beams, frames)
        return SpellerState(layers, layers, contexts, weights, self.attention.start(memory, beams))

    def step(self, tokens: Tensor, state: SpellerState, memory: Memory) -> tuple[Tensor, SpellerState]:
        """The decoder step: last tokens (B, K) -> logits of the next (B, K, V), state."""
        state = self._advance(self._read(tokens), state, memory)
        return self._distribution(state.outputs[-1], state.context), state

    def forward(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Teacher-forced steps: tokens with begin of sentence (B, L) -> logits (B, L, V), attention weights (B, L, S).

        The same step as in search, but what does not pass from step to step, the products of the embeddings and
        the output layers, is done for all steps at once.
        """
        state = self.start(memory)
        outputs, contexts, weights = [], [], []
        for token_gates in self._read(tokens).unsqueeze(2).unbind(1):  # each (B, 1, 4D)
            state = self._advance(token_gates, state, memory)
            outputs.append(state.outputs[-1])
            contexts.append(state.context)
            weights.append(state.weights)
        return self._distribution(torch.cat(outputs, 1), torch.cat(contexts, 1)), torch.cat(weights, 1)

    def _read(self, tokens: Tensor) -> Tensor:
        return self.from_token(self.dropout(self.embedding(tokens)))  # (B, ..., 4D)

    def _advance(self, token_gates: Tensor, state: SpellerState, memory: Memory) -> SpellerState:
        below = state.context
        outputs, cells = [], []
        for layer, linear in enumerate(self.recurrent):
            gates = linear(torch.cat([below, state.outputs[layer]], dim=-1))  # (B, K, 4D)
            output, cell = cell_step(gates + token_gates if layer == 0 else gates, state.cells[layer])  # s_i, eq. 6
            outputs.append(output)
            cells.append(cell)
            below = self.dropout(output)
        context, weights, kept = self.attention(outputs[-1], memory, state.attention)  # eq. 7
        return SpellerState(tuple(outputs), tuple(cells), context, weights, kept)

    def _distribution(self, outputs: Tensor, contexts: Tensor) -> Tensor:
        return self.output(self.dropout(self.hidden(torch.cat([outputs, contexts], dim=-1)).tanh()))  # eq. 8


def cell_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The element-wise part of an LSTM step: gates (..., 4D) before nonlinearity, cell (..., D) -> output, cell."""
    open_in, keep, new, open_out = gates.chunk(4, dim=-1)  # torch's order: i, f, g, o
    cell = keep.sigmoid() * cell + open_in.sigmoid() * new.tanh()
    return open_out.sigmoid() * cell.tanh(), cell
