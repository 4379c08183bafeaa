"""Verbs that measure: `las evaluate`, `score`, `compare`; that choose by it: `tune`, `calibrate`, `doctor verdicts`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from las.cli.options import Device, Missing, Model, Report, Style, named_sets, sets_and_settings, spare, writable
from las.cli.progress import progress_bar
from las.errors import UserError
from las.files import write_json, write_text
from las.recipe import DEFAULT_MODEL

Sister = Annotated[
    list[str] | None,
    typer.Option(help="A model like it that has not heard a set's speakers decodes that set; one for each set."),
]


def evaluate(
    words: Annotated[list[str], typer.Argument(metavar="[NAME=]SET... [KEY=VALUE]...", help="Shards or manifests.")],
    model: Model = DEFAULT_MODEL,
    output_dir: Report = None,
    append: Annotated[Path | None, typer.Option(help="A file of results, such as RESULTS.md, to add rows to.")] = None,
    device: Device = "auto",
) -> None:
    """Transcribe sets and report WER: las evaluate test=data/test --model exp/first/model search.beam=8."""
    from las.evaluate.folder import write_folder
    from las.evaluate.report import append_rows
    from las.recipe.evaluation import evaluate_set, illustrate
    from las.recipe.models import open_model
    from las.train.distributed import world_on

    sets, changes = sets_and_settings(words)
    with world_on(device) as (chosen, world):
        recognizer, config = open_model(model, chosen, changes)
        if output_dir is not None and world.leads:
            writable(output_dir)
            spare(output_dir, sets, sets.values())
        if append is not None and world.leads:
            writable(append.parent)
        results, media = [], {}
        unread: list[str] = []
        for name, path in sets.items():
            with progress_bar(name, None) if world.leads else nullcontext() as bar:
                result = evaluate_set(
                    recognizer, name, path, config.style, bar, world, words=output_dir is not None,
                    on_error=lambda error: unread.append(str(error)),
                )  # fmt: skip
            if not world.leads:
                continue
            print(result.summary())
            results.append(result)
            if append is not None:
                append_rows(append, [result.row()])  # after each set: the next may fail
            if output_dir is not None:
                media[name] = illustrate(recognizer, result, path, output_dir)
                write_folder(output_dir, results, media)
        for complaint in unread:
            print(f"las: {complaint}", file=sys.stderr)
        if lost := sum(len(result.missing) for result in results):
            raise UserError(f"{lost} recordings could not be read; their words were counted as deleted")


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

    if output_dir is not None:
        writable(output_dir)
        spare(output_dir, [hypothesis.stem], [reference, hypothesis])
    result = scored_files(reference, hypothesis, style, allow_missing)
    print("\n".join(f"{name}: {value}" for name, value in facts(result.record)))
    if output_dir is not None:
        write_folder(output_dir, [result], {})


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

    if output_dir is not None:
        writable(output_dir)
    systems = comparing.compare_files(hypotheses, reference, style, allow_missing)
    print("\n".join(comparing.text_lines(systems, most=comparing.SHOWN)))
    if output_dir is not None:
        record = comparing.comparison_record(systems)
        write_json(output_dir / "compare.json", record)
        write_text(output_dir / "compare.txt", "\n".join(comparing.text_lines(systems)) + "\n")


def tune(
    words: Annotated[list[str], typer.Argument(metavar="SET [KEY=VALUE]...", help="Shards to tune on, and settings.")],
    model: Model = DEFAULT_MODEL,
    vary: Annotated[
        str,
        typer.Option(help="Search settings to choose, with commas between; of language models, those that are there."),
    ] = "ctc_weight,language_weight,source_weight,length_exponent,token_reward",
    hypotheses: Annotated[int, typer.Option(min=2, help="Transcripts of each utterance that are ranked.")] = 20,
    write: Annotated[bool, typer.Option("--write", help="Put the best settings into the model's config.yaml.")] = False,
    device: Device = "auto",
) -> None:
    """Choose search weights on a development set, decoding it once: las tune shards/dev --model run/model --write."""
    from las.recipe import tuning
    from las.recipe.models import check_writable

    named, changes = sets_and_settings(words)
    if len(named) > 1:
        raise typer.BadParameter("one set at most", param_hint="SET")
    [path] = named.values()
    names = [name.strip() for name in vary.split(",") if name.strip()]
    if write:
        check_writable(model)
    with progress_bar("decoding", None) as bar:
        tuned = tuning.tune_model(model, path, names, hypotheses, device, changes, bar)
    print(tuning.surface(tuned))
    print(tuning.summary(tuned))
    if write:
        tuning.write_search(model, tuned, changes)


def calibrate(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]SET... [KEY=VALUE]...", help="Shards or manifests to fit on, settings."),
    ],
    model: Model = DEFAULT_MODEL,
    sister: Sister = None,
    check: Annotated[str | None, typer.Option(help="A set the map is not fitted on, to see what it is worth.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the map into the model's calibration.json.")] = False,
    device: Device = "auto",
) -> None:
    """Fit how sure a model may be of its words: las calibrate shards/dev --model run/model --write."""
    from las.recipe import calibration
    from las.recipe.models import check_writable

    named, changes = sets_and_settings(words)
    checked = named_sets([check]) if check is not None else {}
    if write:
        check_writable(model)
    with progress_bar("decoding", None) as bar:
        fitted, judged = calibration.calibrate(model, named, sister or [], device, bar, changes)
    with progress_bar("checking", None) as bar:
        others = [calibration.judge(model, name, path, device, bar, changes) for name, path in checked.items()]
    for one in [*judged, *others]:
        print("\n".join(one.report(fitted)))
    if write:
        print(calibration.write(model, fitted, judged))


def verdicts(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]SET... [KEY=VALUE]...", help="Shards or manifests to make cases of, settings."),
    ],
    model: Model = DEFAULT_MODEL,
    sister: Sister = None,
    early: Annotated[
        list[str] | None,
        typer.Option(help="A model from early in a training, which loops; one for each set, that of --check last."),
    ] = None,
    check: Annotated[
        str | None, typer.Option(help="A set the thresholds are not fitted on, to see their worth.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the thresholds into calibration.json.")] = False,
    device: Device = "auto",
) -> None:
    """Fit what verdicts on transcripts go by: las doctor verdicts shards/dev --model run/model --write."""
    from las.recipe import verdicts as recipe
    from las.recipe.models import check_writable
    from las.transcribe.verdict_fit import fit, report

    checks = [] if check is None else [check]
    named, changes = sets_and_settings([*words, *checks])  # no two by one name, or the check would be fitted on
    if write:
        check_writable(model)
    fitted_on = len(named) - len(checks)
    models = recipe.pairs(model, fitted_on, len(checks), sister or [], early or [])
    found = {}
    for (name, path), (reader, other) in zip(named.items(), models, strict=True):
        with progress_bar(name, None) as bar:
            found[name] = recipe.cases_of(reader, other, path, device, bar, changes)
    names = list(named)[:fitted_on]
    cases = [one for name in names for one in found[name]]
    fitted = fit(cases)
    for name, own in found.items():
        print("\n".join(report(name, own, fitted)))
    if write:
        print(recipe.write(model, fitted, names, len(cases)))
