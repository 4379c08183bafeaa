"""`calibration.json` of a model folder: what was fitted to the model on transcripts of known truth, in sections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from las.errors import UserError
from las.files import write_json

FILE = "calibration.json"


def read_section(folder: Path, name: str) -> dict[str, Any] | None:
    """One section of a model folder's file; None where there is no file, or none in it. Raises `UserError`."""
    section = _read(folder / FILE).get(name)
    if section is not None and not isinstance(section, dict):
        raise UserError(f"{folder / FILE}: {name} is no map of `las calibrate` or `las doctor`; fit it again")
    return section


def write_section(folder: Path, name: str, section: dict[str, Any]) -> None:
    """Put a section into a model folder's file; the others stay."""
    path = folder / FILE
    write_json(path, {**_read(path), name: section})


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}: wanted a JSON object; fit it again with `las calibrate`")
    return record
