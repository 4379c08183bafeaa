"""The librispeech recipe: seven archives in, four sets judged; the configs of Park et al. train without CTC."""

import json
import os
from pathlib import Path

import pytest

from las import config as settings
from las.data.manifest import read_manifest
from las.recipe.config import RunConfig
from las.train.optim import rate_at

SPEAKERS = {
    "train-clean-100": 103, "train-clean-360": 14, "train-other-500": 20,
    "dev-clean": 1272, "dev-other": 116, "test-clean": 1089, "test-other": 1688,
}  # fmt: skip


@pytest.fixture
def prepare(tools):
    return tools.load_script("librispeech")


@pytest.fixture
def corpora(tmp_path, tools):
    """A folder for each archive, with LibriSpeech/SUBSET/SPEAKER/7/ in it."""
    for subset, speaker in SPEAKERS.items():
        chapter = tmp_path / "corpora" / subset / "LibriSpeech" / subset / str(speaker) / "7"
        ids = [f"{speaker}-7-{number:04d}" for number in range(2)]
        for number, id in enumerate(ids):
            tools.write_tone(chapter / f"{id}.flac", number)
        text = "".join(f"{id} IT'S READ\n" for id in ids)
        (chapter / f"{speaker}-7.trans.txt").write_text(text, encoding="utf-8")
    return tmp_path / "corpora"


@pytest.fixture
def published(corpora, mirror, tools):
    address, folder = mirror
    for subset in SPEAKERS:
        tools.pack(folder / f"12/{subset}.tar.gz", corpora / subset)
    return address


def ids(path):
    return [utterance.id for utterance in read_manifest(path)]


def test_all_archives_are_fetched_and_the_training_subsets_joined(prepare, published, tmp_path):
    out = tmp_path / "out"
    assert prepare.main(["--output", str(out), "--mirror", published]) == 0
    assert ids(out / "train.jsonl") == ["103-7-0000", "103-7-0001", "14-7-0000", "14-7-0001", "20-7-0000", "20-7-0001"]
    for name in ("dev-clean", "dev-other", "test-clean", "test-other"):
        assert ids(out / f"{name}.jsonl") == [f"{SPEAKERS[name]}-7-0000", f"{SPEAKERS[name]}-7-0001"]
    assert read_manifest(out / "dev-clean.jsonl")[0].text == "it's read"
    facts = json.loads((out / "corpus.json").read_text(encoding="utf-8"))
    assert facts == {"train": ["train-clean-100", "train-clean-360", "train-other-500"]}


def test_a_hundred_hours_and_one_set_fetch_nothing_else(prepare, published, tmp_path):
    options = ["--mirror", published, "--train", "train-clean-100", "--sets", "dev-clean"]
    assert prepare.main(["--output", str(tmp_path / "out"), *options]) == 0
    fetched = sorted(path.name for path in (tmp_path / "out/download").glob("*.tar.gz"))
    assert fetched == ["dev-clean.tar.gz", "train-clean-100.tar.gz"]


def test_a_subset_that_is_not_published(prepare, alone, tmp_path, capsys):
    assert prepare.main(["--output", str(tmp_path / "out"), "--sets", "dev-dirty"]) == 1
    assert "no subset dev-dirty; there are train-clean-100, " in capsys.readouterr().err


def test_a_missing_recording_stops_it(prepare, corpora, tmp_path, capsys):
    place = corpora / "dev-clean/LibriSpeech"
    (place / "dev-clean/1272/7/1272-7-0001.flac").unlink()
    options = ["--corpus", str(place), "--train", "dev-clean", "--sets", "dev-clean"]
    assert prepare.main(["--output", str(tmp_path / "out"), *options]) == 1
    assert "1 lines of .trans.txt without a recording: 1272-7-0001; the copy is not whole" in capsys.readouterr().err


def test_nobody_is_trained_on_and_tested_with(prepare, corpora, tmp_path, capsys):
    place = corpora / "dev-clean"
    options = ["--corpus", str(place), "--train", "dev-clean", "--sets", "dev-clean"]
    assert prepare.main(["--output", str(tmp_path / "out"), *options]) == 1
    assert "training and dev-clean share 1 speakers (1272); choose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("conf", "ramp", "noise", "fall", "end"),
    [("las_4_1024", 500, 10_000, 20_000, 80_000), ("las_6_1280", 1_000, 20_000, 140_000, 320_000)],
)
def test_schedules_are_those_of_the_paper(conf, ramp, noise, fall, end):
    """Schedules B and L of Park et al. 2019: s_r, s_noise, s_i, s_f."""
    config = settings.load(RunConfig, Path(__file__).parents[2] / f"egs/librispeech/conf/{conf}.yaml")
    rates = [rate_at(update, end, config.train.optimizer) for update in (ramp // 2 - 1, ramp, fall - 1, fall + 99, end)]
    assert rates[:3] == pytest.approx([0.0005, 0.001, 0.001])
    assert 0.000_9 < rates[3] < 0.001
    assert rates[4] == pytest.approx(0.000_01, rel=0.001)
    assert (config.train.weight_noise_start, config.train.objective.smoothing_end) == (noise, fall)
    assert config.data.batch_utterances * config.train.accumulate == 512


@pytest.mark.skipif("LAS_CORPORA" not in os.environ, reason="wants $LAS_CORPORA/LibriSpeech")
def test_the_real_subsets(prepare, tmp_path):
    options = ["--train", "train-clean-100", "--sets", "dev-clean"]
    assert prepare.main(["--output", str(tmp_path), *options]) == 0
    assert len(ids(tmp_path / "train.jsonl")) == 329
    assert len(ids(tmp_path / "dev-clean.jsonl")) == 648


@pytest.mark.parametrize("conf", ["train", "las_4_1024"])
def test_from_the_archives_to_results(published, run_recipe, conf):
    status, output, said = run_recipe("librispeech", CONF=conf, PREPARE=f"--mirror {published}")
    assert status == 0, said
    results = (output / "RESULTS.md").read_text(encoding="utf-8")
    for name in ("dev-clean", "dev-other", "test-clean", "test-other"):
        assert f"| {name} | " in results
    assert results.count("/ N 4)") == 4
    assert ("CTC" in results) == (conf == "train")
