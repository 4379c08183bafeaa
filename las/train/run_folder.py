"""The folder of a run: its config.yaml says whose it is, its state.pt how far the run came."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from las import checkpoint
from las import config as settings
from las.errors import UserError
from las.files import hold, write_text

CONFIG, STATE, WEIGHTS = "config.yaml", "state.pt", "checkpoints"


def opened(config: Any, folder: Path, resume: bool, free: Collection[str]) -> dict[str, Any] | None:
    """Refuse a folder that cannot be used; the state to resume from, if there is one.

    A run is resumed with the settings it was started with, but for those whose dotted names are in `free`.
    """
    saved = folder / CONFIG
    if resume:
        if not saved.is_file():
            raise UserError(f"{folder}: no run to resume here; leave out --resume to start one")
        before = settings.load(type(config), saved)
        changed = [name for name in differences(before, config) if name not in free]
        if changed:
            raise UserError(
                f"{folder}: {changed[0]} differs from the run's {saved.name}; a run is resumed as it was started, and "
                "another one may begin with what it has learnt (init=MODEL)"
            )
        return _state(folder / STATE)
    if saved.exists():
        raise _taken(folder)
    return None


def _state(path: Path) -> dict[str, Any] | None:
    """The last state; where that is damaged or was just being replaced, the one before it, and that is said."""
    before = checkpoint.earlier(path)
    if not path.exists() and not before.exists():
        return None
    try:
        return _read(path)
    except UserError as error:
        if not before.exists():
            raise
        print(f"las: {error}; going on from {before.name}", file=sys.stderr)
        return _read(before)


def _read(path: Path) -> dict[str, Any]:
    state = checkpoint.read_state(path)
    if not isinstance(state.get("progress"), dict):
        raise UserError(f"{path}: not the state of a run, cannot be resumed: it holds no progress")
    return state


def is_finished(state: dict[str, Any] | None, epochs: int, model: Path) -> bool:
    """Whether nothing is left to do: all is trained and `model` is made, and may hold what was fitted to it since."""
    return state is not None and state["progress"]["epoch"] >= epochs and (model / checkpoint.CONFIG).is_file()


def forget_weights(folder: Path, needed: Iterable[Path]) -> None:
    """Remove weights of a run that neither of its states needs any more."""
    kept = set(needed)
    for path in (folder / WEIGHTS).glob("[0-9]*.safetensors"):
        if path not in kept:
            path.unlink()


def held(folder: Path) -> AbstractContextManager[None]:
    """Hold a run's folder for this process. Raises `UserError` where another one does."""
    return hold(folder, "another process trains there; wait for it, or name another folder")


def claim(config: Any, folder: Path, resume: bool) -> None:
    """Make a folder that is held this run's by putting its config there."""
    if not resume and (folder / CONFIG).exists():  # begun by another process since this one looked
        raise _taken(folder)
    write_text(folder / CONFIG, settings.to_yaml(config))


def _taken(folder: Path) -> UserError:
    return UserError(f"{folder}: holds a run; continue it with --resume, or name another folder")


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
