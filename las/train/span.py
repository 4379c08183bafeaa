"""When something in training is on: from one update to another."""

from __future__ import annotations

from las.errors import UserError


def is_on(update: int, start: int, end: int) -> bool:
    """Whether update `update`, counted from 0, is at or after `start` and before `end`; an end of 0 never comes.

    >>> [is_on(update, 2, 4) for update in range(6)]
    [False, False, True, True, False, False]
    """
    return start <= update and (end == 0 or update < end)


def check_span(name: str, start: int, end: int) -> None:
    """Raise `UserError` where nothing lies between two updates."""
    if start < 0 or end < 0 or (end and end <= start):
        raise UserError(f"{name}_start {start}, {name}_end {end}: the end must come after the start, or be 0 for never")
