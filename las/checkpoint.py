"""Files that outlive a process: the state of a run, to resume it, and the model folder, to use it.

    MODEL/config.yaml          settings, with the number of this format and the vocabulary's size
    MODEL/model.safetensors    weights; as int8, a matrix NAME has its scales, one a row, beside it in NAME.scale
    MODEL/tokenizer.model      SentencePiece
    MODEL/README.md            the card: data, WER, limits

Nothing in a model folder is unpickled. A run's state is read with torch's restricted unpickler, which makes tensors
and plain values only.
"""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from las.config import parse_yaml
from las.errors import UserError
from las.files import write_text

FORMAT = 2  # of model folders; 1: before utterance_mean in the frontend
CONFIG, WEIGHTS, TOKENIZER, CARD = "config.yaml", "model.safetensors", "tokenizer.model", "README.md"
Built = TypeVar("Built", bound=torch.nn.Module)
SCALE = ".scale"  # ends the name of the scales of a matrix that is stored as int8


@dataclass(frozen=True)
class ModelFolder:
    """A model folder's contents, read and checked."""

    path: Path
    config: dict[str, Any]
    vocabulary: int
    weights: dict[str, Tensor]  # float32
    tokenizer: bytes


def write_model(
    folder: Path,
    config: str,
    weights: dict[str, Tensor],
    tokenizer: bytes,
    vocabulary: int,
    card: str,
    store: torch.dtype = torch.float32,
) -> None:
    """Make a model folder, replacing one that is there only when all is written. `store`: see `write_weights`."""
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_config(temporary, config, vocabulary)
    (temporary / TOKENIZER).write_bytes(tokenizer)
    (temporary / CARD).write_text(card, encoding="utf-8")
    write_weights(temporary / WEIGHTS, weights, store)
    if folder.exists():
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(temporary, folder)
        shutil.rmtree(old)
    else:
        os.replace(temporary, folder)


def write_config(folder: Path, config: str, vocabulary: int) -> None:
    """Put a config into a model folder, in place of one that is there."""
    write_text(folder / CONFIG, f"format: {FORMAT}\nvocabulary: {vocabulary}\n{config}")


def read_model(folder: str | Path) -> ModelFolder:
    """Read a model folder; `UserError` names what is missing, damaged or of another format."""
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder}: not a model folder, {CONFIG} is missing")
    try:
        config = parse_yaml((folder / CONFIG).read_text(encoding="utf-8"), str(folder / CONFIG))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / CONFIG}: cannot be read: {error}") from None
    found = config.pop("format", None)
    if found is None:
        for inside in (folder / "model", folder / "language_model"):
            if (inside / CONFIG).is_file():
                raise UserError(f"{folder}: the folder of a run; its model is {inside}")
    if found != FORMAT:
        raise UserError(
            f"{folder / CONFIG}: model format {found}, this version of las reads format {FORMAT}; "
            "use the version of las that made the model, or train it anew"
        )
    vocabulary = config.pop("vocabulary", None)
    if not isinstance(vocabulary, int) or vocabulary < 1:
        raise UserError(f"{folder / CONFIG}: vocabulary {vocabulary!r} must be a whole number above 0")
    try:
        tokenizer = (folder / TOKENIZER).read_bytes()
    except OSError as error:
        raise UserError(f"{folder / TOKENIZER}: cannot be read: {error.strerror}") from None
    return ModelFolder(folder, config, vocabulary, read_weights(folder / WEIGHTS), tokenizer)


def write_weights(path: Path, weights: dict[str, Tensor], store: torch.dtype = torch.float32) -> None:
    """Store tensors as safetensors, under a temporary name first.

    `store` is float32 (which leaves tensors as they are), float16, or int8: there each row of a matrix (of a kernel:
    each output) is whole numbers from -127 to 127 times a scale of its own, and what is not a matrix is float16.
    """
    kept: dict[str, Tensor] = {}
    for name, value in weights.items():
        if store == torch.float32 or not value.is_floating_point():
            kept[name] = value
        elif store == torch.int8 and value.dim() > 1:
            kept[name], kept[name + SCALE] = _to_int8(value.float())
        else:
            kept[name] = value.half()
    temporary = path.with_name(path.name + ".part")
    whole = torch.contiguous_format
    # copies, as safetensors wants: tensors of one model may share their memory
    apart = {name: value.detach().cpu().clone(memory_format=whole) for name, value in kept.items()}
    temporary.write_bytes(save(apart))
    os.replace(temporary, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, floating-point ones as float32, and int8 ones by their scales."""
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: damaged or not safetensors: {error}") from None
    weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    for name in [name for name, value in weights.items() if value.dtype == torch.int8]:
        scale = weights.pop(name + SCALE, None)
        rows = weights[name].shape[:1]
        if scale is None or scale.shape != rows or not scale.is_floating_point():
            found = "nothing" if scale is None else f"{scale.dtype} of shape {tuple(scale.shape)}"
            raise UserError(f"{path}: {name + SCALE!r} must hold {rows.numel()} scales of int8 rows, found {found}")
        weights[name] = weights[name].float() * _as_column(scale, weights[name])
    return weights


def _to_int8(value: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (rows, ...) -> whole numbers of the same shape, float32 scales (rows,)."""
    scale = value.abs().flatten(1).amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (value / _as_column(scale, value)).round().to(torch.int8), scale


def _as_column(scale: Tensor, value: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (value.dim() - 1))


def build(make: Callable[[], Built], weights: dict[str, Tensor], where: str | Path) -> Built:
    """A model with its weights; raises `UserError` as `load_weights` does, before memory is taken for what a config
    asks for: it may be a stranger's."""
    try:
        with torch.device("meta"):
            skeleton = make()
    except RuntimeError as error:  # sizes beyond any number of bytes
        raise UserError(f"{where}: the config asks for a model that cannot be: {error}") from None
    _compare(skeleton, weights, where)
    model = make()
    model.load_state_dict(weights)
    return model


def load_weights(model: torch.nn.Module, weights: dict[str, Tensor], where: str | Path) -> None:
    """Put weights into a model; `UserError` names the first tensor that is missing, left over or of another shape."""
    _compare(model, weights, where)
    model.load_state_dict(weights)


def _compare(model: torch.nn.Module, weights: dict[str, Tensor], where: str | Path) -> None:
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights:
            raise UserError(f"{where}: the weights lack {name!r}, which the config asks for")
        if name not in wanted:
            raise UserError(f"{where}: the weights hold {name!r}, which the config does not ask for")
        if wanted[name].shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)}, the config asks for {tuple(wanted[name].shape)}"
            raise UserError(f"{where}: {name!r} has shape {shapes}")


def average(paths: list[Path]) -> dict[str, Tensor]:
    """The mean of the weights in several files."""
    total: dict[str, Tensor] = {}
    for path in paths:
        for name, value in read_weights(path).items():
            total[name] = total[name] + value if name in total else value
    return {name: value / len(paths) if value.is_floating_point() else value for name, value in total.items()}


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Store the state of a run, whole or not at all; the one that was there is kept as `earlier` names it."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        os.replace(path, earlier(path))
    os.replace(temporary, path)


def earlier(path: Path) -> Path:
    """Where the state before that of `path` lies."""
    return path.with_name(f"{path.stem}.earlier{path.suffix}")


def read_state(path: Path) -> dict[str, Any]:
    """The state that `write_state` stored."""
    try:
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: nothing to resume, the run was stopped before its first checkpoint") from None
    except pickle.UnpicklingError:  # torch's words advise to run what is in it
        raise UserError(f"{path}: damaged, cannot be resumed: it is no state of a run; nothing in it was run") from None
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        reason = (str(error) or "it ends early").splitlines()[0]
        raise UserError(f"{path}: damaged, cannot be resumed: {reason}") from None
    if not isinstance(state, dict):
        raise UserError(f"{path}: not the state of a run, cannot be resumed: it holds a {type(state).__name__}")
    return state
