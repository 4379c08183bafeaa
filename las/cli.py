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
from contextlib import contextmanager, nullcontext, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from las.errors import UserError

if TYPE_CHECKING:
    from las.text.perplexity import Perplexity
    from las.train.loop import Validation

app = typer.Typer(
    help="Attention-based speech recognition: Listen, Attend and Spell.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
lm = typer.Typer(help="Language models: train, ngram, score, sample.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(lm, name="lm")


Settings = TypeVar("Settings")


class Format(StrEnum):
    """How transcripts are written."""

    txt = "txt"
    json = "json"
    srt = "srt"
    vtt = "vtt"
    tsv = "tsv"
    ctm = "ctm"
    all = "all"


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
    output_format: Annotated[
        Format, typer.Option("--output-format", "-f", help="txt, json, srt, vtt, tsv, ctm, or all of them.")
    ] = Format.txt,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="One file for each recording and format goes here.")
    ] = None,
    word_timestamps: Annotated[
        bool, typer.Option("--word-timestamps", help="Time and confidence of each word in json and vtt; ctm has them.")
    ] = False,
    max_line_width: Annotated[int, typer.Option(min=1, help="Columns of a line in srt and vtt.")] = 42,
    max_line_count: Annotated[int, typer.Option(min=1, help="Lines shown at once in srt and vtt.")] = 2,
    n_best: Annotated[int, typer.Option(min=1, help="Transcripts of each segment in json, best first.")] = 1,
    beam_size: Annotated[int | None, typer.Option(min=1, help="Beams; 1 is greedy. Default: the model's own.")] = None,
    batch_seconds: Annotated[
        float, typer.Option(min=1, help="Audio decoded at once, in seconds: less takes less memory.")
    ] = 120.0,
    hot_words: Annotated[
        str, typer.Option(help="Words and phrases to listen for, with commas between; or a file, one on a line.")
    ] = "",
    hot_word_bonus: Annotated[
        float | None, typer.Option(min=0, help="Added to a transcript's score for each of their tokens.")
    ] = None,
    language_model: Annotated[
        str | None, typer.Option(help="A folder of `las lm train` or an ARPA file. Default: the model's own, if any.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Transcribe audio files: text on stdout, or files in --output-dir. Recordings may be hours long."""
    from las.recipe import open_model
    from las.transcribe import writers

    paths = list(_audio_files(files))
    formats = list(writers.WRITERS) if output_format is Format.all else [output_format.value]
    _check_outputs(paths, formats, output_dir, n_best)
    asked = {"hot_word_bonus": hot_word_bonus, "language_model": language_model}
    words = [f"search.{name}={json.dumps(value)}" for name, value in asked.items() if value is not None]
    recognizer, _ = open_model(model, device, words)
    phrases = _phrases(hot_words)
    recognizer.phrases(phrases)  # what it cannot write should fail now
    if output_dir is not None:
        _writable(output_dir)
    layout = writers.Layout(max_line_width, max_line_count, word_timestamps)
    complaints: list[str] = []
    done = 0.0

    def progress(seconds: float) -> None:
        nonlocal done
        done += seconds
        bar(done)

    with _bar("transcribing", _seconds_of(paths) if sys.stderr.isatty() else None, speed=True) as bar:
        for transcript in recognizer.stream(
            paths,
            beam=beam_size,
            best=n_best,
            batch_seconds=batch_seconds,
            on_error=lambda source, error: complaints.append(str(error)),
            on_progress=progress,
            hot_words=phrases,
            words=word_timestamps or not set(writers.TIMED).isdisjoint(formats),
        ):
            for name in formats:
                text = writers.WRITERS[name](transcript, layout)
                if output_dir is not None:
                    _write(output_dir / f"{Path(transcript.source).stem}.{name}", text)
                else:
                    print(f"{transcript.source}: " * (name == "txt" and len(paths) > 1), text, sep="", end="")
    for complaint in complaints:
        print(f"las: {complaint}", file=sys.stderr)
    if complaints:
        raise UserError(f"{len(complaints)} of {len(paths)} files were not transcribed")


def _seconds_of(paths: list[str]) -> float:
    """Of all recordings together; one that cannot be read has none, and is complained of when its turn comes."""
    from las.audio import probe

    total = 0.0
    for path in paths:
        with suppress(UserError):
            total += probe(path).seconds
    return total


def _phrases(hot_words: str) -> list[str]:
    """The phrases that a word of the command line names, or the file that it names."""
    from las.data.sentences import read_sentences

    path = Path(hot_words)
    lines = list(read_sentences([path], "verbatim")) if hot_words and path.is_file() else hot_words.split(",")
    return [line.strip() for line in lines if line.strip()]


def _audio_files(names: Iterable[str]) -> Iterator[str]:
    """Files as given, the audio files of folders and the matches of globs, in order."""
    from las.audio import SUFFIXES

    for name in names:
        path = Path(name)
        if path.is_dir():
            found = sorted(str(one) for one in path.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file())
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


def _check_outputs(paths: list[str], formats: list[str], output_dir: Path | None, n_best: int) -> None:
    """Refuse what could not be told apart when it is written."""
    if n_best > 1 and "json" not in formats:
        raise typer.BadParameter("only json has room for more than one transcript: -f json", param_hint="--n-best")
    if output_dir is None and (len(formats) > 1 or (len(paths) > 1 and formats[0] in ("srt", "vtt", "tsv"))):
        what = "all formats" if len(formats) > 1 else f"{formats[0]} of {len(paths)} recordings"
        raise typer.BadParameter(f"{what} need files of their own: name a folder", param_hint="--output-dir")
    stems: dict[str, str] = {}
    for path in paths if output_dir is not None or formats == ["ctm"] else ():
        other = stems.setdefault(Path(path).stem, path)
        if other != path:
            raise UserError(
                f"{other} and {path} would both be written to {Path(path).stem}.{formats[0]}; "
                "transcribe them into different folders"
            )


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

    sentences = read_sentences(texts, "verbatim")
    trained = train_tokenizer(sentences, size, kind, output)  # type: ignore[arg-type]
    print(f"{output}: {trained.size} tokens ({kind}; {size} asked for)")


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


RunWords = Annotated[
    list[str] | None, typer.Argument(metavar="[CONF.yaml] [KEY=VALUE]...", help="Config and settings.")
]
RunFolder = Annotated[Path | None, typer.Option("--output-dir", "-o", help="The run's folder.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --output-dir.")]
Keys = Annotated[bool, typer.Option("--keys", help="Print every setting with default and meaning.")]


@app.command()
def train(words: RunWords = None, output_dir: RunFolder = None, resume: Resume = False, keys: Keys = False) -> None:
    """Train a model: las train conf.yaml train.epochs=20 --output-dir exp/first."""
    from las import recipe

    config = _run_settings(recipe.RunConfig, words or [], output_dir, resume, keys)
    if config is None or output_dir is None:
        return
    leads = os.environ.get("RANK", "0") == "0"  # of the ranks that torchrun started
    missing = [name for name in ("av", "tensorboard", "matplotlib") if not _installed(name)]
    if missing and leads:
        print(f"las: not installed, so left out: {', '.join(missing)}", file=sys.stderr)
    with _TrainingBar(config.train.epochs) as bar:
        folder = recipe.train(config, output_dir, resume, bar)
    if leads:
        print(folder)


def _run_settings(
    kind: type[Settings], words: list[str], output_dir: Path | None, resume: bool, keys: bool
) -> Settings | None:
    """The settings of a run from a config and `key=value` words; with `keys` they are printed instead."""
    from las import config as settings

    if keys:
        for key in settings.keys(kind):
            print(f"{key.name}={_plain(key.default)}\t{key.kind}\t{key.meaning}")
        return None
    if output_dir is None:
        raise typer.BadParameter("name the run's folder", param_hint="--output-dir")
    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise typer.BadParameter(f"one config at most, not {' and '.join(files)}", param_hint="CONF.yaml")
    path = Path(files[0]) if files else None
    if resume and path is None:
        path = output_dir / "config.yaml"
    return settings.load(kind, path, [word for word in words if "=" in word])


def _plain(value: Any) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, (tuple, list)) else str(value)


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


# ------------------------------------------------------------------------------------------------------------ scoring


Report = Annotated[
    Path | None,
    typer.Option("--output-dir", "-o", help="NAME.jsonl (hypotheses), report.json, report.txt, report.html go here."),
]
Style = Annotated[str, typer.Option(help="How both are normalised: verbatim or basic.")]
Missing = Annotated[bool, typer.Option("--allow-missing", help="Words without a hypothesis count as deleted.")]


@app.command()
def evaluate(
    words: Annotated[list[str], typer.Argument(metavar="[NAME=]SET... [KEY=VALUE]...", help="Shards or manifests.")],
    model: Model = "digits",
    output_dir: Report = None,
    append: Annotated[Path | None, typer.Option(help="A file of results, such as RESULTS.md, to add rows to.")] = None,
    device: Device = "auto",
) -> None:
    """Transcribe sets and report WER: las evaluate test=data/test --model exp/first/model search.beam=8."""
    from las import recipe
    from las.evaluate.folder import write_folder
    from las.evaluate.report import append_rows

    sets, changes = _sets_and_settings(words)
    with recipe.ranks(device) as (chosen, world):
        recognizer, config = recipe.open_model(model, chosen, changes)
        if output_dir is not None and world.leads:
            _writable(output_dir)
        results, media = [], {}
        for name, path in sets.items():
            with _bar(name, None) if world.leads else nullcontext() as bar:
                result = recipe.evaluate_set(recognizer, name, path, config.style, bar, world)
            if not world.leads:
                continue
            print(result.summary())
            results.append(result)
            if output_dir is not None:
                media[name] = recipe.illustrate(recognizer, result, path, output_dir)
                write_folder(output_dir, results, media)  # after each set: the next may fail
    if append is not None and results:
        append_rows(append, [result.row() for result in results])


def _writable(folder: Path) -> None:
    """Make a folder for results and see, before the work, that they can be put there."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / "writable.part"
    probe.touch()
    probe.unlink()


def _sets_and_settings(words: list[str]) -> tuple[dict[str, Path], list[str]]:
    """Named sets, and the words among them that set how they are decoded and scored."""
    changes = [word for word in words if re.match(r"(search\.\w+|style)=", word)]
    return _named_sets([word for word in words if word not in changes]), changes


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
    reference: Annotated[Path, typer.Argument(help="Kaldi text, JSON lines, csv, trn, stm or ctm.")],
    hypothesis: Annotated[Path, typer.Argument(help="The same for what was recognised.")],
    output_dir: Report = None,
    style: Style = "basic",
    allow_missing: Missing = False,
) -> None:
    """Score a file of hypotheses against references, utterances paired by id."""
    from las.evaluate.breakdown import facts
    from las.evaluate.folder import write_folder
    from las.evaluate.report import scored_files

    result = scored_files(reference, hypothesis, style, allow_missing)
    print("\n".join(f"{name}: {value}" for name, value in facts(result.record)))
    if output_dir is not None:
        _writable(output_dir)
        write_folder(output_dir, [result], {})


@app.command()
def tune(
    words: Annotated[list[str], typer.Argument(metavar="SET [KEY=VALUE]...", help="Shards to tune on, and settings.")],
    model: Model = "digits",
    vary: Annotated[
        str,
        typer.Option(help="Search settings to choose, with commas between; of language models, those that are there."),
    ] = "ctc_weight,language_weight,source_weight,length_exponent,token_reward",
    hypotheses: Annotated[int, typer.Option(min=2, help="Transcripts of each utterance that are ranked.")] = 20,
    write: Annotated[bool, typer.Option("--write", help="Put the best settings into the model's config.yaml.")] = False,
    device: Device = "auto",
) -> None:
    """Choose search weights on a development set, decoding it once: las tune shards/dev --model run/model --write."""
    from las import tuning

    named, changes = _sets_and_settings(words)
    if len(named) > 1:
        raise typer.BadParameter("one set at most", param_hint="SET")
    [path] = named.values()
    names = [name.strip() for name in vary.split(",") if name.strip()]
    if write:
        tuning.check_writable(model)
    with _bar("decoding", None) as bar:
        tuned = tuning.tune_model(model, path, names, hypotheses, device, changes, bar)
    print(tuning.surface(tuned))
    print(tuning.summary(tuned))
    if write:
        tuning.write_search(model, tuned, changes)


@app.command()
def calibrate(
    sets: Annotated[list[str], typer.Argument(metavar="[NAME=]SET...", help="Shards or manifests to fit on.")],
    model: Model = "digits",
    sister: Annotated[
        list[str] | None,
        typer.Option(help="A model like it that has not heard a set's speakers decodes that set; one for each set."),
    ] = None,
    check: Annotated[str | None, typer.Option(help="A set the map is not fitted on, to see what it is worth.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the map into the model's calibration.json.")] = False,
    device: Device = "auto",
) -> None:
    """Fit how sure a model may be of its words: las calibrate shards/dev --model run/model --write."""
    from las import calibration

    named = _named_sets(sets)
    checked = _named_sets([check]) if check is not None else {}
    with _bar("decoding", None) as bar:
        fitted, judged = calibration.calibrate(model, named, sister or [], device, bar)
    with _bar("checking", None) as bar:
        others = [calibration.judge(model, name, path, device, bar) for name, path in checked.items()]
    for one in [*judged, *others]:
        print("\n".join(one.report(fitted)))
    if write:
        print(calibration.write(model, fitted, judged))


@app.command()
def compare(
    hypotheses: Annotated[
        list[Path], typer.Argument(help="A B...: NAME.jsonl of `las evaluate`, or any of `las score`.")
    ],
    reference: Annotated[Path | None, typer.Option(help="References; default: those beside the hypotheses.")] = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="compare.json and compare.txt, in full, go here.")
    ] = None,
    style: Style = "basic",
    allow_missing: Missing = False,
) -> None:
    """Is B better than A? Paired bootstrap, matched pairs, and the utterances that changed."""
    from las.evaluate import compare as comparing
    from las.evaluate.folder import write_text

    systems = comparing.compare_files(hypotheses, reference, style, allow_missing)
    print("\n".join(comparing.text_lines(systems, most=comparing.SHOWN)))
    if output_dir is not None:
        _writable(output_dir)
        record = comparing.comparison_record(systems)
        write_text(output_dir / "compare.json", json.dumps(record, ensure_ascii=False, indent=1) + "\n")
        write_text(output_dir / "compare.txt", "\n".join(comparing.text_lines(systems)) + "\n")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A folder, a .csv or .tsv, or JSON lines.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The manifest to write, such as train.jsonl.")],
    leave_out: Annotated[float, typer.Option(help="Share of utterances that may be unusable.")] = 0.01,
) -> None:
    """A corpus as others lay it out -> manifest: audio with .txt beside it, csv/tsv, Kaldi, lhotse cuts, NeMo."""
    from las.data import foreign
    from las.data.manifest import write_manifest
    from las.ledger import Ledger

    stretches = foreign.read(source)
    ledger = Ledger()
    with _bar("importing", len(stretches)) as bar:
        utterances = list(foreign.adopt(stretches, output.with_suffix(".audio"), ledger, bar))
    ledger.check(len(stretches), leave_out, "mend them, or raise --leave-out")
    write_manifest(output, utterances)
    if len(ledger):
        print(f"las: left out: {ledger}", file=sys.stderr)
    print(f"{output}: {len(utterances)} utterances")


doctor = typer.Typer(help="Find what is wrong before it costs a run.", no_args_is_help=True)
app.add_typer(doctor, name="doctor")


@doctor.command()
def data(
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

    named = _named_sets(sets)
    tokens = None if tokenizer is None else Tokenizer.load(tokenizer)
    with _bar("listening", None) as bar:
        report = examine(named, tokens, workers or os.cpu_count() or 1, bar)
    if output is not None:
        _write(output, to_json(report))
    print(render(report))


# ---------------------------------------------------------------------------------------------------- language models

LanguageModelName = Annotated[str, typer.Option("--model", help="A folder of `las lm train`, or an ARPA file.")]
Texts = Annotated[list[Path], typer.Argument(help="Text files (.txt, .gz, .xz), a sentence a line, or manifests.")]
Tokens = Annotated[Path | None, typer.Option(help="Its tokenizer or model folder; wanted for an ARPA file.")]
OwnStyle = Annotated[str | None, typer.Option(help="How text is normalised. Default: as the model's was.")]


@lm.command("train")
def lm_train(words: RunWords = None, output_dir: RunFolder = None, resume: Resume = False, keys: Keys = False) -> None:
    """Train an LSTM language model: las lm train conf/lm.yaml train.epochs=3 -o exp/lm."""
    from las import language_models

    config = _run_settings(language_models.LanguageModelRunConfig, words or [], output_dir, resume, keys)
    if config is None or output_dir is None:
        return
    with _LanguageModelBar(config.train.epochs) as bar:
        folder = language_models.train(config, output_dir, resume, bar)
    print(folder)


@lm.command("ngram")
def lm_ngram(
    texts: Texts,
    tokenizer: Annotated[Path, typer.Option(help="The recogniser's model folder, or its tokenizer.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ARPA file; .gz is compressed.")],
    order: Annotated[int, typer.Option(help="Tokens of the longest n-grams, 2 to 8.")] = 4,
    cutoffs: Annotated[
        str, typer.Option(help="Of orders 2,3,...: n-grams that come this often or less are left out, such as 0,1,2.")
    ] = "0",
    style: Annotated[str, typer.Option(help="How text is normalised: verbatim or basic.")] = "basic",
) -> None:
    """Estimate an n-gram model over tokens by modified Kneser-Ney, as an ARPA file."""
    from las import language_models

    if not re.fullmatch(r"\d+(,\d+)*", cutoffs):
        raise typer.BadParameter(f"{cutoffs!r}: wanted numbers such as 0,1,2", param_hint="--cutoffs")
    tokens = language_models.read_tokenizer(tokenizer)
    least = [int(number) for number in cutoffs.split(",")]
    sizes = language_models.estimate_ngrams(texts, tokens, style, order, least, output)
    print(f"{output}: {', '.join(f'{size} {number}-grams' for number, size in enumerate(sizes, start=1))}")


@lm.command("score")
def lm_score(
    texts: Texts,
    model: LanguageModelName,
    tokenizer: Tokens = None,
    style: OwnStyle = None,
    device: Device = "auto",
) -> None:
    """Print the perplexity of a text, per token and per word, under a language model."""
    from las import language_models

    tokens = None if tokenizer is None else language_models.read_tokenizer(tokenizer)
    opened = language_models.open_language_model(model, tokens, style, device)
    with _bar("scoring", None) as bar:
        found = opened.perplexity(texts, bar)
    unknown = f", {found.unknown} tokens unknown" if found.unknown else ""
    print(f"perplexity per token {found.per_token:.3f}, per word {found.per_word:.2f}")
    print(f"{found.sentences} sentences, {found.words} words, {found.tokens} tokens with ends of sentences{unknown}")


@lm.command("sample")
def lm_sample(
    model: LanguageModelName,
    tokenizer: Tokens = None,
    sentences: Annotated[int, typer.Option(help="How many to draw.")] = 10,
    temperature: Annotated[float, typer.Option(help="Below 1 the likely becomes likelier, above 1 the rare.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed draws the same sentences.")] = 0,
    device: Device = "auto",
) -> None:
    """Draw sentences from a language model."""
    from las import language_models

    tokens = None if tokenizer is None else language_models.read_tokenizer(tokenizer)
    opened = language_models.open_language_model(model, tokens, None, device, never=language_models.NO_TEXT)
    for sentence in opened.sample(sentences, temperature, seed):
        print(sentence)


# ------------------------------------------------------------------------------------------------------------ progress


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
    os.replace(temporary, path)


class _Speed(ProgressColumn):
    """Seconds of audio done in a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f}x real time")


def _progress(speed: bool = False) -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        *([_Speed()] if speed else []),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


@contextmanager
def _bar(title: str, total: float | None, speed: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr where that is a terminal; called with what is done, and perhaps what there is in all.

    With `speed` what is done is seconds of audio, and the bar says how fast they go by.
    """
    with _progress(speed) as progress:
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

    def __enter__(self) -> Self:
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


class _LanguageModelBar(_TrainingBar):
    """The same for a language model."""

    def foretold(self, epoch: int, update: int, found: Perplexity) -> None:
        line = (
            f"epoch {epoch + 1} update {update}: perplexity per token {found.per_token:.3f} word {found.per_word:.2f}"
        )
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
