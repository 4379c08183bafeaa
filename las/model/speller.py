"""The speller: listened frames and the tokens so far -> the next token.

An RNN s over the tokens y and a context c of the listened frames h; P(y_i) = MLP(s_i, c_i). What the context is:

initial      none: the listener's summary is the first state alone. Sutskever et al. 2014 (arXiv:1409.3215)
every_step   the summary, into every step and every output. Cho et al. 2014 (arXiv:1406.1078), section 2.2
attention    c_i = Attention(s_i, h). With input feeding s_i = RNN(s_{i-1}, y_{i-1}, c_{i-1}): Chan et al. 2015
             (arXiv:1508.01211), eq. 6-8; without it s_i = RNN(s_{i-1}, y_{i-1}): Luong et al. 2015
             (arXiv:1508.04025), eq. 5-6

One `step` serves training and search; what it carries is state in, state out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from las.errors import UserError
from las.model.attention import CONFIGS, KINDS, ContentConfig
from las.model.memory import Attention, AttentionConfig, Memory, hide
from las.model.stepwise import StepwiseProduct

CONTEXTS = ("attention", "every_step", "initial")
CELLS = ("lstm", "gru")
Layers = Iterable[Callable[[Tensor], Tensor]]  # what makes the gates of each layer of the LSTM with input feeding


@dataclass(frozen=True)
class SpellerConfig:
    """The speller's kind and size."""

    width: int = 512  # D, cells of every layer
    layers: int = 1  # layers of the RNN
    embedding: int = 128  # width of a token's embedding
    dropout: float = 0.1  # share of values set to 0 in embeddings, between layers and before the output, in training
    cell: str = "lstm"  # lstm or gru
    context: str = "attention"  # attention; every_step: one summary of the listened frames enters every step;
    # initial: the summary is the first state alone
    input_feeding: bool = True  # whether the last context enters the next step; context: attention only
    attention: AttentionConfig = field(default_factory=ContentConfig, metadata={"kinds": CONFIGS})

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.embedding) < 1:
            raise UserError("speller: width, layers and embedding must be at least 1")
        if not 0 <= self.dropout < 1:
            raise UserError(f"speller.dropout {self.dropout} must be at least 0 and below 1")
        if self.cell not in CELLS:
            raise UserError(f"speller.cell {self.cell!r}: wanted one of {', '.join(CELLS)}")
        if self.context not in CONTEXTS:
            raise UserError(f"speller.context {self.context!r}: wanted one of {', '.join(CONTEXTS)}")


@dataclass(frozen=True)
class SpellerState:
    """What one step leaves for the next; K beams of each utterance (1 in training)."""

    outputs: tuple[Tensor, ...]  # h of each layer (B, K, D)
    cells: tuple[Tensor, ...]  # c of each layer (B, K, D); none in a GRU
    context: Tensor  # c_i (B, K, H); (B, K, 0) with context: initial
    weights: Tensor  # alpha_i (B, K, S); without attention all 0: nowhere was looked at
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
    """An RNN of 1 to n layers with a context over V tokens."""

    def __init__(self, config: SpellerConfig, frame_width: int, vocabulary: int):
        super().__init__()
        self.config = config
        self.frame_width = frame_width
        self.feeding = config.context == "attention" and config.input_feeding
        self.by_hand = self.feeding and config.cell == "lstm"
        self.context_width = 0 if config.context == "initial" else frame_width
        self.embedding = nn.Embedding(vocabulary, config.embedding)
        self.attention: Attention | None = None
        if config.context == "attention":
            self.attention = KINDS[config.attention.kind](config.attention, config.width, frame_width)
        else:
            states = 2 if config.cell == "lstm" else 1
            self.summary = nn.Linear(frame_width, states * config.layers * config.width)  # into the first state
        if self.by_hand:
            self.from_token = nn.Linear(config.embedding, 4 * config.width)  # y_{i-1} into the gates
            below = [frame_width] + [config.width] * (config.layers - 1)  # c_{i-1}, then the layer below
            self.recurrent = nn.ModuleList(
                nn.Linear(width + config.width, 4 * config.width, bias=layer > 0) for layer, width in enumerate(below)
            )
        else:
            self.recurrent = nn.ModuleList()
            fed = config.embedding + (frame_width if self.feeding or config.context == "every_step" else 0)
            kind = nn.LSTM if config.cell == "lstm" else nn.GRU
            between = config.dropout if config.layers > 1 else 0.0
            self.rnn = kind(fed, config.width, config.layers, batch_first=True, dropout=between)
        self.hidden = nn.Linear(config.width + self.context_width, config.width)
        self.output = nn.Linear(config.width, vocabulary)
        self.dropout = nn.Dropout(config.dropout)
        self._start_weights()

    def _start_weights(self) -> None:
        forget = slice(self.config.width, 2 * self.config.width)  # forget gates start open
        bound = self.config.width**-0.5  # as torch's own LSTM starts
        for linear in (self.from_token, *self.recurrent) if self.by_hand else ():
            nn.init.uniform_(linear.weight, -bound, bound)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
                linear.bias.data[forget] = 1.0
        for name, weight in () if self.by_hand else self.rnn.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(weight)
            if name.startswith("bias_ih") and self.config.cell == "lstm":
                weight.data[forget] = 1.0
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def remember(self, frames: Tensor, valid: Tensor) -> Memory:
        """Listened frames (B, S, H), valid (B, S) bool -> what `step` reads of them, made once per utterance."""
        if self.attention is not None:
            return self.attention.remember(frames, valid)
        return Memory(frames, summarise(frames, valid), hide(frames, valid))

    def start(self, memory: Memory, beams: int = 1) -> SpellerState:
        """The state before the first step: zeros with attention, else made from the summary."""
        batch, frames, _ = memory.frames.shape
        config = self.config
        weights = memory.frames.new_zeros(batch, beams, frames)
        if self.attention is not None:
            zeros = memory.frames.new_zeros(batch, beams, config.width)
            cells = (zeros,) * config.layers if config.cell == "lstm" else ()
            contexts = memory.frames.new_zeros(batch, beams, self.context_width)
            return SpellerState((zeros,) * config.layers, cells, contexts, weights, self.attention.start(memory, beams))
        summary = memory.keys.unsqueeze(1).expand(-1, beams, -1)  # (B, K, H)
        states = self.summary(summary).tanh().split(config.width, dim=-1)  # (B, K, D) each
        return SpellerState(
            states[: config.layers],
            states[config.layers :],
            summary[..., : self.context_width],
            weights,
            memory.frames.new_zeros(batch, beams, 0),
        )

    def step(self, tokens: Tensor, state: SpellerState, memory: Memory) -> tuple[Tensor, SpellerState]:
        """The decoder step: last tokens (B, K) -> logits of the next (B, K, V), state."""
        state = self._advance(self._read(tokens), state, memory, self.recurrent)
        return self._distribution(state.outputs[-1], state.context), state

    def forward(self, tokens: Tensor, memory: Memory, sampled: float = 0.0) -> tuple[Tensor, Tensor]:
        """Teacher-forced steps: tokens with begin of sentence (B, L) -> logits (B, L, V), attention weights (B, L, S).

        The same as `step` after `step`, but what does not pass from step to step is done for all steps at once: the
        products of the embeddings and the output layers, without input feeding the RNN in one call too, and all
        questions to an attention that keeps no state.

        `sampled` is the probability with which a token, by itself, gives way to one that is drawn from what the step
        before it says: scheduled sampling, Bengio et al. 2015 (arXiv:1506.03099), section 2.4. Then all is unrolled.
        """
        if sampled:
            return self._sampling(tokens, memory, sampled)
        if self.feeding:
            return self._unrolled(self._read(tokens), memory)
        state = self.start(memory)
        outputs, state = self._run(self._read(tokens).unsqueeze(1), state)  # (B, 1, L, D)
        outputs = outputs.squeeze(1)
        length = outputs.shape[1]
        if self.attention is None:
            contexts, weights = (kept.expand(-1, length, -1) for kept in (state.context, state.weights))
        elif not self.attention.keeps_state:
            contexts, weights, _ = self.attention(outputs, memory, state.attention)
        else:
            contexts, weights = self._ask_in_turn(outputs, state.attention, memory)
        return self._distribution(outputs, contexts), weights

    def _unrolled(self, read: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        state, layers = self.start(memory), self._layers(read.shape[1])
        outputs, contexts, weights = [], [], []
        for one in read.unsqueeze(2).unbind(1):  # what is read of each token (B, 1, ...)
            state = self._advance(one, state, memory, layers)
            outputs.append(state.outputs[-1])
            contexts.append(state.context)
            weights.append(state.weights)
        return self._distribution(torch.cat(outputs, 1), torch.cat(contexts, 1)), torch.cat(weights, 1)

    def _sampling(self, tokens: Tensor, memory: Memory, share: float) -> tuple[Tensor, Tensor]:
        """Steps over tokens (B, L) of which a share, never the first, is replaced by what the speller itself says."""
        replaced = torch.rand(tokens.shape, device=tokens.device) < share  # (B, L)
        state, layers = self.start(memory), self._layers(tokens.shape[1])
        outputs, contexts, weights = [], [], []
        for place, token in enumerate(tokens.split(1, dim=1)):  # (B, 1)
            if place:
                token = torch.where(replaced[:, place : place + 1], self._draw(state), token)
            state = self._advance(self._read(token), state, memory, layers)
            outputs.append(state.outputs[-1])
            contexts.append(state.context)
            weights.append(state.weights)
        return self._distribution(torch.cat(outputs, 1), torch.cat(contexts, 1)), torch.cat(weights, 1)

    def _draw(self, state: SpellerState) -> Tensor:
        """Tokens (B, K) drawn with the probabilities that follow a state; no gradient passes through the choice.

        Gumbel's way, the highest of logits with noise, takes any logits: where they are not numbers, it is for the
        loss to say so.
        """
        logits = self._distribution(state.outputs[-1], state.context).detach().float()
        return (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)

    def _ask_in_turn(self, outputs: Tensor, kept: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        assert self.attention is not None
        contexts, weights = [], []
        for question in outputs.split(1, dim=1):  # (B, 1, D)
            context, weight, kept = self.attention(question, memory, kept)
            contexts.append(context)
            weights.append(weight)
        return torch.cat(contexts, 1), torch.cat(weights, 1)

    def _read(self, tokens: Tensor) -> Tensor:
        embedded = self.dropout(self.embedding(tokens))  # (B, ..., E)
        return self.from_token(embedded) if self.by_hand else embedded  # (B, ..., 4D) or (B, ..., E)

    def _layers(self, steps: int) -> list[StepwiseProduct]:
        """`recurrent` for a pass of so many steps."""
        layers = []
        for linear in self.recurrent:
            assert isinstance(linear, nn.Linear)
            layers.append(StepwiseProduct(linear.weight.t(), linear.bias, steps))
        return layers

    def _advance(self, read: Tensor, state: SpellerState, memory: Memory, layers: Layers) -> SpellerState:
        """One step from what `_read` made of the last tokens, (B, K, ...)."""
        if self.by_hand:
            state = self._feed(read, state, layers)
        else:
            _, state = self._run(read.unsqueeze(2), state)
        if self.attention is None:
            return state
        context, weights, kept = self.attention(state.outputs[-1], memory, state.attention)
        return SpellerState(state.outputs, state.cells, context, weights, kept)

    def _feed(self, token_gates: Tensor, state: SpellerState, layers: Layers) -> SpellerState:
        """The LSTM with input feeding: one step from the tokens' gates (B, K, 4D)."""
        below = state.context
        outputs, cells = [], []
        for layer, linear in enumerate(layers):
            if layer > 0:
                below = self.dropout(below)
            gates = linear(torch.cat([below, state.outputs[layer]], dim=-1))  # (B, K, 4D)
            below, cell = cell_step(gates + token_gates if layer == 0 else gates, state.cells[layer])  # s_i
            outputs.append(below)
            cells.append(cell)
        return SpellerState(tuple(outputs), tuple(cells), state.context, state.weights, state.attention)

    def _run(self, embedded: Tensor, state: SpellerState) -> tuple[Tensor, SpellerState]:
        """torch's RNN over embedded tokens (B, K, L, E) -> outputs of the top layer (B, K, L, D), state."""
        batch, beams, length, _ = embedded.shape
        if self.rnn.input_size > self.config.embedding:
            context = state.context.unsqueeze(2).expand(-1, -1, length, -1)
            embedded = torch.cat([embedded, context.to(embedded.dtype)], dim=-1)
        read = embedded.flatten(0, 1)  # (B * K, L, ...)
        before = [torch.stack(one).flatten(1, 2).to(read.dtype) for one in (state.outputs, state.cells) if one]
        top, after = self.rnn(read, tuple(before) if state.cells else before[0])
        outputs, *cells = after if state.cells else (after,)  # (layers, B * K, D) each
        return top.unflatten(0, (batch, beams)), SpellerState(
            outputs.unflatten(1, (batch, beams)).unbind(0),
            cells[0].unflatten(1, (batch, beams)).unbind(0) if cells else (),
            state.context,
            state.weights,
            state.attention,
        )

    def _distribution(self, outputs: Tensor, contexts: Tensor) -> Tensor:
        return self.output(self.dropout(self.hidden(torch.cat([outputs, contexts], dim=-1)).tanh()))


def summarise(frames: Tensor, valid: Tensor) -> Tensor:
    """Each direction of the listener after its last frame: (B, S, H), (B, S) bool -> (B, H).

    Forward outputs (the first half of H) at the last real frame, backward outputs (the rest) at the first frame.
    """
    last = valid.sum(1).clamp(min=1) - 1  # (B,)
    forward = frames.shape[2] // 2
    rows = torch.arange(len(frames), device=frames.device)
    return torch.cat([frames[rows, last, :forward], frames[:, 0, forward:]], dim=1)


def cell_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The element-wise part of an LSTM step: gates (..., 4D) before nonlinearity, cell (..., D) -> output, cell."""
    open_in, keep, new, open_out = gates.chunk(4, dim=-1)  # torch's order: i, f, g, o
    cell = keep.sigmoid() * cell + open_in.sigmoid() * new.tanh()
    return open_out.sigmoid() * cell.tanh(), cell
