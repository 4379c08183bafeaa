"""Every block of README.md runs as it stands, one after another, in a folder with the files it speaks of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_are_targets_of_the_makefile():
    first = next(text for kind, text in BLOCKS if kind == "sh")
    targets = re.findall(r"^make (\S+)", first, re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_recipes_named_in_the_readme_can_be_run():
    recipes = re.findall(r"^egs/\S+/run\.sh", README, re.MULTILINE)
    assert recipes  # tests/test_recipes.py runs them
    assert all(os.access(ROOT / recipe, os.X_OK) for recipe in recipes)


@pytest.fixture
def folder(tmp_path, tools):
    """recording.wav meeting.m4a recordings/ corpus/: tones of a few letters, and their texts."""
    for place in ("recording.wav", "recordings/one.wav", "recordings/둘.wav", "recordings/three.wav"):
        tools.write_wav(tmp_path / place, tools.sing("ab c"))
    # the content decides what a file is, so a wav may stand in for the m4a
    (tmp_path / "meeting.m4a").write_bytes((tmp_path / "recording.wav").read_bytes())
    for number in range(12):
        text = tools.texts[number % len(tools.texts)]
        path = tools.write_wav(tmp_path / "corpus" / f"{number:02d}.wav", tools.sing(text, number))
        path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    return tmp_path


def test_every_other_block_runs_in_order(folder):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for kind, text in BLOCKS:
        if kind == "yaml":
            (folder / "conf.yaml").write_text(text, encoding="utf-8")
        elif kind == "python":
            subprocess.run([sys.executable, "-c", text], cwd=folder, env=environment, check=True)
        elif kind == "sh" and "git clone" not in text and "run.sh" not in text:
            quick = text.replace("las train conf.yaml", "las train conf.yaml train.epochs=1")  # not 40
            subprocess.run(["bash", "-euo", "pipefail", "-c", quick], cwd=folder, env=environment, check=True)
    assert (folder / "run/model/model.safetensors").exists()
    assert (folder / "hypotheses/valid.jsonl").exists()
    assert len(list((folder / "transcripts").iterdir())) == 3
