"""Sets with known transcripts -> how sure a model may be of its words: the map in its folder's `calibration.json`.

The map must be fitted where errors are like those to come: on speakers that the model has not heard. Where all that
there are went into training, models of the same config that were trained without some of them, its sisters, stand in:
each decodes the speakers it does not know, and the map fitted on them all is the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from las.errors import UserError
from las.recipe.evaluation import judged_words, recordings_of, sources_of
from las.recipe.models import find_model, open_model
from las.transcribe import confidence
from las.transcribe.confidence import ConfidenceMap
from las.transcribe.recognizer import Recognizer


@dataclass(frozen=True)
class Judged:
    """Words of a set that a model recognised."""

    name: str
    evidence: np.ndarray  # what `confidence.FEATURES` say of each (W, 3)
    right: np.ndarray  # whether they are right (W,)

    def report(self, fitted: ConfidenceMap) -> list[str]:
        """How far `fitted` can be trusted here, in lines; the bars are shares of right words."""
        sure = np.array([fitted(row) for row in self.evidence])
        error = confidence.calibration_error(sure, self.right)
        apart = confidence.separation(sure, self.right)
        lines = [
            f"{self.name}: {len(self.right)} words, {self.right.mean():.1%} right, mean confidence {sure.mean():.1%}: "
            f"ECE {error:.1%}, AUC {apart:.3f}",
            "confidence  words   mean  right",
        ]
        for place, (count, mean, share) in enumerate(confidence.reliability(sure, self.right)):
            if count:
                bounds = f"{place / confidence.BINS:.1f} - {(place + 1) / confidence.BINS:.1f}"
                lines.append(f"{bounds:10}  {count:5}  {mean:5.1%}  {share:5.1%}  {'#' * round(20 * share)}")
        return lines


def calibrate(
    model: str,
    sets: Mapping[str, str | Path],
    sisters: Sequence[str],
    device: str,
    progress: Callable[[float, float], None],
    changes: Sequence[str] = (),
) -> tuple[ConfidenceMap, list[Judged]]:
    """The map for `model`, and the sets it was fitted on; set n is decoded by sister n, without sisters by the model.

    `changes` are `key=value` words over the settings of whatever decodes.
    Raises `UserError` where sets and sisters do not pair, and as `confidence.fit` and decoding do.
    """
    if sisters and len(sisters) != len(sets):
        raise UserError(f"{len(sets)} sets and {len(sisters)} sisters: name one sister for each set, in the same order")
    own = find_model(model)
    judged = [
        judge(sister, name, path, device, progress, changes)
        for sister, (name, path) in zip(sisters or [str(own)] * len(sets), sets.items(), strict=True)
    ]
    evidence, right = (np.concatenate([getattr(one, part) for one in judged]) for part in ("evidence", "right"))
    return confidence.fit(evidence, right), judged


def judge(
    model: str,
    name: str,
    path: str | Path,
    device: str,
    progress: Callable[[float, float], None],
    changes: Sequence[str] = (),
) -> Judged:
    """What a model's words in a set are made of, and which are right. Words that its style leaves out do not count."""
    recognizer, config = open_model(model, device, changes)
    rows = list(_judged_words(recognizer, path, config.style, progress))
    if not rows:
        raise UserError(f"{path}: {recognizer.name} recognises no word in it, so there is none to judge")
    return Judged(name, np.array([evidence for evidence, _ in rows]), np.array([float(right) for _, right in rows]))


def _judged_words(
    recognizer: Recognizer, path: str | Path, style: str, progress: Callable[[float, float], None]
) -> Iterator[tuple[tuple[float, ...], bool]]:
    recordings, total = recordings_of(path)
    known: list[tuple[str, str, str | None]] = []
    done = 0.0
    for number, one in enumerate(recognizer.stream(sources_of(recordings, known), words=True)):
        for word, right in judged_words(one, known[number][1], style):
            yield word.evidence, right
        done += one.seconds
        progress(min(done, total), total)


def write(model: str, fitted: ConfidenceMap, judged: Sequence[Judged]) -> Path:
    """Put a map into the folder of a model, which is returned, with what it was fitted on."""
    folder = find_model(model)
    facts = {"fitted on": [one.name for one in judged], "words": sum(len(one.right) for one in judged)}
    confidence.write_map(folder, fitted, facts)
    return folder
