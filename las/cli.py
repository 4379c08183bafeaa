"""The command line: `las VERB ...`. Results go to stdout, progress and complaints to stderr.

Exit status: 0 done, 1 something the user can mend, 2 the command line itself. What a verb needs is imported when it
is called, so that `las --help` is quick.
"""

from __future__ import annotations

import errno
import glob
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from las.errors import UserError

if TYPE_CHECKING:
    from las.train.loop import Validation
    from las.transcribe.recognizer import Transcript

app = typer.Typer(
    help="Attention-based speech recognition: Listen, Attend and Spell.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
AUDIO_SUFFIXES = {
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".webm", ".mkv", ".mov", ".aif", ".aiff",
}  # fmt: skip


class Format(StrEnum):
    """How transcripts are written."""

    txt = "txt"
    json = "json"
    tsv = "tsv"


def main() -> None:
    """Run the command line; a `UserError` or a file that cannot be written is one line on stderr and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # file names that are not UTF-8 come out as they are
    try:
        app()
    except UserError as error:
        print(f"las: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("las: interrupted", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"las: {error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
        sys.exit(1)


# ------------------------------------------------------------------------------------------------------ using a model

Model = Annotated[str, typer.Option(help="A model that ships (`las models`) or a model folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


@app.command()
def transcribe(
    files: Annotated[list[str], typer.Argument(help="Audio files, folders of them, or globs.")],
    model: Model = "digits",
    output_format: Annotated[Format, typer.Option("--output-format", "-f", help="txt, json or tsv.")] = Format.txt,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="One file for each recording goes here.")
    ] = None,
    beam_size: Annotated[int | None, typer.Option(min=1, help="Beams; 1 is greedy. Default: the model's own.")] = None,
    hot_words: Annotated[
        str, typer.Option(help="Words and phrases to listen for, with commas between; or a file, one on a line.")
    ] = "",
    hot_word_bonus: Annotated[
        float | None, typer.Option(min=0, help="Added to a transcript's score for each of their tokens.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Transcribe audio files: text on stdout, or a file each in --output-dir."""
    from las.recipe import open_model

    paths = list(_audio_files(files))
    bonus = [] if hot_word_bonus is None else [f"search.hot_word_bonus={hot_word_bonus}"]
    recognizer, _ = open_model(model, device, bonus)
    phrases = _phrases(hot_words)
    recognizer.phrases(phrases)  # what it cannot write should fail now
    if output_dir is not None:
        _check_outputs(paths, output_format)
        output_dir.mkdir(parents=True, exist_ok=True)
    complaints: list[str] = []
    with _bar("transcribing", len(paths)) as bar:
        stream = recognizer.stream(
            paths,
            beam=beam_size,
            on_error=lambda source, error: complaints.append(str(error)),
            hot_words=phrases,
        )
        for done, transcript in enumerate(stream, start=1):
            bar(done + len(complaints))
            first = done == 1 or output_dir is not None
            text = _rendered(transcript, output_format, first, named=output_dir is None and len(paths) > 1)
            if output_dir is None:
                print(text)
            else:
                _write(output_dir / f"{Path(transcript.source).stem}.{output_format.value}", text + "\n")
    for complaint in complaints:
        print(f"las: {complaint}", file=sys.stderr)
    if complaints:
        raise UserError(f"{len(complaints)} of {len(paths)} files were not transcribed")


def _phrases(hot_words: str) -> list[str]:
    """The phrases that a word of the command line names, or the file that it names."""
    path = Path(hot_words)
    lines = list(_text_lines(path)) if hot_words and path.is_file() else hot_words.split(",")
    return [line.strip() for line in lines if line.strip()]


def _audio_files(names: Iterable[str]) -> Iterator[str]:
    """Files as given, the audio files of folders and the matches of globs, in order."""
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = sorted(
                str(one) for one in path.rglob("*") if one.suffix.lower() in AUDIO_SUFFIXES and one.is_file()
            )
            if not found:
                raise UserError(f"{name}: no audio files in this folder")
            yield from found
        elif not path.exists() and glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                raise UserError(f"{name}: matches no file")
            yield from matches
        else:
            yield name


def _check_outputs(paths: list[str], output_format: Format) -> None:
    stems: dict[str, str] = {}
    for path in paths:
        other = stems.setdefault(Path(path).stem, path)
        if other != path:
            raise UserError(
                f"{other} and {path} would both be written to {Path(path).stem}.{output_format.value}; "
                "transcribe them into different folders"
            )


def _rendered(transcript: Transcript, output_format: Format, first: bool, named: bool) -> str:
    """A transcript as it is printed; `first` gets a table's head, `named` the name of its file."""
    if output_format is Format.json:
        record = {"file": transcript.source, "text": transcript.text, "seconds": round(transcript.seconds, 3)}
        record |= {"score": round(transcript.score, 4), "complete": transcript.complete}
        return json.dumps(record, ensure_ascii=False)
    if output_format is Format.tsv:
        return "file\tseconds\ttext\n" * first + f"{transcript.source}\t{transcript.seconds:.3f}\t{transcript.text}"
    return f"{transcript.source}: {transcript.text}" if named else transcript.text


@app.command()
def models() -> None:
    """List the models that ship with las."""
    from las import recipe

    for folder in recipe.pretrained():
        card = (folder / "README.md").read_text(encoding="utf-8")
        about = next((line for line in card.splitlines()[1:] if line.strip()), "")
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        print(f"{folder.name}{' (default)' if folder.name == recipe.DEFAULT_MODEL else ''}\t{size:.1f} MB\t{about}")


# --------------------------------------------------------------------------------------------------- making a model


@app.command()
def tokenizer(
    texts: Annotated[list[Path], typer.Argument(help="Manifests (.jsonl) or text files, a sentence a line.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The tokenizer's file.")],
    size: Annotated[int, typer.Option(help="Tokens wanted; where the texts hold fewer, fewer come out.")] = 500,
    kind: Annotated[str, typer.Option(help="unigram, bpe or char.")] = "unigram",
) -> None:
    """Train a SentencePiece tokenizer on transcripts."""
    from las.data.manifest import read_manifest
    from las.text.tokenizer import train_tokenizer

    def lines() -> Iterator[str]:
        for path in texts:
            if path.suffix == ".jsonl":
                yield from (utterance.text for utterance in read_manifest(path, check_audio=False))
            else:
                yield from _text_lines(path)

    trained = train_tokenizer((line for line in lines() if line), size, kind, output)  # type: ignore[arg-type]
    print(f"{output}: {trained.size} tokens ({kind}; {size} asked for)")


def _text_lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from (line.strip() for line in file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from None


@app.command()
def shard(
    manifest: Annotated[Path, typer.Argument(help="A manifest: JSON lines with id, audio and text.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of shards; it must not exist yet.")],
    encode: Annotated[str, typer.Option(help="flac, or original to keep the recordings' bytes.")] = "flac",
    rate: Annotated[int | None, typer.Option(help="Hz to resample to with flac; default: as recorded.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Recordings decoded at once.")] = os.cpu_count() or 1,
    leave_out: Annotated[float, typer.Option(help="Share of utterances that may be unusable.")] = 0.01,
) -> None:
    """Pack recordings and transcripts into WebDataset tar shards with an index."""
    from las.data.manifest import read_manifest
    from las.data.shards import write_shards
    from las.ledger import Ledger

    utterances = read_manifest(manifest)
    ledger = Ledger()
    with _bar("sharding", len(utterances)) as bar:
        index = write_shards(
            utterances, output, encode=encode, rate=rate, workers=workers, ledger=ledger, limit=leave_out,
            progress=lambda done, total: bar(done),
        )  # fmt: skip
    if len(ledger):
        print(f"las: left out: {ledger}", file=sys.stderr)
    print(f"{output}: {len(index)} utterances, {index.seconds / 3600:.2f} h, {len(index.shards)} shards")


@app.command()
def train(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[CONF.yaml] [KEY=VALUE]...", help="Config and settings.")
    ] = None,
    output_dir: Annotated[Path | None, typer.Option("--output-dir", "-o", help="The run's folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output-dir.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="Print every setting with default and meaning.")] = False,
) -> None:
    """Train a model: las train conf.yaml train.epochs=20 --output-dir exp/first."""
    from las import config as settings
    from las import recipe

    if keys:
        for key in settings.keys(recipe.RunConfig):
            print(f"{key.name}={_plain(key.default)}\t{key.kind}\t{key.meaning}")
        return
    if output_dir is None:
        raise typer.BadParameter("name the run's folder", param_hint="--output-dir")
    files = [word for word in words or [] if "=" not in word]
    if len(files) > 1:
        raise typer.BadParameter(f"one config at most, not {' and '.join(files)}", param_hint="CONF.yaml")
    path = Path(files[0]) if files else None
    if resume and path is None:
        path = output_dir / "config.yaml"
    config = settings.load(recipe.RunConfig, path, [word for word in words or [] if "=" in word])
    missing = [name for name in ("av", "tensorboard", "matplotlib") if not _installed(name)]
    if missing:
        print(f"las: not installed, so left out: {', '.join(missing)}", file=sys.stderr)
    with _TrainingBar(config.train.epochs) as bar:
        folder = recipe.train(config, output_dir, resume, bar)
    print(folder)


def _plain(value: Any) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, (tuple, list)) else str(value)


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


# ------------------------------------------------------------------------------------------------------------ scoring


@app.command()
def evaluate(
    words: Annotated[list[str], typer.Argument(metavar="[NAME=]SET... [KEY=VALUE]...", help="Shards or manifests.")],
    model: Model = "digits",
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="NAME.jsonl goes here: id, text as recognised, reference.")
    ] = None,
    append: Annotated[Path | None, typer.Option(help="A file of results, such as RESULTS.md, to add rows to.")] = None,
    device: Device = "auto",
) -> None:
    """Transcribe sets and report WER: las evaluate test=data/test --model exp/first/model search.beam=8."""
    from las import recipe
    from las.evaluate.report import append_rows

    changes = [word for word in words if re.match(r"(search\.\w+|style)=", word)]
    sets = _named_sets([word for word in words if word not in changes])
    recognizer, config = recipe.open_model(model, device, changes)
    rows = []
    for name, path in sets.items():
        with _bar(name, None) as bar:
            result = recipe.evaluate_set(recognizer, name, path, config.style, bar)
        print(result.summary())
        rows.append(result.row())
        if output_dir is not None:
            output_dir.mkdir(parents=True, exist_ok=True)
            _write(output_dir / f"{name}.jsonl", result.lines())
    if append is not None:
        append_rows(append, rows)


def _named_sets(words: list[str]) -> dict[str, Path]:
    """Sets to evaluate by name: the one they are given, or that of the folder or manifest."""
    if not words:
        raise typer.BadParameter("name at least one set to evaluate", param_hint="SET")
    sets: dict[str, Path] = {}
    for word in words:
        name, _, path = word.partition("=") if "=" in word and not Path(word).exists() else ("", "", word)
        found = Path(path).resolve()
        if not found.exists():
            known = "" if not name else f", and {name!r} is no setting (search.KEY or style)"
            raise UserError(f"{word}: no such folder of shards or manifest: {path}{known}")
        name = name or (found.name if found.is_dir() else found.stem)
        if name in sets:
            raise UserError(f"{sets[name]} and {path} are both called {name!r}; name sets as NAME=SET")
        sets[name] = Path(path)
    return sets


@app.command()
def score(
    reference: Annotated[Path, typer.Argument(help="Lines of id and text, or JSON lines with both.")],
    hypothesis: Annotated[Path, typer.Argument(help="The same for what was recognised.")],
    style: Annotated[str, typer.Option(help="How both are normalised: verbatim or basic.")] = "basic",
) -> None:
    """Score two text files, utterances paired by id."""
    from las.evaluate.score import format_counts, read_texts
    from las.evaluate.score import score as score_texts

    references, hypotheses = read_texts(reference), read_texts(hypothesis)
    print(f"WER {format_counts(score_texts(references, hypotheses, style).counts)}")
    print(f"CER {format_counts(score_texts(references, hypotheses, style, 'character').counts)}")


# ------------------------------------------------------------------------------------------------------------ progress


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
    os.replace(temporary, path)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


@contextmanager
def _bar(title: str, total: float | None) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr where that is a terminal; called with what is done, and perhaps what there is in all."""
    with _progress() as progress:
        task = progress.add_task(title, total=total)

        def move(done: float, of: float | None = None) -> None:
            progress.update(task, completed=done, total=of or total)

        yield move


class _TrainingBar:
    """Shows how far training is, and a line for every validation."""

    def __init__(self, epochs: int):
        self.epochs = epochs
        self.progress = _progress()
        self.task = self.progress.add_task("training", total=1.0)

    def __enter__(self) -> _TrainingBar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def training(self, done: float, epoch: int, figures: dict[str, float]) -> None:
        title = f"epoch {epoch + 1}/{self.epochs} loss {figures['loss']:.3f}"
        self.progress.update(self.task, completed=done, description=title)

    def validated(self, epoch: int, update: int, validation: Validation) -> None:
        line = f"epoch {epoch} update {update}: loss {validation.loss:.4f} WER {validation.error_rate:.2%}"
        self.progress.console.print(f"{line} | {validation.example}", markup=False, highlight=False, soft_wrap=True)

    def warned(self, message: str) -> None:
        self.progress.console.print(f"las: {message}", markup=False, highlight=False, soft_wrap=True)
