"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from las.errors import UserError


@contextmanager
def hold(folder: Path, refusal: str) -> Iterator[None]:
    """Hold a folder (made where it is missing) for this process; the lock goes when the process does, however it ends.

    Raises `UserError` with `refusal` where another process holds it. On a file system that knows no locks nothing is
    held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's it is not the children's too
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):  # by POSIX either says that another process has it
                raise UserError(f"{folder}: {refusal}") from None
        yield


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
