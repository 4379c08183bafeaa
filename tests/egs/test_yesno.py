"""The yesno recipe: every other recording is test, the file name is the text."""

import fcntl
import importlib.util
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from las.data import download
from las.data.manifest import read_manifest
from las.errors import UserError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "egs/yesno/prepare.py"


def load_script():
    spec = importlib.util.spec_from_file_location("egs_yesno_prepare", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["egs_yesno_prepare"] = module
    spec.loader.exec_module(module)
    return module


prepare = load_script()


@pytest.fixture
def yesno(tmp_path):
    folder = tmp_path / "corpora" / "waves_yesno"
    folder.mkdir(parents=True)
    for number, name in enumerate(itertools.islice(itertools.product("01", repeat=8), 60)):
        wave = 0.1 * np.sin(np.arange(800 + number))
        soundfile.write(folder / ("_".join(name) + ".wav"), wave, 8000, subtype="PCM_16")
    (folder / "README").write_text("not a recording", encoding="utf-8")
    return folder


def ids(path):
    return [utterance.id for utterance in read_manifest(path)]


def test_every_other_recording_is_test(yesno, tmp_path):
    assert prepare.main(["--corpus", str(yesno), "--output", str(tmp_path)]) == 0
    names = sorted(path.stem for path in yesno.glob("*.wav"))
    assert ids(tmp_path / "train.jsonl") == names[::2]
    assert ids(tmp_path / "test.jsonl") == names[1::2]


def test_settings_are_chosen_on_training_recordings(yesno, tmp_path):
    prepare.main(["--corpus", str(yesno), "--output", str(tmp_path)])
    fit, dev = ids(tmp_path / "fit.jsonl"), ids(tmp_path / "dev.jsonl")
    assert (len(fit), len(dev)) == (24, 6)
    assert sorted(fit + dev) == ids(tmp_path / "train.jsonl")


def test_the_file_name_is_the_text(yesno, tmp_path):
    prepare.main(["--corpus", str(yesno), "--output", str(tmp_path)])
    last = read_manifest(tmp_path / "test.jsonl")[-1]
    assert last.id == "0_0_1_1_1_0_1_1"
    assert last.text == "NO NO YES YES YES NO YES YES"
    assert last.seconds == (800 + 59) / 8000
    assert Path(last.audio) == yesno / "0_0_1_1_1_0_1_1.wav"


def test_found_in_las_corpora_then_downloaded(yesno, tmp_path, monkeypatch):
    names = sorted(path.stem for path in yesno.glob("*.wav"))
    monkeypatch.setenv("LAS_CORPORA", str(yesno.parent))
    assert prepare.main(["--output", str(tmp_path / "shared")]) == 0
    assert prepare.main(["--corpus", str(yesno.parent), "--output", str(tmp_path / "given")]) == 0
    monkeypatch.delenv("LAS_CORPORA")
    calls = []
    monkeypatch.setattr(download, "fetch", lambda url, folder: calls.append(url) or folder / "waves_yesno.tar.gz")
    monkeypatch.setattr(download, "unpack", lambda archive, folder: shutil.copytree(yesno, folder / "waves_yesno"))
    for _ in range(2):
        assert prepare.main(["--output", str(tmp_path / "fetched")]) == 0
    assert calls == ["https://www.openslr.org/resources/1/waves_yesno.tar.gz"]  # the second time it was there
    for output in ("shared", "given", "fetched"):
        assert ids(tmp_path / output / "train.jsonl") == names[::2]


def test_a_missing_recording_is_counted(yesno, tmp_path, capsys):
    (yesno / "0_0_0_0_0_0_0_0.wav").unlink()
    with pytest.raises(UserError, match=r"59 recordings named like 0_1_1_0_0_1_1_0\.wav found, waves_yesno has 60"):
        prepare.recordings(yesno)
    assert prepare.main(["--corpus", str(tmp_path / "nowhere"), "--output", str(tmp_path)]) == 1
    assert "nowhere: 0 recordings named like" in capsys.readouterr().err


def test_from_the_archive_to_results(yesno, mirror, run_recipe, tools):
    address, folder = mirror
    for path in yesno.glob("*.wav"):  # two seconds: what eight words need in frames
        tools.write_tone(path, int(path.stem[-1]), 2.0, 8000)
    tools.pack(folder / "1/waves_yesno.tar.gz", yesno.parent)
    status, output, said = run_recipe("yesno", "model.listener.convolutions=0", PREPARE=f"--mirror {address}")
    assert status == 0, said
    results = (output / "RESULTS.md").read_text(encoding="utf-8")
    assert "| test | " in results
    assert "/ N 240)" in results
    assert (output / "run/model/model.safetensors").exists()
    rows = len(results.splitlines())
    weights = (output / "run/model/model.safetensors").stat().st_mtime_ns
    status, _, said = run_recipe("yesno", "model.listener.convolutions=0", STAGE="4")  # again: nothing is left to train
    assert status == 0, said
    assert len((output / "RESULTS.md").read_text(encoding="utf-8").splitlines()) == rows + 1
    assert (output / "run/model/model.safetensors").stat().st_mtime_ns == weights
    status, _, said = run_recipe("yesno", "model.listener.convolutions=0", "train.optimizer.rate=0.5", STAGE="4")
    assert status == 1
    assert "train.optimizer.rate" in said


def test_run_sh_says_where_las_is_not_installed(tmp_path):
    found = subprocess.run(
        ["/bin/bash", ROOT / "egs/yesno/run.sh", tmp_path],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith("las is not installed here: activate the environment that it is in")
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_sh_is_refused(run_recipe, tmp_path):
    (tmp_path / "out put").mkdir()
    with open(tmp_path / "out put/.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, output, said = run_recipe("yesno")
    assert status == 1
    assert said == f"{output}: another run.sh is writing there; wait until it is done, or name another OUTPUT\n"
    assert not (output / "data").exists()
