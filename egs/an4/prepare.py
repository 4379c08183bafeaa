"""CMU's an4 -> manifests of training, development and test; SPHERE files stay where they are, raw ones become FLAC.

    python egs/an4/prepare.py [--corpus DIR] [--output DIR]

Source: http://www.speech.cs.cmu.edu/databases/an4/. an4/etc/ holds an4_train.fileids and an4_test.fileids, lines
`an4_clstk/SPEAKER/ID`, and .transcription beside each, lines `<s> WORDS </s> (ID)`; an4/wav/ holds the recordings,
ID.sph (NIST SPHERE) or ID.raw (16 bits big-endian, no header), 16 kHz either way.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import numpy as np
import torch

from las.audio import write_flac
from las.data.corpus import parser, run, write_sets
from las.data.download import corpus_folder
from las.data.manifest import Utterance
from las.data.transcripts import NOT_WHOLE, pair, read_lines
from las.errors import UserError

MIRROR = "http://www.speech.cs.cmu.edu/databases/an4"
RATE = 16_000  # Hz, of raw files
LINE = re.compile(r"(?:<s>)?(?P<words>.*?)(?:</s>)?\s*\((?P<id>\S+)\)")
SUFFIXES = (".sph", ".wav", ".flac", ".raw")
DEV_EVERY = 10  # of the training speakers every tenth is dev: the publisher gives no such set


def prepare(options: argparse.Namespace) -> None:
    found = corpus_folder(options.corpus, "an4", f"{options.mirror}/an4_sphere.tar.gz", options.output)
    folder = found / "an4" if (found / "an4").is_dir() else found
    spoken = read_set(folder, "train", options.output / "audio")
    held_out = sorted({one.speaker or "" for one in spoken})[::DEV_EVERY]
    sets = {
        "train": [one for one in spoken if one.speaker not in held_out],
        "dev": [one for one in spoken if one.speaker in held_out],
        "test": read_set(folder, "test", options.output / "audio"),
    }
    write_sets(options.output, sets, {"dev_speakers": held_out})


def read_set(folder: Path, name: str, audio: Path) -> list[Utterance]:
    """The utterances of a set; raw recordings are written to `audio` first."""
    texts: dict[str, str] = {}
    for where, line in read_lines(folder / "etc" / f"an4_{name}.transcription"):
        match = LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{where}: wanted <s> WORDS </s> (ID), found {line[:60]!r}")
        texts[match["id"]] = match["words"].strip().lower()
    speakers: dict[str, str] = {}
    recordings: dict[str, Path] = {}
    for _, line in read_lines(folder / "etc" / f"an4_{name}.fileids"):
        place = folder / "wav" / line
        there = [path for path in (place.with_name(place.name + suffix) for suffix in SUFFIXES) if path.is_file()]
        if not there:
            raise UserError(f"{place}: no recording of that name ({', '.join(SUFFIXES)}); {NOT_WHOLE}")
        speakers[place.name] = place.parent.name
        recordings[place.name] = there[0] if there[0].suffix != ".raw" else as_flac(there[0], audio)
    return pair(folder, texts, recordings, f"an4_{name}.transcription", lambda path: speakers[path.stem])


def as_flac(raw: Path, folder: Path) -> Path:
    """A headerless recording as FLAC in `folder`. Read in the wrong byte order speech is loud noise, and refused."""
    data = raw.read_bytes()
    samples = np.frombuffer(data[: len(data) // 2 * 2], dtype=">i2")
    if len(samples) == 0 or len(data) % 2:
        raise UserError(f"{raw}: {len(data)} bytes, not whole samples of 16 bits; {NOT_WHOLE}")
    if np.abs(samples.astype(float)).mean() > 2 * np.abs(samples.byteswap().astype(float)).mean():
        raise UserError(f"{raw}: seems little-endian; wanted an4_sphere or an4_raw.bigendian")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{raw.stem}.flac"
    partial = path.with_suffix(".part")
    partial.write_bytes(write_flac(torch.from_numpy(samples.astype(np.float32)) / 32768, RATE))
    os.replace(partial, path)
    return path


def main(arguments: list[str] | None = None) -> int:
    return run(parser("Manifests of CMU's an4", __file__, "an4", MIRROR), arguments, prepare)


if __name__ == "__main__":
    sys.exit(main())
