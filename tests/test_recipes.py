"""Every recipe holds what recipes hold; every config loads and builds its model, of the size its README says.

That run.sh goes from the published archive to a row of results is tested in tests/egs/, one file for each recipe.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from las import config as settings
from las.data.manifest import Utterance, write_manifest
from las.model.language_model import LanguageModel
from las.model.las import LAS
from las.recipe.config import RunConfig
from las.recipe.language_models import LanguageModelRunConfig
from las.text.tokenizer import train_tokenizer

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.parent for path in ROOT.glob("egs/*/run.sh"))
CONFS = sorted(ROOT.glob("egs/*/conf/*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_holds_what_a_recipe_holds(recipe):
    for name in ("README.md", "prepare.py", "conf", "run.sh", "RESULTS.md"):
        assert (recipe / name).exists(), f"{recipe.name} lacks {name}"
    assert os.access(recipe / "run.sh", os.X_OK)
    assert len((recipe / "run.sh").read_text(encoding="utf-8").splitlines()) < 60
    assert "run_recipe(" in (ROOT / f"tests/egs/test_{recipe.name}.py").read_text(encoding="utf-8")
    assert f"](egs/{recipe.name}/" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CONFS, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_every_config_builds_its_model_in_the_size_its_readme_says(path):
    readme = (path.parents[1] / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {path.name} \|.*\| ([\d,]+) \| ([\d.]+) M \|$", readme, re.MULTILINE)
    assert row, f"no row `| {path.name} | ... | tokens | parameters |` in the README"
    model: LAS | LanguageModel
    tokens = int(row[1].replace(",", ""))
    with torch.device("meta"):
        if path.stem == "lm":
            model = LanguageModel(settings.load(LanguageModelRunConfig, path).model, tokens)
        else:
            model = LAS(settings.load(RunConfig, path).model, tokens)
    size = sum(value.numel() for value in model.parameters())
    print(f"{path.relative_to(ROOT)}: {size / 1e6:.1f} M parameters")
    assert all(value.is_meta for value in model.parameters())
    assert f"{size / 1e6:.1f}" == row[2]
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 120


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
