"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8 in place of what is there; what is no UTF-8 in a file name goes through as it came.

    Whoever reads the file meanwhile, or after a crash, finds the old text or the new one. Raises OSError.
    """
    temporary = path.with_name(f".{os.getpid()}.part")  # path.name + ".part" may be longer than a name can be
    temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON that people can read, as `write_text` does."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")
