"""Recordings and the lists that say what is spoken in them -> `Utterance`s; nothing missing goes unnoticed.

Used by recipes: lines `ID TEXT`, in one list or in one for each folder, as LibriSpeech has them (OpenSLR 12) and
corpora that follow it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from las.audio import SUFFIXES, probe
from las.data.manifest import Utterance
from las.errors import UserError

NAMED = 3  # ids that a message names
NOT_WHOLE = "the copy is not whole: fetch or unpack it again"


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """`path, line N` and the line, stripped, for each that holds something. Not UTF-8, no such file: `UserError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8, in which it is published: fetch it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {NOT_WHOLE}") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def read_transcripts(path: Path) -> dict[str, str]:
    """Lines `ID TEXT` -> id -> text. A line without a text and an id that comes twice are `UserError`s."""
    texts: dict[str, str] = {}
    for where, line in read_lines(path):
        id, *rest = line.split(maxsplit=1)
        if not rest:
            raise UserError(f"{where}: {line!r} has no text; wanted `ID TEXT`")
        if id in texts:
            raise UserError(f"{where}: the id {id} was there already; remove one of its lines")
        texts[id] = rest[0]
    return texts


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Stem -> path of the audio files among `paths`; a stem that comes twice is a `UserError`."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in paths if path.suffix.lower() in SUFFIXES):
        if path.stem in found:
            raise UserError(f"{path}: the id is also that of {found[path.stem]}; remove one of the two")
        found[path.stem] = path
    return found


def pair(
    where: Path,
    texts: Mapping[str, str],
    recordings: Mapping[str, Path],
    listing: str,
    speaker: Callable[[Path], str | None],
) -> list[Utterance]:
    """Utterances sorted by id with their seconds; every recording must have its line and every line its recording."""
    for what, names in (
        (f"recordings without a line in {listing}", recordings.keys() - texts.keys()),
        (f"lines of {listing} without a recording", texts.keys() - recordings.keys()),
    ):
        if names:
            raise UserError(f"{where}: {len(names)} {what}: {some(names)}; {NOT_WHOLE}")
    ids = sorted(texts)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lengths = [info.seconds for info in pool.map(probe, (recordings[id] for id in ids))]
    return [
        Utterance(id, str(recordings[id].absolute()), texts[id], seconds, speaker(recordings[id]))
        for id, seconds in zip(ids, lengths, strict=True)
    ]


def read_tree(folder: Path, layout: str) -> list[Utterance]:
    """All utterances of a tree of two levels with a list of transcripts in each folder, sorted by id.

    `layout` is the place of the lists, such as SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt: names of the two levels,
    one of which is SPEAKER, and the list's name made of them. Recordings are matched by stem, in any format.
    """
    upper, lower, name = layout.split("/")
    depth = -3 if upper == "SPEAKER" else -2  # of the speaker in a recording's path
    texts: dict[str, str] = {}
    recordings: list[Path] = []
    silent: list[str] = []  # folders with recordings and no list
    for place in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        files = [path for path in place.iterdir() if path.suffix.lower() in SUFFIXES]
        listing = place / name.replace(upper, place.parent.name).replace(lower, place.name)
        if listing.is_file():
            texts |= read_transcripts(listing)
        elif files:
            silent.append(str(listing.relative_to(folder)))
        recordings += files
    if silent:
        raise UserError(f"{folder}: {len(silent)} no such transcripts: {some(silent)}; {NOT_WHOLE}")
    if not texts and not recordings:
        raise UserError(f"{folder}: no {layout} in it; {NOT_WHOLE}")
    listed = "." + name.split(".", 1)[1]  # .trans.txt
    return pair(folder, texts, by_stem(recordings), listed, lambda path: path.parts[depth])


def some(names: Iterable[str]) -> str:
    """The first few of them in order.

    >>> some(["c", "a", "d", "b"])
    'a, b, c, ...'
    """
    ordered = sorted(names)
    return ", ".join(ordered[:NAMED]) + (", ..." if len(ordered) > NAMED else "")
