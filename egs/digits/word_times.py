"""A prepared test list and a model -> how far its word times lie from the true ones, which joined strings have exactly.

    python egs/digits/word_times.py MODEL [--data DIR] [--noise DB]

Words that were left out or put in have no times to compare; one that is misread has. Of the true times see README.md.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

import las
from las.audio import load
from las.data.augment import add_noise
from las.data.manifest import read_manifest
from las.text.alignment import align

NEAR = (0.05, 0.1)  # s


def edge_errors(said: Sequence[dict], written: Sequence[tuple[str, float, float]]) -> list[tuple[float, float]]:
    """How late each start and each end is, in s, of words that were written for words that were said.

    >>> edge_errors([{"word": "one", "start": 0.5, "end": 1.0}], [("two", 0.1, 0.2), ("one", 0.25, 1.5)])
    [(-0.25, 0.5)]
    """
    pairs = align(" ".join(word["word"] for word in said), " ".join(word for word, *_ in written)).pairs
    found, here, there = [], iter(said), iter(written)
    for pair in pairs:
        truth = next(here) if pair.operation != "insertion" else None
        own = next(there) if pair.operation != "deletion" else None
        if truth is not None and own is not None:
            found.append((own[1] - truth["start"], own[2] - truth["end"]))
    return found


def report(errors: np.ndarray, said: int) -> Iterable[str]:
    """Lines for people from how late starts and ends are (words, 2)."""
    far = np.abs(errors)
    yield f"{said} words said, {len(far)} timed"
    if len(far) == 0:
        return
    for name, edge in zip(("start", "end"), far.T, strict=True):
        shares = ", ".join(f"{(edge <= near).mean():.1%} within {1000 * near:.0f} ms" for near in NEAR)
        yield f"{name}: {1000 * edge.mean():.0f} ms off in the mean, {shares}"
    yield f"both: {(far.max(1) <= NEAR[0]).mean():.1%} within {1000 * NEAR[0]:.0f} ms"


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="How far word times lie from the truth.")
    options.add_argument("model", help="a model that ships or a model folder")
    options.add_argument("--data", type=Path, default=Path("data"), help="what prepare.py has written; default: data")
    options.add_argument("--noise", type=float, metavar="DB", help="white noise, so much softer than each string")
    chosen = options.parse_args(arguments)
    records = map(json.loads, (chosen.data / "boundaries.jsonl").read_text(encoding="utf-8").splitlines())
    truth = {record["id"]: record["words"] for record in records}
    recognizer = las.load(chosen.model)
    strings = read_manifest(chosen.data / "test.jsonl")
    waves = [load(string.audio, recognizer.rate) for string in strings]
    if chosen.noise is not None:
        whites = [torch.randn(len(wave), generator=torch.manual_seed(seed)) for seed, wave in enumerate(waves)]
        waves = [add_noise(wave, white, chosen.noise) for wave, white in zip(waves, whites, strict=True)]
    found = recognizer.transcribe([(wave.numpy(), recognizer.rate) for wave in waves], words=True)
    errors = [
        pair
        for string, one in zip(strings, found, strict=True)
        for pair in edge_errors(truth[string.id], [(word.text, word.start, word.end) for word in one.words])
    ]
    print("\n".join(report(np.array(errors).reshape(-1, 2), sum(len(truth[string.id]) for string in strings))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
