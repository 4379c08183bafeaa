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
from las.data.manifest import Utterance, write_manifest
from las.language_models import LanguageModelRunConfig
from las.model.language_model import LanguageModel
from las.model.las import LAS
from las.recipe import RunConfig
from las.text.tokenizer import train_tokenizer

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.parent for path in ROOT.glob("egs/*/run.sh"))
CONFS = sorted(ROOT.glob("egs/*/conf/*.yaml"))
SMALL = (
    "train.epochs=1", "model.listener.width=8", "model.speller.width=8", "model.speller.attention.width=8",
    "search.beam=1", "search.longest=0.2",
)  # fmt: skip


@pytest.mark.parametrize("path", CONFS, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_every_config_builds_its_model(path):
    model: LAS | LanguageModel
    if path.stem == "lm":
        model = LanguageModel(settings.load(LanguageModelRunConfig, path).model, 30)
    else:
        model = LAS(settings.load(RunConfig, path).model, 30)
    assert sum(value.numel() for value in model.parameters()) > 10_000


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_holds_what_a_recipe_holds(recipe):
    for name in ("README.md", "prepare.py", "conf", "run.sh", "RESULTS.md"):
        assert (recipe / name).exists(), f"{recipe.name} lacks {name}"
    assert os.access(recipe / "run.sh", os.X_OK)
    assert len((recipe / "run.sh").read_text(encoding="utf-8").splitlines()) < 60


def write_tone(path: Path, number: int, samples: int, rate: int = 8_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.sin(0.1 * (number + 1) * np.arange(samples))
    soundfile.write(path, wave, rate, subtype="PCM_16")


def write_yesno(corpora: Path) -> None:
    for name in itertools.islice(itertools.product("01", repeat=8), 60):
        write_tone(corpora / "waves_yesno" / f"{'_'.join(name)}.wav", int(name[-1]), 16_000)


def write_digits(corpora: Path) -> None:
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    for digit, speaker, index in itertools.product(range(10), speakers, range(50)):
        write_tone(corpora / "fsdd/recordings" / f"{digit}_{speaker}_{index}.wav", digit, 3_000 + index)


def write_librispeech(corpora: Path) -> None:
    for subset, speaker in (("train-clean-5", 19), ("dev-clean", 84)):
        chapter = corpora / "LibriSpeech" / subset / f"{speaker}/7"
        ids = [f"{speaker}-7-{number:04d}" for number in range(3)]
        for number, id in enumerate(ids):
            write_tone(chapter / f"{id}.flac", number, 24_000 + 1_600 * number, 16_000)
        lines = [f"{id} THIS IS READ\n" for id in ids]
        (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines), encoding="utf-8")


# miniatures of the corpora, tones in place of words, laid out as under $LAS_CORPORA
MINIATURES = {"yesno": write_yesno, "digits": write_digits, "mini_librispeech": write_librispeech}


def test_every_recipe_has_a_miniature():
    assert sorted(MINIATURES) == [recipe.name for recipe in RECIPES]


@pytest.mark.parametrize(
    ("name", "prepare", "test", "words"),
    [
        ("yesno", "", "test", 240),
        ("digits", "--train-strings 40", "test", 1200),
        ("mini_librispeech", "--train train-clean-5", "dev-clean", 9),
    ],
    ids=lambda value: value if value in {path.name for path in RECIPES} else "",
)
def test_a_recipe_runs_from_corpus_to_results(tmp_path, name, prepare, test, words):
    MINIATURES[name](tmp_path / "corpora")
    environment = {
        **os.environ,
        "LAS_CORPORA": str(tmp_path / "corpora"),
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
    assert f"| {test} | " in results
    assert (output / "run/model/model.safetensors").exists()


def test_language_models_come_from_text_to_their_perplexities(tmp_path):
    """lm.sh of mini_librispeech, after what the first two stages of run.sh leave."""
    script = ROOT / "egs/mini_librispeech/lm.sh"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"OMP_NUM_THREADS": "1", "TEXT": str(tmp_path / "novel.txt"), "ORDER": "3"}
    missing = subprocess.run([script, tmp_path], env=environment, capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert "data/tokenizer.model is not there: run egs/mini_librispeech/run.sh" in missing.stderr
    (tmp_path / "novel.txt").write_text("“This is read,” said Mr. Read. Is this?\n" * 20, encoding="utf-8")
    words = "he read this and that and then he read no more"
    utterances = [Utterance(f"{number}", "none.wav", words) for number in range(3)]
    for part in ("train", "dev"):
        write_manifest(tmp_path / "data" / f"{part}.jsonl", utterances)
    train_tokenizer([words, "this is read said mister read"], 30, "unigram", tmp_path / "data/tokenizer.model")
    small = ("model.width=8", "model.embedding=4", "train.epochs=1", "train.device=cpu")
    done = subprocess.run([script, tmp_path, *small], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = (tmp_path / "perplexity.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in found] == ["n-grams:", "perplexity", "3", "LSTM:", "perplexity", "3"]
    assert (tmp_path / "lm/language_model/model.safetensors").exists()
