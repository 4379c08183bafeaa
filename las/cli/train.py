"""`las train`: a recogniser from shards; `las plan`: what that will need."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from las.cli.options import Keys, Resume, RunFolder, RunWords, config_and_settings, run_settings
from las.cli.progress import TrainingBar, progress_bar


def train(words: RunWords = None, output_dir: RunFolder = None, resume: Resume = False, keys: Keys = False) -> None:
    """Train a model: las train conf.yaml train.epochs=20 --output-dir exp/first."""
    from las.recipe import training
    from las.recipe.config import RunConfig

    config = run_settings(RunConfig, words or [], output_dir, resume, keys)
    if config is None or output_dir is None:
        return
    leads = os.environ.get("RANK", "0") == "0"  # of the ranks that torchrun started
    missing = [name for name in ("av", "tensorboard", "matplotlib") if not _installed(name)]
    if missing and leads:
        print(f"las: not installed, so left out: {', '.join(missing)}", file=sys.stderr)
    with TrainingBar(config.train.epochs) as bar:
        folder = training.train(config, output_dir, resume, bar)
    if leads:
        print(folder)


def plan(
    words: RunWords = None,
    measured: Annotated[
        bool, typer.Option("--try", help="Make some updates on the device, the largest batch first.")
    ] = False,
) -> None:
    """What a run will need: las plan conf.yaml data.batch_seconds=80."""
    from las import config as settings
    from las.recipe import plan as planning
    from las.recipe.config import RunConfig

    path, changes = config_and_settings(words or [])
    found = planning.plan(settings.load(RunConfig, path, changes))
    print(planning.render(found))
    if measured:
        from las.recipe.trial import attempt

        with progress_bar("trying", None) as bar:
            trial = attempt(found, bar)
        print(trial.render(found.config.train.epochs * found.updates))


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
