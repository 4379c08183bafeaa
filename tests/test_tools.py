"""Tools that write or count what cannot be had again."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import torch

from las.checkpoint import read_model
from las.transcribe.fitted import FILE


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_a_model_is_released_in_its_own_place(trained, random_model, tmp_path):
    """With what lies beside it; the language model is any model here."""
    release_model = load_tool("release_model")
    folder = tmp_path / "model"
    shutil.copytree(trained / "model", folder)
    shutil.copytree(random_model, folder / "language_model")
    calibration = (folder / FILE).read_bytes()
    before = read_model(folder).weights
    release_model.release(folder, folder, torch.int8)
    assert (folder / FILE).read_bytes() == calibration
    assert (folder / "language_model/README.md").read_text(encoding="utf-8") == "# random\n"
    after = read_model(folder).weights
    assert before.keys() == after.keys()
    assert all((before[name] - after[name]).abs().max() < 0.02 * before[name].abs().max() + 1e-6 for name in before)


def test_silence_has_no_column_in_a_comparison_by_length(tmp_path):
    compare = load_tool("compare")
    (tmp_path / "joint").mkdir()
    records = [{"reference": "", "text": "uh"}, {"reference": "a b", "text": "a c"}]
    (tmp_path / "joint/set.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    run = compare.Run("one", [], 0, tmp_path, tmp_path / "conf.yaml", ["set=x"], {"joint": []})
    assert compare.table_by_length([run], {"one": []}, "set", "joint").splitlines()[0] == "| set, joint: words | 2 |"
    assert "50.00%" in compare.table_by_length([run], {"one": []}, "set", "joint")
