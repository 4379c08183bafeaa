"""LibriSpeech folders -> manifests of training and validation; the recordings stay where they are.

    python egs/mini_librispeech/prepare.py [--corpus DIR] [--output DIR] [--train SUBSET ...] [--valid SUBSET]

Source: OpenSLR 31 (https://www.openslr.org/31/), laid out as LibriSpeech is (OpenSLR 12; Panayotov et al. 2015):
LibriSpeech/SUBSET/SPEAKER/CHAPTER/ holds SPEAKER-CHAPTER.trans.txt, a line `ID TEXT` for each recording, and the
recordings ID.flac. Audio is matched by stem, so a copy in another format (Opus, say) is read as well.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from las.audio import probe
from las.data.download import fetch, local_corpus, unpack
from las.data.manifest import Utterance, write_manifest
from las.errors import UserError

URL = "https://www.openslr.org/resources/31/{}.tar.gz"
ARCHIVES = ("train-clean-5", "dev-clean-2")  # subsets that OpenSLR 31 publishes
TRAIN = ("train-clean-5", "train-clean-100")  # those of them that are there
VALID = ("dev-clean", "dev-clean-2")  # the first that is there
SUFFIXES = (".flac", ".opus", ".wav")
GLANCE_EVERY = 8  # of the validation utterances every eighth is enough to watch a short training run
NAMED = 3  # ids that a message names


def subsets(corpus: Path | None, output: Path) -> dict[str, Path]:
    """Subset -> its folder, in `corpus` or in its LibriSpeech/; without a corpus, where the archives are unpacked."""
    if corpus is None:
        return {name: output / "corpus" / name / "LibriSpeech" / name for name in ARCHIVES}
    place = corpus / "LibriSpeech" if (corpus / "LibriSpeech").is_dir() else corpus
    found = {path.name: path for path in sorted(place.iterdir()) if path.is_dir()} if place.is_dir() else {}
    if not found:
        raise UserError(f"{place}: no subsets of LibriSpeech there; wanted {TRAIN[0]}/, {VALID[0]}/; see --corpus")
    return found


def choose(found: dict[str, Path], train: list[str] | None, valid: str | None) -> tuple[list[str], str]:
    """The subsets to train and to validate on: those asked for, else those of TRAIN and the first of VALID."""
    chosen = train or [name for name in TRAIN if name in found] or [TRAIN[0]]
    judge = valid or next((name for name in VALID if name in found), VALID[0])
    for name in (*chosen, judge):
        if name not in found:
            raise UserError(
                f"no subset {name}; there are {', '.join(found)}: name some of them with --train and --valid, or "
                "give --corpus the folder that holds it"
            )
    return chosen, judge


def download(name: str, output: Path) -> None:
    """The published archive of a subset, unpacked once into OUTPUT/corpus/SUBSET."""
    folder = output / "corpus" / name
    if folder.is_dir():
        return
    print(f"LibriSpeech is not here: downloading {URL.format(name)}", file=sys.stderr)
    unpack(fetch(URL.format(name), output / "download"), folder)


def read_subset(folder: Path) -> list[Utterance]:
    """All utterances of a subset, sorted by id; every recording must have its line and every line its recording."""
    texts: dict[str, str] = {}
    audio: dict[str, Path] = {}
    silent: list[str] = []  # chapters with recordings and no transcripts
    for chapter in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        files = sorted(path for path in chapter.iterdir() if path.suffix in SUFFIXES)
        for path in files:
            if path.stem in audio:
                raise UserError(f"{path}: the id is also that of {audio[path.stem]}; remove one of the two")
            audio[path.stem] = path
        listing = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
        if listing.is_file():
            texts |= read_transcripts(listing)
        elif files:
            silent.append(str(listing.relative_to(folder)))
    way_out = "the copy is not whole: fetch or unpack it again"
    for what, names in (
        ("no such transcripts", silent),
        ("recordings without a line in their .trans.txt", audio.keys() - texts.keys()),
        ("lines of .trans.txt without a recording", texts.keys() - audio.keys()),
    ):
        if names:
            raise UserError(f"{folder}: {len(names)} {what}: {_some(names)}; {way_out}")
    if not texts:
        raise UserError(f"{folder}: no SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt in it; {way_out}")
    ids = sorted(texts)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seconds = [info.seconds for info in pool.map(probe, (audio[id] for id in ids))]
    return [
        Utterance(id, str(audio[id].absolute()), texts[id], length, audio[id].parts[-3])
        for id, length in zip(ids, seconds, strict=True)
    ]


def read_transcripts(path: Path) -> dict[str, str]:
    """Id -> text in lower case. Published texts are upper case throughout, so no letter's case is lost with it."""
    texts: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; the published transcripts are plain ASCII: fetch them again") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        id, _, text = line.strip().partition(" ")
        if not text.strip():
            raise UserError(f"{path}, line {number}: {line.strip()!r} has no text; wanted `ID TEXT`")
        if id in texts:
            raise UserError(f"{path}, line {number}: the id {id} was there already; remove one of its lines")
        texts[id] = text.strip().lower()
    return texts


def join(parts: Iterable[list[Utterance]]) -> list[Utterance]:
    """Subsets one after another; what several hold (train-clean-5 comes out of train-clean-100) is taken once."""
    together: dict[str, Utterance] = {}
    for part in parts:
        together = {utterance.id: utterance for utterance in part} | together
    return [together[id] for id in sorted(together)]


def check_speakers(train: list[Utterance], dev: list[Utterance]) -> None:
    """The validation set tells of new speakers only if nobody in it was trained on."""
    both = {utterance.speaker or "" for utterance in train} & {utterance.speaker or "" for utterance in dev}
    if both:
        raise UserError(f"--train and --valid share {len(both)} speakers ({_some(both)}); choose other subsets")


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:NAMED]) + (", ..." if len(ordered) > NAMED else "")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Manifests of Mini LibriSpeech (OpenSLR 31) or of LibriSpeech")
    parser.add_argument("--corpus", type=Path, help="its folder; else $LAS_CORPORA/LibriSpeech, else it is downloaded")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data", help="default: data/ here")
    parser.add_argument("--train", nargs="+", metavar="SUBSET", help=f"default: those there of {' '.join(TRAIN)}")
    parser.add_argument("--valid", metavar="SUBSET", help=f"default: the first there of {' '.join(VALID)}")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        corpus = local_corpus(options.corpus, "LibriSpeech")
        found = subsets(corpus, options.output)
        train, valid = choose(found, options.train, options.valid)
        if corpus is None:
            for name in dict.fromkeys([*train, valid]):
                download(name, options.output)
        parts = {"train": join(read_subset(found[name]) for name in train), "dev": read_subset(found[valid])}
        check_speakers(parts["train"], parts["dev"])
        parts["glance"] = parts["dev"][::GLANCE_EVERY]
        facts: dict[str, object] = {"train": train, "valid": valid}
        for part, listed in parts.items():
            path = options.output / f"{part}.jsonl"
            write_manifest(path, listed)
            hours = sum(one.seconds or 0 for one in listed) / 3600
            speakers = len({one.speaker for one in listed})
            print(f"{path}: {len(listed)} utterances, {speakers} speakers, {hours:.2f} h")
        partial = options.output / "corpus.json.part"
        partial.write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, options.output / "corpus.json")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
