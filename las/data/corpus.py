"""What the prepare.py of every recipe does beside knowing its corpus: options, one writer a folder, manifests out.

    command line --run--> the recipe's own reading --write_sets--> OUTPUT/NAME.jsonl for each set, OUTPUT/corpus.json

A set that is there is whole; where preparing fails, the sets of an earlier run stay as they were.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from las.data.manifest import Utterance, write_manifest
from las.errors import DISK_FULL, UserError
from las.files import hold, write_json

FACTS = "corpus.json"  # what was taken, and how


def parser(description: str, script: str, place: str, mirror: str = "") -> argparse.ArgumentParser:
    """--corpus and --output, and --mirror where `mirror` says what lies below the publisher's address.

    `script` is the recipe's prepare.py: data/ beside it is the default output. `place` is what the corpus's folder is
    called in $LAS_CORPORA.
    """
    options = argparse.ArgumentParser(description=description)
    last = ", else it is downloaded" if mirror else ""
    options.add_argument("--corpus", type=Path, help=f"its folder; else $LAS_CORPORA/{place}{last}")
    options.add_argument("--output", type=Path, default=Path(script).parent / "data", help="default: data/ here")
    if mirror:
        options.add_argument("--mirror", metavar="URL", default=mirror, help=f"another copy of {mirror}")
    return options


def run(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, prepare: Callable[[argparse.Namespace], None]
) -> int:
    """Prepare with the command line's options as the only writer of --output; the exit status, 1 after a complaint."""
    options = parser.parse_args(arguments)
    try:
        with sole_writer(options.output):
            prepare(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FULL:
            raise
        print(f"{error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def sole_writer(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder of --output for this process. Raises `UserError` where another one does."""
    return hold(folder, "another prepare.py is writing there; wait until it is done, or give another --output")


def write_sets(output: Path, sets: Mapping[str, list[Utterance]], facts: Mapping[str, Any] | None = None) -> None:
    """Write OUTPUT/NAME.jsonl for each set, a line about each on stdout, and `facts` to OUTPUT/corpus.json last.

    Raises `UserError` for a set that holds nothing, before any is written.
    """
    for name, utterances in sets.items():
        if not utterances:
            raise UserError(f"{output / name}.jsonl: no utterance for it in the corpus; nothing was written")
    for name in (FACTS, *(f"{name}.jsonl" for name in sets)):
        (output / name).unlink(missing_ok=True)  # a mixture of two runs would look like one
    for name, utterances in sets.items():
        path = output / f"{name}.jsonl"
        write_manifest(path, utterances)
        speakers = len({one.speaker for one in utterances if one.speaker is not None})
        told = f", {speakers} speakers" if speakers else ""
        if all(one.seconds is not None for one in utterances):
            told += f", {sum(one.seconds or 0 for one in utterances) / 3600:.2f} h"
        print(f"{path}: {len(utterances)} utterances{told}")
    write_json(output / FACTS, facts or {})
