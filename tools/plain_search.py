"""Beam search with Listen, Attend and Spell as plainly as PyTorch says it: the reference of tools/bench_search.py.

One loop over steps, dense, fp32, no fusing: `nn.LSTM` listener, `nn.LSTMCell`, location-sensitive attention
(Chorowski et al. 2015, arXiv:1506.07503, over summed weights), log-softmax over all tokens, the best K of K x V.
It shares no code with `las`, only weights: `load_las` copies them from the project's listener and speller.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PlainSearch(nn.Module):
    """Features (B, T, F), all equally long -> tokens of the K best transcripts (B, K, L), log-probabilities (B, K)."""

    def __init__(
        self, features: int, width: int, reduce: tuple[int, ...], speller: int, embedding: int, vocabulary: int
    ):
        super().__init__()
        self.reduce = reduce
        sizes = [features] + [2 * width] * (len(reduce) - 1)
        self.listener = nn.ModuleList(
            nn.LSTM(size * factor, width, batch_first=True, bidirectional=True)
            for size, factor in zip(sizes, reduce, strict=True)
        )
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.cell = nn.LSTMCell(embedding + 2 * width, speller)
        self.query = nn.Linear(speller, 256, bias=False)
        self.key = nn.Linear(2 * width, 256)
        self.location = nn.Conv1d(1, 16, 31, padding=15, bias=False)
        self.place = nn.Linear(16, 256, bias=False)
        self.energy = nn.Linear(256, 1, bias=False)
        self.hidden = nn.Linear(speller + 2 * width, speller)
        self.output = nn.Linear(speller, vocabulary)

    def listen(self, features: Tensor) -> Tensor:
        for lstm, factor in zip(self.listener, self.reduce, strict=True):
            batch, time, width = features.shape
            features = nn.functional.pad(features, (0, 0, 0, -time % factor)).reshape(batch, -1, factor * width)
            features, _ = lstm(features)
        return features

    def search(self, heard: Tensor, beams: int, tokens: int, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Frames (B, S, H) -> the K best transcripts of so many tokens, and then the end."""
        batch, frames, width = heard.shape
        rows = torch.arange(batch).unsqueeze(1)
        keys = self.key(heard).unsqueeze(1)  # (B, 1, S, A)
        output = cell = heard.new_zeros(batch, beams, self.cell.hidden_size)
        context = heard.new_zeros(batch, beams, width)
        seen = heard.new_zeros(batch, beams, frames)
        totals = torch.full((batch, beams), -torch.inf)
        totals[:, 0] = 0.0
        history = torch.full((batch, beams, 1), begin)
        for step in range(tokens + 1):
            read = torch.cat([self.embedding(history[:, :, -1]), context], 2).flatten(0, 1)
            output, cell = self.cell(read, (output.flatten(0, 1), cell.flatten(0, 1)))
            output, cell = output.unflatten(0, (batch, beams)), cell.unflatten(0, (batch, beams))
            places = self.location(seen.flatten(0, 1).unsqueeze(1)).transpose(1, 2).unflatten(0, (batch, beams))
            mixed = torch.tanh(keys + self.query(output).unsqueeze(2) + self.place(places))  # (B, K, S, A)
            weights = self.energy(mixed).squeeze(3).softmax(2)  # (B, K, S)
            context = weights @ heard
            seen = seen + weights
            logits = self.output(torch.tanh(self.hidden(torch.cat([output, context], 2))))
            scores = logits.log_softmax(2)
            if step == tokens:
                totals = totals + scores[:, :, end]
                break
            scores[:, :, end] = -torch.inf
            totals, places = (totals.unsqueeze(2) + scores).flatten(1).topk(beams)
            parents, chosen = places // scores.shape[2], places % scores.shape[2]
            output, cell, context = output[rows, parents], cell[rows, parents], context[rows, parents]
            seen = seen[rows, parents]
            history = torch.cat([history[rows, parents], chosen.unsqueeze(2)], 2)
        totals, order = totals.sort(1, descending=True)
        return history[rows, order, 1:], totals

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
        for name in ("query", "key", "location", "place", "energy"):
            getattr(self, name).load_state_dict(getattr(speller.attention, name).state_dict())
        for name in ("embedding", "hidden", "output"):
            getattr(self, name).load_state_dict(getattr(speller, name).state_dict())
