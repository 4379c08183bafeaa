"""What several verbs take from the command line, and what they write their results with."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from las.errors import UserError

Settings = TypeVar("Settings")
Model = Annotated[str, typer.Option(help="A model that ships (`las models`) or a model folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
RunWords = Annotated[
    list[str] | None, typer.Argument(metavar="[CONF.yaml] [KEY=VALUE]...", help="Config and settings.")
]
RunFolder = Annotated[Path | None, typer.Option("--output-dir", "-o", help="The run's folder.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --output-dir.")]
Keys = Annotated[bool, typer.Option("--keys", help="Print every setting with default and meaning.")]
Report = Annotated[
    Path | None,
    typer.Option("--output-dir", "-o", help="NAME.jsonl (hypotheses), report.json, report.txt, report.html go here."),
]
Style = Annotated[str, typer.Option(help="How both are normalised: verbatim or basic.")]
Missing = Annotated[bool, typer.Option("--allow-missing", help="Words without a hypothesis count as deleted.")]


def writable(folder: Path) -> None:
    """Make a folder for results and see, before the work, that they can be put there. Raises `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / "writable.part"
        probe.touch()
        probe.unlink(missing_ok=True)  # another las may have done so
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"{folder}: no folder that results can be written to: {why}") from None


def is_read(file: Path, inputs: Iterable[str | Path]) -> bool:
    """Whether a file to be written is one of those that are read, by whatever name."""
    return file.exists() and any(os.path.exists(path) and os.path.samefile(file, path) for path in inputs)


def refuse_overwriting(file: Path, inputs: Iterable[str | Path]) -> None:
    """Raise `UserError` where a file to be written would take the place of one that it is made from."""
    if is_read(file, inputs):
        raise UserError(f"{file}: would overwrite what it is made from; name another file")


def spare(folder: Path, names: Iterable[str], inputs: Iterable[str | Path]) -> None:
    """Raise `UserError` where a file of a report on sets of these names would take the place of an input."""
    inputs = list(inputs)
    for name in (*(f"{name}.jsonl" for name in names), "report.json", "report.txt", "report.html"):
        if is_read(folder / name, inputs):
            raise UserError(f"{folder / name}: results would overwrite what they are made from; name another folder")


def sets_and_settings(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Named sets, and the words among them that set how they are decoded and scored."""
    changes = [word for word in words if re.match(r"(search\.\w+|style)=", word)]
    return named_sets([word for word in words if word not in changes]), changes


def named_sets(words: list[str]) -> dict[str, str]:
    """Sets by name, the one they are given or that of the folder or manifest: a path or an address of shards."""
    from las.data.store import is_remote

    if not words:
        raise typer.BadParameter("name at least one set to evaluate", param_hint="SET")
    sets: dict[str, str] = {}
    for word in words:
        whole = "=" not in word or is_remote(word.partition("=")[0]) or Path(word).exists()
        name, _, path = ("", "", word) if whole else word.partition("=")
        found = Path(path.rstrip("/")) if is_remote(path) else Path(path).resolve()
        if not is_remote(path) and not found.exists():
            known = "" if not name else f", and {name!r} is no setting (search.KEY or style)"
            raise UserError(f"{word}: no such folder of shards or manifest: {path}{known}")
        name = name or (found.stem if found.is_file() else found.name)
        if "/" in name:
            raise UserError(f"{word}: a set's name becomes a file's, so it cannot hold a /: {name!r}")
        if name in sets:
            raise UserError(f"{sets[name]} and {path} are both called {name!r}; name sets as NAME=SET")
        sets[name] = path
    return sets


def run_settings(
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
    path, changes = config_and_settings(words)
    if resume and path is None:
        path = output_dir / "config.yaml"
    return settings.load(kind, path, changes)


def config_and_settings(words: list[str]) -> tuple[Path | None, list[str]]:
    """The config that is named, if one is, and the `key=value` words beside it."""
    files = [word for word in words if "=" not in word or os.path.isfile(word)]
    if len(files) > 1:
        raise typer.BadParameter(f"one config at most, not {' and '.join(files)}", param_hint="CONF.yaml")
    return Path(files[0]) if files else None, [word for word in words if word not in files]


def _plain(value: Any) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, (tuple, list)) else str(value)
