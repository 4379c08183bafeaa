"""Listen, Attend and Spell as plainly as PyTorch says it: the reference of tools/bench_train.py.

Chan et al. 2015 (arXiv:1508.01211), eq. 4-11, with `nn.LSTM`, a loop of `nn.LSTMCell`, fp32 and nothing else. The LSTMs
read packed sequences, as ragged batches want it, or, `packed=False`, padded ones: in torch 2.11 only these reach
oneDNN on a CPU, and they are exact where all utterances are equally long.
It shares no code with `las`, only weights: `load_las` copies them from the project's listener and speller.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class PlainLas(nn.Module):
    """Features (B, T, F), frames (B,), tokens so far (B, L) -> logits (B, L, V)."""

    def __init__(
        self,
        features: int,
        width: int,
        reduce: tuple[int, ...],
        speller: int,
        embedding: int,
        attention: int,
        vocabulary: int,
        packed: bool = True,
    ):
        super().__init__()
        self.reduce, self.packed = reduce, packed
        sizes = [features] + [2 * width] * (len(reduce) - 1)
        self.listener = nn.ModuleList(
            nn.LSTM(size * factor, width, batch_first=True, bidirectional=True)
            for size, factor in zip(sizes, reduce, strict=True)
        )
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.cell = nn.LSTMCell(embedding + 2 * width, speller)
        self.query = nn.Linear(speller, attention)  # phi
        self.key = nn.Linear(2 * width, attention)  # psi
        self.hidden = nn.Linear(speller + 2 * width, speller)
        self.output = nn.Linear(speller, vocabulary)

    def listen(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        for lstm, factor in zip(self.listener, self.reduce, strict=True):
            batch, time, width = features.shape
            features = nn.functional.pad(features, (0, 0, 0, -time % factor)).reshape(batch, -1, factor * width)
            frames = (frames + factor - 1) // factor
            if self.packed:
                packed = pack_padded_sequence(features, frames, batch_first=True, enforce_sorted=False)
                features, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=features.shape[1])
            else:
                features, _ = lstm(features)
        return features, frames

    def forward(self, features: Tensor, frames: Tensor, tokens: Tensor) -> Tensor:
        heard, lengths = self.listen(features, frames)  # (B, S, H)
        padding = torch.arange(heard.shape[1]) >= lengths.unsqueeze(1)
        keys = self.key(heard)
        context = heard.new_zeros(len(heard), heard.shape[2])
        output = cell = heard.new_zeros(len(heard), self.cell.hidden_size)
        logits = []
        for token in tokens.unbind(1):
            output, cell = self.cell(torch.cat([self.embedding(token), context], 1), (output, cell))  # s_i, eq. 6
            energy = (keys @ self.query(output).unsqueeze(2)).squeeze(2)  # eq. 9
            weights = energy.masked_fill(padding, -torch.inf).softmax(1)  # eq. 10
            context = (weights.unsqueeze(1) @ heard).squeeze(1)  # c_i, eq. 11
            logits.append(self.output(torch.tanh(self.hidden(torch.cat([output, context], 1)))))  # eq. 8
        return torch.stack(logits, 1)

    @torch.no_grad()
    def load_las(self, listener: nn.Module, speller: nn.Module) -> None:
        """Take the weights of `las.model.listener.Listener` and `las.model.speller.Speller` (one layer)."""
        for ours, theirs in zip(self.listener, listener.layers, strict=True):
            ours.load_state_dict(theirs.lstm.state_dict())
        recurrent = speller.recurrent[0].weight  # reads context, then s_{i-1}
        context = self.key.in_features
        self.cell.weight_ih.copy_(torch.cat([speller.from_token.weight, recurrent[:, :context]], 1))
        self.cell.weight_hh.copy_(recurrent[:, context:])
        self.cell.bias_ih.copy_(speller.from_token.bias)
        self.cell.bias_hh.zero_()
        self.embedding.load_state_dict(speller.embedding.state_dict())
        self.query.load_state_dict(speller.attention.query.state_dict())
        self.key.load_state_dict(speller.attention.key.state_dict())
        self.hidden.load_state_dict(speller.hidden.state_dict())
        self.output.load_state_dict(speller.output.state_dict())
