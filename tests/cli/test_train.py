from __future__ import annotations

import re
import sys

import pytest


def test_every_key_is_printed(las):
    status, out, _ = las("train", "--keys")
    assert status == 0
    lines = out.splitlines()
    assert "train.epochs=40\tint\tpasses over the training data" in lines
    assert "model.listener.reduce=[1,2,2]\ttuple[int, ...]\tframes that each layer reads at once, bottom first" in lines
    assert all(re.fullmatch(r"[\w.]+=\S*\t[\w\[\], .|]+\t\S.*", line) for line in lines)


def test_train_from_a_file_and_words(las, run_config, tmp_path, monkeypatch):
    from las.config import to_yaml

    for name in ("tensorboard", "torch.utils.tensorboard", "matplotlib", "matplotlib.figure", "av"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "설정.yaml").write_text(to_yaml(run_config()), encoding="utf-8")
    run = tmp_path / "실험" / "첫째"
    status, out, err = las("train", tmp_path / "설정.yaml", "train.epochs=2", "-o", run)
    assert status == 0
    assert out == f"{run}/model\n"
    lines = err.splitlines()
    assert lines[0] == "las: not installed, so left out: av, tensorboard, matplotlib"
    assert re.fullmatch(r"epoch 1 update 3: loss \d\.\d{4} WER \d+\.\d\d% \| .*", lines[1])
    assert re.fullmatch(r"epoch 2 update 6: .*", lines[2])
    assert "`las train " in (run / "model/README.md").read_text(encoding="utf-8")
    assert las("train", "-o", run, "--resume")[:2] == (0, f"{run}/model\n")  # its own config is the default
    for words, message in (
        ([], "holds a run; continue it with --resume, or name another folder"),
        (["--resume", "train.epochs=3"], "train.epochs differs from the run's config.yaml; a run is resumed as it was"),
    ):
        status, out, err = las("train", tmp_path / "설정.yaml", "train.epochs=2", *words, "-o", run)
        assert (status, out) == (1, "")
        assert err.splitlines()[1].startswith(f"las: {run}: {message}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.epoch=3"], "'train.epoch=3': unknown key 'train.epoch'; the nearest known key is 'train.epochs'"),
        (["nowhere.yaml"], "nowhere.yaml: no such config file"),
        (["data.train=x"], "data.valid is not set: give it in the config or as data.valid=PATH"),
        (["--resume"], "run/config.yaml: no such config file"),
    ],
)
def test_training_that_cannot_start(complaint, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert complaint("train", *words, "-o", "run").startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_cannot_be_made(complaint, run_config, tmp_path):
    from las.config import to_yaml

    (tmp_path / "c.yaml").write_text(to_yaml(run_config()))
    (tmp_path / "file").write_text("in the way")
    assert (
        complaint("train", tmp_path / "c.yaml", "-o", tmp_path / "file/run") == f"{tmp_path}/file/run: Not a directory"
    )


def test_plan_with_and_without_data(las, complaint, run_config, tmp_path):
    from las.config import to_yaml

    (tmp_path / "c.yaml").write_text(to_yaml(run_config()), encoding="utf-8")
    status, out, err = las("plan", tmp_path / "c.yaml", "train.epochs=2", "--try")
    assert (status, err) == (0, "")
    assert re.search(r"^updates +about 3 an epoch, 6 in all$", out, re.MULTILINE)
    assert re.search(r"^tried on cpu: .*\nso the run takes about 0 min, ", out, re.MULTILINE)
    status, out, _ = las("plan")  # of the defaults
    assert status == 0
    assert "left out          data.train '' is not there: hours, updates and the largest batch" in out
    assert las("plan", "a.yaml", "b.yaml")[0] == 2
    assert complaint("plan", "train.epoch=3").startswith("'train.epoch=3': unknown key")
