"""Two batches, one of them in pieces, summed by hand."""

from __future__ import annotations

import torch

from las.batch import Batch
from las.train.objectives import Losses
from las.train.pieces import Pieces
from las.train.sums import Sums


def batch(utterances, samples):
    lengths = torch.full((utterances,), samples)
    return Batch(["a"] * utterances, torch.zeros(utterances, samples), lengths, lengths.unsqueeze(1), lengths)


def losses(speller, tokens, errors=None):
    expected = None if errors is None else torch.tensor(errors)
    return Losses(torch.tensor(speller), torch.tensor(2.0), tokens, torch.tensor(3), [], expected)


def test_what_was_trained_on_is_summed_and_what_did_not_fit_is_counted():
    whole = Pieces([(batch(3, 50), losses(1.0, 10))])
    pieces = Pieces([(batch(1, 100), losses(4.0, 5)), (batch(1, 30), losses(0.5, 5))], [batch(3, 100)], [batch(1, 100)])
    found = Sums.of([whole, pieces], 2, (False, True), 100, list)
    assert found == Sums(5.5, 6.0, 9, 0, 2.8, 20, 5, 3, 1, 3.0, (False, True))
    assert found.figures(mwer=False) == {"loss": 5.5 / 20, "ctc_loss": 6 / 20, "accuracy": 9 / 20}


def test_word_errors_are_told_per_utterance():
    found = Sums.of([Pieces([(batch(4, 50), losses(1.0, 10, 2.0))])], 0, (False, False), 100, list)
    assert found.figures(mwer=True)["expected_errors"] == 0.5
