"""A manifest, one JSON object a line, <-> a list of `Utterance`, checked on reading.

    {"id": "19-198-0000", "audio": "audio/0000.flac", "text": "northanger abbey", "seconds": 1.97, "speaker": "19"}

`id`, `audio` and `text` are required, `seconds` and `speaker` may be missing or null; nothing else is known, and an
unknown field is refused, so that a misspelt one is not lost. An audio path is relative to the manifest's folder or
absolute, in whichever form of Unicode (macOS decomposes Hangul in file names). Blank lines and a byte order mark are
passed over. Format: JSON Lines (https://jsonlines.org), UTF-8.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from las.audio import spelled
from las.errors import UserError
from las.text.normalize import nfc

REQUIRED = ("id", "audio", "text")
KNOWN = (*REQUIRED, "seconds", "speaker")
SHOWN = 60  # characters of an offending value in a message
NAMED = 3  # missing audio files named in a message


@dataclass(frozen=True)
class Utterance:
    """One recording and what is said in it.

    Raises `UserError` for values that cannot be meant: a wrong type, an empty id, seconds that are not positive.
    An empty text is allowed (a recording of silence can be scored); sharding for training leaves it out, counted.
    """

    id: str  # any characters but none of the lone surrogates
    audio: str  # path; relative means relative to the manifest's folder
    text: str  # NFC when read from a manifest
    seconds: float | None = None  # s
    speaker: str | None = None

    def __post_init__(self) -> None:
        for name in KNOWN:
            _check(name, getattr(self, name))


def read_manifest(path: str | Path, *, check_audio: bool = True) -> list[Utterance]:
    """The utterances of a manifest in its order, with absolute audio paths and NFC texts.

    Raises `UserError` with file and line number for anything that is not as described above, for a repeated id (both
    lines are named), for a manifest with no utterance and, with `check_audio`, for audio paths that are not files.
    """
    path = Path(path)
    folder = os.path.abspath(path.parent)
    utterances: list[Utterance] = []
    lines: dict[str, int] = {}  # id -> line number
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        utterance = _parse(line, where, folder)
        if utterance.id in lines:
            raise UserError(
                f"{where}: the id {_show(utterance.id)} was already used in line {lines[utterance.id]}; "
                "ids must differ: rename one, or remove it if the line is there twice"
            )
        lines[utterance.id] = number
        utterances.append(utterance)
    if not utterances:
        raise UserError(f"{path}: no utterance in it; wanted one JSON object a line with {_names(REQUIRED)}")
    if check_audio:
        _check_files(path, utterances, lines)
    return utterances


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest, whole or not at all; absolute audio paths under its folder are stored relative to it.

    Fields that are None are left out. Raises `UserError` for a repeated id and where nothing can be written.
    """
    path = Path(path)
    folder = Path(os.path.abspath(path.parent))
    temporary = path.with_name(path.name + ".part")
    ids: set[str] = set()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for utterance in utterances:
                if utterance.id in ids:
                    raise UserError(f"{path}: the id {_show(utterance.id)} is there twice; ids must differ")
                ids.add(utterance.id)
                file.write(_format(utterance, folder) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot write the manifest: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _read_lines(path: Path) -> list[str]:
    """Lines as the line feed ends them: `str.splitlines` would also cut at U+2028, which a JSON string may hold."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the manifest: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        found = data[error.start : error.end].hex(" ")
        raise UserError(
            f"{path}, line {number}: not UTF-8 (byte {found}); save the manifest as UTF-8, "
            "for example with `iconv -f CP949 -t UTF-8` where it was written in CP949"
        ) from error


def _parse(line: str, where: str, folder: str) -> Utterance:
    """One line -> Utterance with an absolute audio path; every `UserError` begins with `where`."""
    try:
        record = json.loads(line, object_pairs_hook=_once)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}): {_cut(line.strip())} ; wanted one JSON object a line") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: wanted a JSON object with {_names(REQUIRED)}, found {_show(record)}")
    for name in record:
        if name not in KNOWN:
            raise UserError(f"{where}: unknown field {_show(name)}{_nearest(name)}; known are {_names(KNOWN)}")
    for name in REQUIRED:
        if name not in record:
            raise UserError(f"{where}: lacks the field '{name}'; wanted {_names(REQUIRED)}, found {_names(record)}")
    try:
        _check("audio", record["audio"])
        _check("text", record["text"])
        audio = spelled(os.path.join(folder, record["audio"]))
        return Utterance(record["id"], audio, nfc(record["text"]), record.get("seconds"), record.get("speaker"))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The dict of an object's fields; JSON itself would quietly keep the last of two equal names."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"the field {_show(twice)} is there twice; keep one")
    return record


def _check(name: str, value: object) -> None:
    """Raise `UserError` unless `value` can stand in the field `name`."""
    if name == "seconds":
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
            raise UserError(f"'seconds' is {_show(value)}; wanted a number above 0, or leave the field out")
        return
    if name == "speaker" and value is None:
        return
    if not isinstance(value, str):
        quoted = f': write "{name}": "{value}"' if isinstance(value, (int, float)) else ""
        raise UserError(f"'{name}' is {_show(value)}; wanted a string{quoted}")
    if name in ("id", "audio") and not value.strip():
        raise UserError(
            f"'{name}' is empty; wanted {'a name of its own' if name == 'id' else 'the path of a recording'}"
        )
    if "\0" in value and name == "audio":
        raise UserError(f"'audio' {_show(value)} holds a NUL character, which no path can")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"'{name}' {_show(value)} holds half a character (a lone surrogate), which UTF-8 cannot write; "
            f"correct or rename it"
        ) from error


def _check_files(path: Path, utterances: Sequence[Utterance], lines: dict[str, int]) -> None:
    missing = [utterance for utterance in utterances if not os.path.isfile(utterance.audio)]
    if not missing:
        return
    named = ", ".join(f"{utterance.audio} (line {lines[utterance.id]})" for utterance in missing[:NAMED])
    raise UserError(
        f"{path}: {len(missing)} of {len(utterances)} audio paths are not files: {named}"
        f"{', ...' if len(missing) > NAMED else ''}; paths are taken from the manifest's folder: correct them, "
        "or remove these lines"
    )


def _format(utterance: Utterance, folder: Path) -> str:
    audio = Path(utterance.audio)
    if audio.is_absolute() and audio.is_relative_to(folder):
        audio = audio.relative_to(folder)
    record: dict[str, Any] = {"id": utterance.id, "audio": audio.as_posix(), "text": utterance.text}
    optional = {"seconds": utterance.seconds, "speaker": utterance.speaker}
    record |= {name: value for name, value in optional.items() if value is not None}
    return json.dumps(record, ensure_ascii=False)


def _show(value: object) -> str:
    """JSON of a value, cut to `SHOWN` characters.

    >>> _show("어" * 100)[:8]
    '"어어어어어어어'
    """
    return _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    text = text if len(text) <= SHOWN else text[:SHOWN] + "..."
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _nearest(name: str) -> str:
    nearest = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.4)
    return f" (did you mean '{nearest[0]}'?)" if nearest else ""


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
