"""Every recipe holds what recipes hold; every config loads and builds its model, of the size its README says.

That run.sh goes from the published archive to a row of results is tested in tests/egs/, one file for each recipe.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

from las import config as settings
from las.model.las import LAS
from las.recipe import RunConfig

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
    config = settings.load(RunConfig, path)
    with torch.device("meta"):
        model = LAS(config.model, int(row[1].replace(",", "")))
    size = sum(value.numel() for value in model.parameters())
    print(f"{path.relative_to(ROOT)}: {size / 1e6:.1f} M parameters")
    assert all(value.is_meta for value in model.parameters())
    assert f"{size / 1e6:.1f}" == row[2]
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 120
