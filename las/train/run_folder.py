"""The folder of a run: its config.yaml says whose it is, its state.pt how far the run came."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from las import checkpoint
from las import config as settings
from las.errors import UserError
from las.files import write_text

STATE, WEIGHTS = "state.pt", "checkpoints"


def opened(config: Any, folder: Path, resume: bool, free: Collection[str]) -> dict[str, Any] | None:
    """Refuse a folder that cannot be used; the state to resume from, if there is one.

    A run is resumed with the settings it was started with, but for those whose dotted names are in `free`.
    """
    saved = folder / "config.yaml"
    if resume:
        if not saved.is_file():
            raise UserError(f"{folder}: no run to resume here; leave out --resume to start one")
        before = settings.load(type(config), saved)
        changed = [name for name in differences(before, config) if name not in free]
        if changed:
            raise UserError(
                f"{folder}: {changed[0]} differs from the run's {saved.name}; a run is resumed as it was started"
            )
        return _state(folder / STATE)
    if saved.exists():
        raise UserError(f"{folder}: holds a run; continue it with --resume, or name another folder")
    return None


def _state(path: Path) -> dict[str, Any] | None:
    """The last state; where that is damaged or was just being replaced, the one before it, and that is said."""
    before = checkpoint.earlier(path)
    if not path.exists() and not before.exists():
        return None
    try:
        return checkpoint.read_state(path)
    except UserError as error:
        if not before.exists():
            raise
        print(f"las: {error}; going on from {before.name}", file=sys.stderr)
        return checkpoint.read_state(before)


def is_finished(state: dict[str, Any] | None, epochs: int, model: Path) -> bool:
    """Whether nothing is left to do: all is trained and `model` is made, and may hold what was fitted to it since."""
    return state is not None and state["progress"]["epoch"] >= epochs and (model / checkpoint.CONFIG).is_file()


def forget_weights(folder: Path, needed: Iterable[Path]) -> None:
    """Remove weights of a run that neither of its states needs any more."""
    kept = set(needed)
    for path in (folder / WEIGHTS).glob("[0-9]*.safetensors"):
        if path not in kept:
            path.unlink()


def claim(config: Any, folder: Path) -> None:
    """Make a folder this run's by putting its config there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", settings.to_yaml(config))


def differences(one: Any, other: Any, prefix: str = "") -> list[str]:
    """Dotted names of the settings in which two configs differ."""
    names: list[str] = []
    for setting in fields(one):
        left, right = getattr(one, setting.name), getattr(other, setting.name)
        if is_dataclass(left) and type(left) is type(right):
            names += differences(left, right, f"{prefix}{setting.name}.")
        elif left != right:
            names.append(prefix + setting.name)
    return names
