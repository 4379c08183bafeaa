"""A language model: the tokens so far -> the next token.

Stacked LSTMs for the 1:1 next-symbol task, Graves 2013 (arXiv:1308.0850), section 2: every layer sees the input and
feeds the output (skip connections, eq. 1-4), and the loss is -sum log Pr(x_{t+1} | x_1..t) (eq. 6). Cells are torch's,
without the paper's peepholes. Without skip connections it is the plain stack. Sentences begin with BOS and a state of
zeros, as they do in search.

`forward` is the teacher-forced pass of training, one call of torch's LSTM a layer. `LanguageModelSteps` is a copy of
the weights made for one step after another, as search and sampling take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from las.errors import UserError
from las.model.lstm_one_way import one_way


@dataclass(frozen=True)
class LanguageModelConfig:
    """The language model's size."""

    embedding: int = 256  # E, width of a token's embedding
    width: int = 512  # D, cells of every layer
    layers: int = 2  # layers of the LSTM
    skip: bool = True  # whether every layer sees the input and feeds the output (Graves 2013); false: plain stack
    tied: bool = False  # whether the output layer uses the embeddings (Press & Wolf 2017, arXiv:1608.05859)
    dropout: float = 0.1  # share of values set to 0 in embeddings, between layers and before the output, in training

    def __post_init__(self) -> None:
        if min(self.embedding, self.width, self.layers) < 1:
            raise UserError("model: embedding, width and layers of a language model must be at least 1")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout {self.dropout} must be at least 0 and below 1")


@dataclass(frozen=True)
class LanguageModelState:
    """What one step leaves for the next, K beams of each utterance."""

    outputs: Tensor  # h of each layer (B, K, layers, D)
    cells: Tensor  # c of each layer (B, K, layers, D), at least float32

    def select(self, utterances: Tensor, parents: Tensor) -> LanguageModelState:
        """Some of the utterances, (B') numbers, and for each its new beams' parents, (B', K)."""
        rows = utterances.unsqueeze(1)
        return LanguageModelState(self.outputs[rows, parents], self.cells[rows, parents])


class LanguageModel(nn.Module):
    """An LSTM of 1 to n layers over V tokens.

    >>> LanguageModel(LanguageModelConfig(), 300)(torch.zeros(2, 7, dtype=torch.int64)).shape
    torch.Size([2, 7, 300])
    """

    def __init__(self, config: LanguageModelConfig, vocabulary: int):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocabulary, config.embedding)
        self.layers = nn.ModuleList(
            nn.LSTM(self._seen(layer), config.width, batch_first=True) for layer in range(config.layers)
        )
        fed = config.width * (config.layers if config.skip else 1)
        self.to_embedding = nn.Linear(fed, config.embedding) if config.tied else None
        self.output = nn.Linear(config.embedding if config.tied else fed, vocabulary)
        self.dropout = nn.Dropout(config.dropout)
        self._start_weights()

    def _seen(self, layer: int) -> int:
        """Width of what a layer reads: the input, and the layer below (of the plain stack only one of them)."""
        below = self.config.width if layer > 0 else 0
        return below + (self.config.embedding if layer == 0 or self.config.skip else 0)

    def _start_weights(self) -> None:
        for layer in self.layers:
            for name, value in layer.named_parameters():
                if name.startswith("bias"):
                    nn.init.zeros_(value)
                if name == "bias_ih_l0":
                    value.data[self.config.width : 2 * self.config.width] = 1.0  # forget gates start open
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.output.bias)
        if self.config.tied:
            self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Teacher-forced steps: tokens that begin with BOS (B, L) -> logits of what follows each (B, L, V)."""
        embedded = self.dropout(self.embedding(tokens))  # x (B, L, E)
        read, outputs = embedded, []
        for layer in self.layers:
            assert isinstance(layer, nn.LSTM)
            output = self.dropout(one_way(layer, read))  # h (B, L, D)
            outputs.append(output)
            read = torch.cat([embedded, output], dim=-1) if self.config.skip else output
        top = torch.cat(outputs, dim=-1) if self.config.skip else outputs[-1]
        return self.output(top if self.to_embedding is None else self.to_embedding(top))


class LanguageModelSteps:
    """A model's weights as steps read them: products in `dtype`, gates and cells in at least float32.

    Tokens `never` get probability 0, the others all of it. What the embeddings add to the gates is looked up in a
    table (V, layers, 4D) instead of multiplied anew; a step is then one product a layer and one for the output.
    torch's sigmoid is ten times as fast as its tanh on a CPU, so tanh x is taken as 2 sigmoid(2 x) - 1; the rows of
    the new-value gate are doubled for it. It is a copy: what happens to the model later does not change it.
    """

    @torch.no_grad()
    def __init__(self, model: LanguageModel, dtype: torch.dtype | None = None, never: Sequence[int] = ()):
        config, embeddings = model.config, model.embedding.weight
        self.config, self.dtype = config, dtype or embeddings.dtype
        self.exact = torch.promote_types(self.dtype, torch.float32)
        double = torch.ones(4 * config.width, dtype=embeddings.dtype, device=embeddings.device)
        double[2 * config.width : 3 * config.width] = 2.0  # torch's order: i, f, g, o
        shares, weights = [], []
        for number, layer in enumerate(model.layers):
            sees_tokens = number == 0 or config.skip
            tokens = config.embedding if sees_tokens else 0
            of = dict(layer.named_parameters())
            read, share = of["weight_ih_l0"], of["bias_ih_l0"] + of["bias_hh_l0"]  # (4D, read), (4D)
            if sees_tokens:
                shares.append(linear(embeddings, read[:, :tokens], share) * double)  # (V, 4D)
            else:
                shares.append((share * double).expand(len(embeddings), -1))
            recurrent = torch.cat([read[:, tokens:], of["weight_hh_l0"]], dim=1)
            weights.append(recurrent * double.unsqueeze(1))
        self.from_tokens = torch.stack(shares, dim=1).to(self.exact)  # (V, layers, 4D)
        self.recurrent = [weight.to(self.dtype) for weight in weights]  # (4D, D or 2D)
        weight: Tensor = model.output.weight
        bias: Tensor = model.output.bias
        if model.to_embedding is not None:
            bias = linear(model.to_embedding.bias, weight, bias)
            weight = weight @ model.to_embedding.weight
        self.output = weight.to(self.dtype, copy=True)  # (V, D or layers * D)
        self.bias = bias.to(self.dtype, copy=True)
        self.bias[list(never)] = -torch.inf

    def start(self, batch: int) -> LanguageModelState:
        """The state before BOS, one beam for each utterance."""
        shape = (batch, 1, self.config.layers, self.config.width)
        zeros = torch.zeros(shape, dtype=self.exact, device=self.output.device)
        return LanguageModelState(zeros.to(self.dtype), zeros)

    def step(self, tokens: Tensor, state: LanguageModelState) -> tuple[Tensor, LanguageModelState]:
        """The last tokens (B, K) -> log-probabilities of the next (B, K, V), at least float32; new state."""
        from_tokens = self.from_tokens[tokens]  # (B, K, layers, 4D)
        outputs: list[Tensor] = []
        cells = []
        for number, weight in enumerate(self.recurrent):
            before = state.outputs[..., number, :]
            read = torch.cat([outputs[-1], before], dim=-1) if outputs else before  # (B, K, D or 2D)
            gates = from_tokens[..., number, :] + linear(read, weight)
            i, f, s, o = gates.sigmoid_().chunk(4, dim=-1)  # g = tanh = 2 s - 1
            cell = (f * state.cells[..., number, :]).addcmul_(i, s, value=2).sub_(i)
            outputs.append((o * (2 * cell).sigmoid_().mul_(2).sub_(1)).to(self.dtype))
            cells.append(cell)
        state = LanguageModelState(torch.stack(outputs, dim=-2), torch.stack(cells, dim=-2))
        top = state.outputs.flatten(-2) if self.config.skip else outputs[-1]
        return linear(top, self.output, self.bias).to(self.exact).log_softmax(-1), state
