"""Model folders, by name or path: found, opened with their language models, and started from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from las import checkpoint
from las import config as settings
from las.errors import UserError
from las.model.device import choose_device
from las.model.las import LAS
from las.recipe.config import RunConfig
from las.search.beam import SearchConfig
from las.search.scorers import Part, Scorer
from las.text.tokenizer import Tokenizer
from las.train import run_folder
from las.transcribe.confidence import read_map
from las.transcribe.language_model import open_scorer
from las.transcribe.recognizer import NEVER, Recognizer
from las.transcribe.verdict import read_thresholds

PRETRAINED = Path(__file__).parents[1] / "pretrained"


def find_model(name: str) -> Path:
    """The folder of a model: one that ships with the package, by name, or any folder."""
    shipped = PRETRAINED / name
    if Path(name).name == name and (shipped / checkpoint.CONFIG).is_file():
        return shipped
    if (Path(name) / checkpoint.CONFIG).is_file():
        return Path(name)
    if Path(name).is_dir():
        checkpoint.read_model(name)  # which says what is missing
    names = ", ".join(path.name for path in pretrained()) or "none"
    raise UserError(f"no model {name!r}: neither a model folder nor one of those that ship ({names})")


def pretrained() -> list[Path]:
    """The model folders that ship with the package."""
    return sorted(path.parent for path in PRETRAINED.glob(f"*/{checkpoint.CONFIG}"))


def check_writable(name: str) -> None:
    """Raise `UserError` for a model that ships: what is installed is not changed."""
    if find_model(name).resolve() in [path.resolve() for path in pretrained()]:
        raise UserError(f"--write: {name} ships with las and is not changed; copy its folder and name the copy")


def open_model(
    name: str | Path, device: str | torch.device = "auto", overrides: Sequence[str] = ()
) -> tuple[Recognizer, RunConfig]:
    """A model by name or folder, ready to transcribe, and its settings with `key=value` words over them."""
    folder = checkpoint.read_model(find_model(str(name)))
    config = settings.from_mapping(RunConfig, folder.config, str(folder.path / checkpoint.CONFIG), overrides)
    tokenizer = Tokenizer(folder.tokenizer, str(folder.path / checkpoint.TOKENIZER))
    if tokenizer.size != folder.vocabulary:
        raise UserError(
            f"{folder.path}: the tokenizer has {tokenizer.size} tokens, the config says {folder.vocabulary}"
        )
    make = partial(LAS, config.model, folder.vocabulary)
    model = checkpoint.build(make, folder.weights, folder.path / checkpoint.WEIGHTS)
    if config.search.bfloat16:
        model.to_bfloat16()
    chosen = choose_device(device) if isinstance(device, str) else device
    parts = _language_models(folder.path, config.search, tokenizer, chosen)
    fitted = read_map(folder.path), read_thresholds(folder.path)
    return Recognizer(model.eval().to(chosen), tokenizer, config.search, str(name), parts, *fitted), config


def _language_models(
    folder: Path, search: SearchConfig, tokenizer: Tokenizer, device: torch.device
) -> list[Callable[[int], Part]]:
    """The parts of language models in the search with a model from `folder`."""
    own = folder / "language_model"
    dtype = torch.bfloat16 if search.bfloat16 else torch.float32
    added = search.language_model or (str(own) if own.is_dir() else "")
    asked = (
        ("language model", added, search.language_weight),
        ("source model", search.source_model, -search.source_weight),
    )
    return [
        partial(_language_part, name, open_scorer(path, tokenizer, NEVER, device, dtype), weight)
        for name, path, weight in asked
        if path and weight
    ]


def _language_part(name: str, scorer: Callable[[int], Scorer[Any]], weight: float, utterances: int) -> Part:
    return Part(name, scorer(utterances), weight)


def start_from(model: LAS, tokenizer: Tokenizer, name: str) -> None:
    """Put the weights of another model into `model`; with other tokens the layers that know tokens start anew."""
    folder = checkpoint.read_model(find_model(name))
    heard = settings.from_mapping(RunConfig, folder.config, str(folder.path / checkpoint.CONFIG)).model.frontend
    if changed := run_folder.differences(heard, model.config.frontend, "model.frontend."):
        key = changed[0].rpartition(".")[2]
        raise UserError(
            f"init={name}: {changed[0]} is {getattr(heard, key)} there and {getattr(model.config.frontend, key)} here; "
            "its weights know features made as there"
        )
    weights = folder.weights
    if folder.tokenizer != tokenizer.to_bytes():
        own = model.state_dict()
        for part in ("speller.embedding.", "speller.output.", "ctc.output."):
            weights = {name: value for name, value in weights.items() if not name.startswith(part)}
            weights |= {name: value for name, value in own.items() if name.startswith(part)}
    checkpoint.load_weights(model, weights, f"init={name}")
