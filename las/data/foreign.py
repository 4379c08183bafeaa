"""Corpora as other programs lay them out -> `Utterance`s for a manifest.

folder    recordings with a .txt or .lab of the same name beside each
table     .csv or .tsv with a head; columns by their usual names, Common Voice's among them (path, sentence, client_id)
kaldi     a data folder: wav.scp, text, and segments and utt2spk where they are (https://kaldi-asr.org/doc/data_prep.html)
lhotse    cuts, JSONL or JSONL.gz (https://lhotse.readthedocs.io/en/latest/cuts.html)
nemo      lines of audio_filepath, text, duration (https://docs.nvidia.com/nemo-framework, speech recognition datasets)

Where several utterances are stretches of one recording, each becomes a FLAC file of its own. Nothing that a file
names is ever run: a wav.scp line that is a command is refused.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import os
import unicodedata
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from las import audio
from las.data.manifest import Utterance
from las.errors import UserError
from las.ledger import Ledger

TRANSCRIPTS = (".txt", ".lab")
COLUMNS = {
    "id": ("id", "utt_id", "utterance_id", "uid"),
    "audio": ("audio", "path", "audio_path", "file", "file_path", "filename", "file_name", "wav", "audio_filepath"),
    "text": ("text", "sentence", "transcript", "transcription", "normalized_text", "raw_text"),
    "speaker": ("speaker", "client_id", "speaker_id", "spk", "spk_id"),
}
LARGEST_RATIO = 200  # of a list's size to that of its .gz; real ones reach 30 or so, the greatest that can be is 1,032
BESIDE = ("", "clips", "wavs", "audio", "wav")  # folders beside a table in which its recordings are looked for


@dataclass(frozen=True)
class Stretch:
    """An utterance in a recording: from `start` s for `seconds`; the whole recording where `start` is None."""

    id: str
    audio: Path
    text: str | None  # None: there is none, so it will be left out
    speaker: str | None = None
    start: float | None = None
    seconds: float | None = None


def read(source: Path) -> list[Stretch]:
    """What a corpus holds, its format seen from its looks.

    Raises `UserError`, naming file and line, for a layout that is none of those above, a broken line, a repeated id.
    """
    if source.is_dir():
        stretches = list(_kaldi(source) if (source / "wav.scp").is_file() else _folder(source))
    elif not source.is_file():
        raise UserError(f"{source}: no such file or folder")
    elif source.suffix.lower() in (".csv", ".tsv"):
        stretches = list(_table(source))
    elif source.name.endswith((".jsonl", ".jsonl.gz", ".json", ".json.gz")):
        stretches = list(_json_lines(source))
    else:
        raise UserError(
            f"{source}: wanted a folder of recordings and texts, a Kaldi data folder, a .csv or .tsv, or JSON lines of "
            "lhotse or NeMo"
        )
    if not stretches:
        raise UserError(f"{source}: no utterance in it")
    seen: set[str] = set()
    for one in stretches:
        if one.id in seen:
            raise UserError(f"{source}: the id {one.id!r} is there twice; ids must differ")
        seen.add(one.id)
    return stretches


def adopt(
    stretches: Iterable[Stretch], folder: Path, ledger: Ledger, progress: Callable[[int], None] | None = None
) -> Iterator[Utterance]:
    """Utterances whose recordings exist, stretches cut to FLAC files below `folder`; what cannot be used goes into
    `ledger`. `progress(done)` is called after each."""
    whole: tuple[Path, int, torch.Tensor] | None = None  # the recording that was cut last
    for done, one in enumerate(stretches, start=1):
        try:
            if one.text is None:
                raise UserError(f"{one.audio}: no transcript of it")
            if one.start is None:
                if not one.audio.is_file():
                    raise UserError(f"{one.audio}: no such file")
                utterance = Utterance(one.id, os.path.abspath(one.audio), one.text, one.seconds, one.speaker)
            else:
                if whole is None or whole[0] != one.audio:
                    rate = audio.probe(one.audio).rate
                    whole = one.audio, rate, audio.load(one.audio, rate)
                place = f"{os.path.abspath(one.audio)}\0{one.start}\0{one.seconds}".encode("utf-8", "surrogateescape")
                name = hashlib.sha256(place).hexdigest()[:16]  # of this stretch only: earlier manifests stay true
                path = folder / f"{name}.flac"
                utterance = Utterance(one.id, str(path.resolve()), one.text, _cut(one, *whole[1:], path), one.speaker)
        except UserError as error:
            ledger.leave("cannot be used", one.id, str(error))
        else:
            yield utterance
        if progress is not None:
            progress(done)


def _cut(one: Stretch, rate: int, wave: torch.Tensor, path: Path) -> float:
    """Write the stretch of a recording (N,) to `path`; its seconds."""
    assert one.start is not None
    first = round(one.start * rate)
    last = len(wave) if one.seconds is None else round((one.start + one.seconds) * rate)
    if not 0 <= first < last or last > len(wave) + rate // 10:
        end = "its end" if one.seconds is None else f"{one.start + one.seconds:.2f} s"
        raise UserError(f"{one.audio}: has {len(wave) / rate:.2f} s, wanted {one.start:.2f} s to {end}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_bytes(audio.write_flac(wave[first:last], rate))
    os.replace(temporary, path)
    return len(wave[first:last]) / rate


# ----------------------------------------------------------------------------------------------------------- layouts


def _folder(root: Path) -> Iterator[Stretch]:
    """A recording is the audio file beside its transcript; the id is their path without suffix."""
    files = sorted(audio.files_below(root))
    texts, heard = _by_stem(root, files, TRANSCRIPTS), _by_stem(root, files, audio.SUFFIXES)
    for stem in sorted({*texts, *heard}):
        text = " ".join(_text(texts[stem]).split()) if stem in texts else None
        recording = heard.get(stem, stem.with_name(f"{stem.name}.*"))  # which is no file's name
        yield Stretch(stem.relative_to(root).as_posix(), recording, text)


def _by_stem(root: Path, files: Iterable[Path], suffixes: Collection[str]) -> dict[Path, Path]:
    found: dict[Path, Path] = {}
    for path in files:
        if path.suffix.lower() in suffixes:
            stem = _stem(root, path)
            if stem in found:
                raise UserError(f"{path}: {found[stem].name} has the same name; keep one of the two here")
            found[stem] = path
    return found


def _stem(root: Path, path: Path) -> Path:
    """The path without suffix, by which a text finds its recording; macOS decomposes Hangul in names (NFD)."""
    return root / unicodedata.normalize("NFC", str(path.with_suffix("").relative_to(root)))


def _table(path: Path) -> Iterator[Stretch]:
    lines = io.StringIO(_text(path), newline="")
    if path.suffix.lower() == ".tsv":  # Common Voice writes quotation marks in texts as they are
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        rows = csv.DictReader(lines, strict=True)
    try:
        head = {name.strip().lower(): name for name in rows.fieldnames or ()}
    except csv.Error as error:
        raise UserError(f"{path}, line 1: {error}") from None
    columns = {key: next((head[name] for name in names if name in head), None) for key, names in COLUMNS.items()}
    for key in ("audio", "text"):
        if columns[key] is None:
            raise UserError(
                f"{path}: no column for {key} among {', '.join(head) or 'nothing'}; call it {' or '.join(COLUMNS[key])}"
            )
    try:
        for row in rows:
            cells = {key: row.get(name) if name else None for key, name in columns.items()}
            if None in row:  # where DictReader puts what is left over
                quoted = ", or a text with a comma is not in quotation marks" * (path.suffix.lower() == ".csv")
                raise UserError(f"{path}, line {rows.line_num}: more cells than the head has{quoted}")
            if cells["audio"] is None or cells["text"] is None:
                raise UserError(f"{path}, line {rows.line_num}: fewer cells than the head has")
            if not Path(cells["audio"].strip()).name:
                raise UserError(f"{path}, line {rows.line_num}: names no recording")
            name = cells["id"] or _name(cells["audio"])
            yield Stretch(
                name, _beside(path.parent, cells["audio"]), " ".join(cells["text"].split()), cells["speaker"] or None
            )
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num + 1}: {error}") from None  # the line that was being read


def _name(place: str) -> str:
    """The id of a recording that has none: its path without the suffix of an audio file.

    >>> _name("clips/1.5.wav"), _name("clips/1.5")
    ('clips/1.5', 'clips/1.5')
    """
    path = Path(place)
    if not path.name:
        raise ValueError(f"{place!r} names no recording")
    return (path.with_suffix("") if path.suffix.lower() in audio.SUFFIXES else path).as_posix()


def _beside(folder: Path, name: str) -> Path:
    places = [_spelled(folder / place / name) for place in BESIDE]
    return next((place for place in places if place.is_file()), places[0])


def _spelled(path: Path) -> Path:
    return Path(audio.spelled(str(path)))


def _kaldi(folder: Path) -> Iterator[Stretch]:
    recordings = _pairs(folder / "wav.scp")
    speakers = _pairs(folder / "utt2spk") if (folder / "utt2spk").is_file() else {}
    segments = _segments(folder / "segments") if (folder / "segments").is_file() else {}
    texts = _pairs(folder / "text")
    for id in [*texts, *(id for id in segments or recordings if id not in texts)]:
        recording, start, seconds = segments.get(id, (id, None, None))
        place = recordings.get(recording)
        if place is None:
            where = folder / ("segments" if id in segments else "text")
            raise UserError(f"{where}: {id} has no recording {recording!r} in wav.scp")
        if place.endswith("|"):
            raise UserError(
                f"{folder / 'wav.scp'}: {recording} is a command ({place[:60]}), which is not run; write what it puts "
                "out to a file and name that"
            )
        yield Stretch(id, _spelled(Path(place)), texts.get(id), speakers.get(id), start, seconds)


def _segments(path: Path) -> dict[str, tuple[str, float | None, float | None]]:
    """Of each utterance its recording, start and seconds."""
    found: dict[str, tuple[str, float | None, float | None]] = {}
    for id, rest in _pairs(path).items():
        try:
            recording, start, end = rest.split()
            first, last = (_seconds(float(one)) for one in (start, end))
        except ValueError:
            raise UserError(f"{path}: {id} {rest[:60]}: wanted ID RECORDING START END") from None
        found[id] = recording, first, None if last == -1 else last - first  # -1: up to its end
    return found


def _pairs(path: Path) -> dict[str, str]:
    """A Kaldi table: the first word of each line and the rest."""
    found: dict[str, str] = {}
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            id, *rest = line.split(maxsplit=1)
            if id in found:
                raise UserError(f"{path}, line {number}: {id!r} is there twice; ids must differ")
            found[id] = rest[0].strip() if rest else ""
    return found


def _json_lines(path: Path) -> Iterator[Stretch]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error})") from None
        if not isinstance(record, dict):
            raise UserError(f"{where}: wanted one JSON object a line, found {line.strip()[:60]}")
        try:
            yield from _nemo(record, path.parent) if "audio_filepath" in record else _lhotse(record, path.parent)
        except KeyError as error:
            raise UserError(f"{where}: neither a cut of lhotse nor a line of NeMo (lacks {error})") from None
        except (TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{where}: neither a cut of lhotse nor a line of NeMo ({error})") from None


def _nemo(record: dict[str, Any], folder: Path) -> Iterator[Stretch]:
    place = _spelled(folder / record["audio_filepath"])
    start, seconds = (None if record.get(key) is None else _seconds(record[key]) for key in ("offset", "duration"))
    name = _name(record["audio_filepath"]) + ("" if start is None else f"@{start}")
    speaker = record.get("speaker")
    yield Stretch(name, place, record["text"], str(speaker) if isinstance(speaker, int) else speaker, start, seconds)


def _lhotse(record: dict[str, Any], folder: Path) -> Iterator[Stretch]:
    """The supervisions of a cut, at their places in its recording."""
    [source] = record["recording"]["sources"]
    if source["type"] != "file":
        raise UserError(f"{record['id']}: its recording is of type {source['type']!r}; wanted file, nothing is run")
    recording = record["recording"]
    if recording.get("transforms"):
        raise UserError(
            f"{record['id']}: its recording is changed as it is read (transforms); save the audio as it is then"
        )
    if isinstance(record.get("channel"), int) and len(source.get("channels", ())) > 1:
        raise UserError(f"{record['id']}: one of {len(source['channels'])} channels; save each to a file of its own")
    place = _spelled(folder / source["source"])
    if not record["supervisions"]:
        yield Stretch(record["id"], place, None)
    whole = _seconds(recording["duration"])
    for one in record["supervisions"]:
        start, seconds = _seconds(record["start"]) + _seconds(one["start"]), _seconds(one["duration"])
        everything = start < 0.01 and abs(seconds - whole) < 0.01
        stretch = Stretch(one["id"], place, one["text"], one.get("speaker"), start, seconds)
        yield replace(stretch, start=None) if everything else stretch


def _seconds(value: float) -> float:
    """A time as it stands in a file. Raises ValueError for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no time in seconds")
    return value


def _text(path: Path) -> str:
    try:
        if path.suffix != ".gz":
            return path.read_text(encoding="utf-8-sig")
        most = path.stat().st_size * LARGEST_RATIO
        with gzip.open(path, "rt", encoding="utf-8-sig") as file:
            text = file.read(most)
            if file.read(1):
                raise UserError(
                    f"{path}: unpacks to over {LARGEST_RATIO} times its size, which no list of recordings does"
                )
        return text
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path}: the compressed data is cut short or damaged ({error}); fetch it again") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None
