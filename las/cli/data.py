"""Verbs for what models are made of: `las import`, `las doctor data`, `las tokenizer`, `las shard`."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from las.cli.options import named_sets, refuse_overwriting
from las.cli.progress import progress_bar
from las.files import write_text

LOST_MINUTES = 24 * 60.0  # a rank that has finished its part of a large corpus waits this long for one that has not


def tokenizer(
    texts: Annotated[
        list[Path], typer.Argument(help="Manifests (.jsonl) or text files (.txt, .gz, .xz), a sentence a line.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The tokenizer's file.")],
    size: Annotated[int, typer.Option(help="Tokens wanted; where the texts hold fewer, fewer come out.")] = 500,
    kind: Annotated[str, typer.Option(help="unigram, bpe or char.")] = "unigram",
) -> None:
    """Train a SentencePiece tokenizer on transcripts."""
    from las.data.sentences import read_sentences
    from las.text.tokenizer import train_tokenizer

    refuse_overwriting(output, texts)
    sentences = read_sentences(texts, "verbatim")
    trained = train_tokenizer(sentences, size, kind, output)  # type: ignore[arg-type]
    print(f"{output}: {trained.size} tokens ({kind}; {size} asked for)")


def shard(
    manifest: Annotated[Path, typer.Argument(help="A manifest: JSON lines with id, audio and text.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of shards; it must not exist yet.")],
    encode: Annotated[str, typer.Option(help="flac, or original to keep the recordings' bytes.")] = "flac",
    rate: Annotated[int | None, typer.Option(help="Hz to resample to with flac; default: as recorded.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Recordings decoded at once.")] = os.cpu_count() or 1,
    leave_out: Annotated[float, typer.Option(min=0, max=1, help="Share of utterances that may be unusable.")] = 0.01,
) -> None:
    """Pack recordings and transcripts into WebDataset tar shards with an index; torchrun makes many share the work."""
    from las.data.manifest import read_manifest
    from las.data.sharding import write_shards
    from las.ledger import Ledger
    from las.train.distributed import joined

    utterances = read_manifest(manifest)
    ledger = Ledger()
    with (
        joined("gloo", LOST_MINUTES) as world,
        progress_bar("sharding", None) if world.leads else nullcontext() as bar,
    ):
        index = write_shards(
            utterances, output, encode=encode, rate=rate, workers=workers, ledger=ledger, limit=leave_out,
            progress=bar, ranks=world,
        )  # fmt: skip
    if not world.leads:
        return
    if len(ledger):
        print(f"las: left out: {ledger}", file=sys.stderr)
    print(f"{output}: {len(index)} utterances, {index.seconds / 3600:.2f} h, {len(index.shards)} shards")


def import_(
    source: Annotated[Path, typer.Argument(help="A folder, a .csv or .tsv, or JSON lines.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The manifest to write, such as train.jsonl.")],
    leave_out: Annotated[float, typer.Option(min=0, max=1, help="Share of utterances that may be unusable.")] = 0.01,
) -> None:
    """A corpus as others lay it out -> manifest: audio with .txt beside it, csv/tsv, Kaldi, lhotse cuts, NeMo."""
    from las.data import foreign
    from las.data.manifest import write_manifest
    from las.ledger import Ledger

    refuse_overwriting(output, [source])
    stretches = foreign.read(source)
    ledger = Ledger()
    with progress_bar("importing", len(stretches)) as bar:
        utterances = list(foreign.adopt(stretches, output.with_suffix(".audio"), ledger, bar))
    ledger.check(len(stretches), leave_out, "mend them, or raise --leave-out")
    write_manifest(output, utterances)
    if len(ledger):
        print(f"las: left out: {ledger}", file=sys.stderr)
    print(f"{output}: {len(utterances)} utterances")


def doctor(
    sets: Annotated[
        list[str], typer.Argument(metavar="[NAME=]SET...", help="Shards or manifests, such as train and dev.")
    ],
    tokenizer: Annotated[Path | None, typer.Option(help="Tokens that must be able to write every text.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A JSON file for the report in full.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that decode. Default: one for each core.")] = None,
) -> None:
    """What is odd in recordings, texts and splits: durations, clipping, silence, rates, repeats, shared speakers."""
    from las.data.doctor import examine, render, to_json
    from las.text.tokenizer import Tokenizer

    named = named_sets(sets)
    if output is not None:
        refuse_overwriting(output, named.values())
    tokens = None if tokenizer is None else Tokenizer.load(tokenizer)
    with progress_bar("listening", None) as bar:
        report = examine(named, tokens, workers or os.cpu_count() or 1, bar)
    if output is not None:
        write_text(output, to_json(report))
    print(render(report))
