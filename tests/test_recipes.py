"""Every config loads and builds its model; every run.sh goes from a miniature of its corpus to a row of results."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from las import config as settings
from las.model.las import LAS
from las.recipe import RunConfig

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.parent for path in ROOT.glob("egs/*/run.sh"))
CONFS = sorted(ROOT.glob("egs/*/conf/*.yaml"))
SMALL = (
    "train.epochs=1", "model.listener.width=8", "model.speller.width=8", "model.speller.attention.width=8",
    "search.beam=1", "search.longest=0.2",
)  # fmt: skip


@pytest.mark.parametrize("path", CONFS, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_every_config_builds_its_model(path):
    config = settings.load(RunConfig, path)
    assert sum(value.numel() for value in LAS(config.model, 30).parameters()) > 10_000


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_holds_what_a_recipe_holds(recipe):
    for name in ("README.md", "prepare.py", "conf", "run.sh", "RESULTS.md"):
        assert (recipe / name).exists(), f"{recipe.name} lacks {name}"
    assert os.access(recipe / "run.sh", os.X_OK)
    assert len((recipe / "run.sh").read_text(encoding="utf-8").splitlines()) < 60


def write_tone(path: Path, number: int, samples: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.sin(0.1 * (number + 1) * np.arange(samples))
    soundfile.write(path, wave, 8_000, subtype="PCM_16")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    """Miniatures of the corpora, tones in place of words, laid out as under $LAS_CORPORA."""
    folder = tmp_path_factory.mktemp("corpora")
    for name in itertools.islice(itertools.product("01", repeat=8), 60):
        write_tone(folder / "waves_yesno" / f"{'_'.join(name)}.wav", int(name[-1]), 16_000)
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    for digit, speaker, index in itertools.product(range(10), speakers, range(50)):
        write_tone(folder / "fsdd/recordings" / f"{digit}_{speaker}_{index}.wav", digit, 3_000 + index)
    return folder


@pytest.mark.parametrize(
    ("name", "prepare", "words"), [("yesno", "", 240), ("digits", "--train-strings 40", 1200)], ids=["yesno", "digits"]
)
def test_a_recipe_runs_from_corpus_to_results(corpora, tmp_path, name, prepare, words):
    environment = {
        **os.environ,
        "LAS_CORPORA": str(corpora),
        "PREPARE": prepare,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    output = tmp_path / "out put"
    done = subprocess.run(
        [ROOT / "egs" / name / "run.sh", output, *SMALL], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = (output / "RESULTS.md").read_text(encoding="utf-8")
    assert f"/ N {words})" in results
    assert "| test | " in results
    assert (output / "run/model/model.safetensors").exists()
