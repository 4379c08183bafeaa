"""`las train`: a recogniser from shards."""

from __future__ import annotations

import os
import sys

from las.cli.options import Keys, Resume, RunFolder, RunWords, run_settings
from las.cli.progress import TrainingBar


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


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
