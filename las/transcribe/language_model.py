"""A language model on disk -> scorers for search: the folder of an LSTM, or an ARPA file of n-grams.

Its tokens must be those of the recogniser: a folder holds its own tokenizer, the words of an ARPA file are pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from las import checkpoint
from las import config as settings
from las.errors import UserError
from las.model.language_model import LanguageModel, LanguageModelConfig, LanguageModelSteps
from las.search.language_model import LanguageModelScorer
from las.search.ngram import NgramScorer, read_ngrams
from las.search.scorers import Scorer
from las.text.normalize import style_named
from las.text.tokenizer import Tokenizer

NAMED = 5  # tokens that a message shows


def open_scorer(
    path: str | Path,
    tokenizer: Tokenizer,
    never: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Callable[[int], Scorer[Any]]:
    """A function from a number of utterances to a scorer of them, with products in `dtype`.

    Tokens `never` get -inf. Raises `UserError` where the model's tokens are not those of `tokenizer`.
    """
    if Path(path).is_dir():
        model, own, _ = read_language_model(path)
        check_tokens(own, tokenizer, str(path))
        return partial(LanguageModelScorer, LanguageModelSteps(model.to(device), dtype, never))
    ngrams = read_ngrams(path, tokenizer).to(device)
    return partial(NgramScorer, ngrams, never=never)


def read_language_model(folder: str | Path) -> tuple[LanguageModel, Tokenizer, str]:
    """The model of a folder that `las lm train` made, its tokenizer and the style of its text."""
    found = checkpoint.read_model(folder)
    where = str(found.path / checkpoint.CONFIG)
    sizes = found.config.get("model")
    if not isinstance(sizes, dict) or "listener" in sizes:
        raise UserError(f"{folder}: not a language model; wanted the folder language_model of `las lm train`")
    config = settings.from_mapping(LanguageModelConfig, sizes, where)
    tokenizer = Tokenizer(found.tokenizer, str(found.path / checkpoint.TOKENIZER))
    if tokenizer.size != found.vocabulary:
        raise UserError(f"{folder}: the tokenizer has {tokenizer.size} tokens, the config says {found.vocabulary}")
    style = str(found.config.get("style"))
    style_named(style)
    make = partial(LanguageModel, config, found.vocabulary)
    model = checkpoint.build(make, found.weights, found.path / checkpoint.WEIGHTS)
    return model.eval(), tokenizer, style


def check_tokens(own: Tokenizer, wanted: Tokenizer, where: str) -> None:
    """Raise `UserError` where a language model's tokens are not the recogniser's."""
    if own.to_bytes() == wanted.to_bytes():
        return
    here, there = own.pieces(range(own.size)), wanted.pieces(range(wanted.size))
    if here == there:
        return
    differing = [
        f"{number} is {one!r} there and {other!r} here"
        for number, (one, other) in enumerate(zip(here, there, strict=False))
        if one != other
    ]
    raise UserError(
        f"{where}: a language model of {len(here)} other tokens than the recogniser's {len(there)} (token "
        f"{'; '.join(differing[:NAMED]) or f'{min(len(here), len(there))} is missing in one of them'}); train it with "
        "the recogniser's own tokenizer, data.tokenizer=MODEL"
    )
