"""Sets with transcripts -> what the verdicts of a model go by: thresholds in its folder's `calibration.json`.

As for confidence (las/recipe/calibration.py), sets are decoded by models that have not heard their speakers: the model
itself or its sisters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from las import audio
from las.errors import UserError
from las.recipe.evaluation import recordings_of
from las.recipe.models import find_model, open_model
from las.recipe.verdict_cases import make_cases
from las.transcribe.verdict import Thresholds, write_thresholds
from las.transcribe.verdict_fit import Case

MOST = 500  # recordings of a set that cases are made of


def cases_of(
    model: str,
    early: str | None,
    path: str | Path,
    device: str,
    progress: Callable[[float, float], None],
    changes: Sequence[str] = (),
) -> list[Case]:
    """Cases of a set as a model reads it, with `key=value` words over its settings.

    Raises `UserError` where there are none.
    """
    recognizer, config = open_model(model, device, changes)
    other = None if early is None else open_model(early, device, changes)[0]
    if other is not None and other.rate != recognizer.rate:
        raise UserError(f"{early} reads {other.rate} Hz and {model} {recognizer.rate} Hz; wanted two of one config")
    recordings = (
        (audio.load(one.source, recognizer.rate), one.reference) for one in islice(recordings_of(path)[0], MOST)
    )
    cases = make_cases(recognizer, recordings, config.style, other, progress=progress)
    if not cases:
        raise UserError(
            f"{path}: too few recordings of words that {recognizer.name} reads in one piece to make cases of; give more"
        )
    return cases


def pairs(
    model: str, fitted: int, checked: int, sisters: Sequence[str], early: Sequence[str]
) -> list[tuple[str, str | None]]:
    """The model that reads each set and the early one: first of the sets that are fitted on, then of those that check.

    Sisters read only what is fitted on. Raises `UserError` where the numbers differ.
    """
    for name, given, wanted in (("sisters", sisters, fitted), ("early models", early, fitted + checked)):
        if given and len(given) != wanted:
            raise UserError(f"{wanted} sets and {len(given)} {name}: name one for each set, in the same order")
    readers = [*(sisters or [model] * fitted), *[model] * checked]
    others: list[str | None] = list(early) or [None] * len(readers)
    return list(zip(readers, others, strict=True))


def write(model: str, fitted: Thresholds, names: Sequence[str], cases: int) -> Path:
    """Put thresholds into the folder of a model, which is returned, with what they were fitted on."""
    folder = find_model(model)
    write_thresholds(folder, fitted, {"fitted on": list(names), "cases": cases})
    return folder
