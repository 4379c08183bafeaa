"""Subsets of LibriSpeech, where they lie or downloaded -> utterances: what the recipes on it share.

Source: OpenSLR 12 (https://www.openslr.org/12/; Panayotov et al. 2015) and its small part, OpenSLR 31. An archive
SUBSET.tar.gz holds LibriSpeech/SUBSET/SPEAKER/CHAPTER/ with SPEAKER-CHAPTER.trans.txt, a line `ID TEXT` for each
recording, and the recordings ID.flac.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from las.data.download import unpacked
from las.data.manifest import Utterance
from las.data.transcripts import read_tree, some
from las.errors import UserError

LAYOUT = "SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt"


class LibriSpeech:
    """The subsets in a folder; without one those of `archives`, subset -> address, downloaded below `output`."""

    def __init__(self, corpus: Path | None, archives: Mapping[str, str], output: Path):
        self.archives, self.output = archives, output
        self.folders: dict[str, Path] | None = None
        if corpus is not None:
            place = corpus / "LibriSpeech" if (corpus / "LibriSpeech").is_dir() else corpus
            self.folders = {path.name: path for path in place.iterdir() if path.is_dir()} if place.is_dir() else {}
            if not self.folders:
                wanted = ", ".join(f"{name}/" for name in archives)
                raise UserError(f"{place}: no subsets of LibriSpeech there; wanted {wanted}; see --corpus")

    @property
    def subsets(self) -> list[str]:
        """The names that can be had."""
        return list(self.archives) if self.folders is None else sorted(self.folders)

    def check(self, names: Iterable[str]) -> None:
        """Raise `UserError` for a subset that cannot be had, before time is spent on the others."""
        for name in names:
            if name not in self.subsets:
                raise UserError(
                    f"no subset {name}; there are {', '.join(self.subsets)}: name some of them, or give --corpus the "
                    "folder that holds it"
                )

    def read(self, name: str) -> list[Utterance]:
        """All utterances of a subset, sorted by id. Published texts are upper case throughout; they are lowered."""
        if self.folders is None:
            folder = unpacked(self.archives[name], self.output, name) / "LibriSpeech" / name
        else:
            folder = self.folders[name]
        return [replace(one, text=one.text.lower()) for one in read_tree(folder, LAYOUT)]


def join(parts: Iterable[list[Utterance]]) -> list[Utterance]:
    """Subsets one after another; what several hold (train-clean-5 comes out of train-clean-100) is taken once."""
    together: dict[str, Utterance] = {}
    for part in parts:
        together = {utterance.id: utterance for utterance in part} | together
    return [together[id] for id in sorted(together)]


def check_speakers(train: list[Utterance], sets: Mapping[str, list[Utterance]]) -> None:
    """A set tells of new speakers only if nobody in it was trained on; raises `UserError` where somebody was."""
    known = {utterance.speaker or "" for utterance in train}
    for name, utterances in sets.items():
        both = known & {utterance.speaker or "" for utterance in utterances}
        if both:
            raise UserError(f"training and {name} share {len(both)} speakers ({some(both)}); choose other subsets")
