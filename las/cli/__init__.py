"""The command line: `las VERB ...`. Results go to stdout, progress and complaints to stderr.

Exit status: 0 done, 1 something the user can mend, 2 the command line itself. What a verb needs is imported when it
is called, so that `las --help` is quick.
"""

from __future__ import annotations

import codecs
import io
import os
import sys

import typer

from las.cli import data, evaluate, language_models, train, transcribe
from las.errors import DISK_FULL, UserError

INTERRUPTED = 130  # the exit status that typer makes of Ctrl-C
SPINS = "2000"  # turns that OpenMP's threads (libgomp) wait awake for the next operation: some microseconds

app = typer.Typer(
    help="Attention-based speech recognition: Listen, Attend and Spell.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(transcribe.transcribe)
app.command()(transcribe.models)
app.command("import")(data.import_)
app.command()(data.tokenizer)
app.command()(data.shard)
app.command()(train.plan)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(evaluate.score)
app.command()(evaluate.compare)
app.command()(evaluate.tune)
app.command()(evaluate.calibrate)

lm = typer.Typer(help="Language models: train, ngram, score, sample.", no_args_is_help=True, rich_markup_mode=None)
lm.command("train")(language_models.train)
lm.command("ngram")(language_models.ngram)
lm.command("score")(language_models.score)
lm.command("sample")(language_models.sample)
app.add_typer(lm, name="lm")

doctor = typer.Typer(
    help="Find what is wrong with data before it costs a run, with transcripts before they are used.",
    no_args_is_help=True,
)
doctor.command("data")(data.doctor)
doctor.command("verdicts")(evaluate.verdicts)
app.add_typer(doctor, name="doctor")


def main() -> None:
    """Run the command line; a `UserError` or a file that cannot be written is one line on stderr and exit status 1."""
    # read when torch is loaded; by default it is 150 times as many, and the threads starve where other programs run
    if "OMP_WAIT_POLICY" not in os.environ:  # which says the same more coarsely, and would be overruled
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            utf8 = codecs.lookup(stream.encoding).name == "utf-8"
            # file names that are not UTF-8 come out as they are; what EUC-KR or Latin-1 lacks, as an escape
            stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
    try:
        app()
    except UserError as error:
        print(f"las: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("las: interrupted", file=sys.stderr)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FULL:
            raise
        print(f"las: {error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
