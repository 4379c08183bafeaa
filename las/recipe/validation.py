"""Loss and greedy error rate of a model on the validation set, as training goes on."""

from __future__ import annotations

from dataclasses import astuple, replace

import torch

from las.data.loader import Loader
from las.errors import UserError
from las.recipe.config import RunConfig
from las.text.alignment import ErrorCounts, align
from las.text.normalize import normalize
from las.text.tokenizer import BOS, EOS, UNK
from las.train.distributed import World
from las.train.loop import ALONE, Validation
from las.train.objectives import losses
from las.transcribe.recognizer import Recognizer


class Validator:
    """Judges a model on the validation set: loss with the transcript given, error rate by greedy search.

    What the tokens cannot write counts as an error, as it does in `las evaluate`.

    The ranks of `world` share the set, and all come to the same figures.
    """

    def __init__(self, recognizer: Recognizer, loader: Loader, config: RunConfig, world: World = ALONE):
        self.recognizer = recognizer
        self.loader = loader
        self.config = config
        self.world = world

    @torch.no_grad()
    def __call__(self, trial: bool = False) -> Validation:
        """Of the whole set; `trial`: of the longest batches alone, one for each rank, to see whether it works. (A model
        that has learnt nothing ends no transcript, so a whole set would take it far longer than a trained one.)
        """
        model, tokenizer = self.recognizer.model.eval(), self.recognizer.tokenizer
        search = replace(self.config.search, beam=1)
        total, tokens, counts = 0.0, 0, ErrorCounts()
        fixed: tuple[torch.Tensor, list[str], str] | None = None
        skip = max(0, len(self.loader.plan(0, self.world.size)) - self.world.size) if trial else 0
        for _, read in self.loader.batches(0, skip, self.world.rank, self.world.size):
            if read is None:
                continue
            batch = read.to(self.recognizer.device)
            output = model(batch, BOS)
            found = losses(output, batch, EOS, smoothing=0.0)
            total, tokens = total + float(found.speller), tokens + found.tokens
            hypotheses = self.recognizer.spell([output.listened], search)
            for row, (hypothesis, length) in enumerate(zip(hypotheses, batch.lengths.tolist(), strict=True)):
                ids = batch.tokens[row, :length].tolist()
                text = tokenizer.decode(hypothesis[0].tokens if hypothesis else [])
                written = self.loader.text(batch.ids[row]) if UNK in ids else tokenizer.decode(ids)
                reference = normalize(written, self.config.style)
                counts += align(reference, normalize(text, self.config.style)).counts
                if fixed is None:
                    weights = output.weights[row, : length + 1, : int(output.listened.lengths[row])]
                    fixed = weights.float().cpu(), [*tokenizer.pieces(ids), "</s>"], text
        figures = (total, tokens, *astuple(counts))
        total, spoken, *errors = self.world.add(figures, self.recognizer.device)
        counts = ErrorCounts(*map(int, errors))
        if counts.rate is None:
            why = f" (left out: {self.loader.ledger})" if len(self.loader.ledger) else ""
            raise UserError(
                f"data.valid {self.config.data.valid}: no words to validate on in the style {self.config.style}{why}"
            )
        return Validation(total / spoken, counts.rate, *(fixed or (torch.ones(1, 1), [""], "")))
