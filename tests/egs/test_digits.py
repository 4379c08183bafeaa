"""The digits recipe: its split, its fixed test list, its audio and word times, and where it finds its corpus."""

import collections
import hashlib
import importlib.util
import io
import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from las.audio import load
from las.data import download
from las.data.manifest import read_manifest
from las.errors import UserError

CORPORA = os.environ.get("LAS_CORPORA")  # of this machine; tests do not see it otherwise
RECIPE = Path(__file__).parents[2] / "egs/digits"


def load_script(name):
    spec = importlib.util.spec_from_file_location(f"egs_digits_{name}", RECIPE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"egs_digits_{name}"] = module
    spec.loader.exec_module(module)
    return module


prepare, word_times = load_script("prepare"), load_script("word_times")


@pytest.fixture(scope="module")
def fsdd(tmp_path_factory):
    """All 3,000 files as short bursts of noise, every one different."""
    folder = tmp_path_factory.mktemp("fsdd") / "recordings"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for digit, speaker, index in itertools.product(range(10), prepare.SPEAKERS, range(50)):
        wave = generator.uniform(-0.3, 0.3, 300 + 20 * digit + index)
        file = io.BytesIO()  # written to disk at once: much faster for 3,000 of them
        soundfile.write(file, wave, 8000, subtype="PCM_16", format="WAV")
        (folder / f"{digit}_{speaker}_{index}.wav").write_bytes(file.getvalue())
    return folder.parent


def planned(corpus, *arguments):
    return prepare.plan(corpus, prepare.options().parse_args(arguments))


@pytest.fixture
def corpus(fsdd):
    return prepare.recordings(fsdd)


def files(strings):
    return collections.Counter((clip.digit, clip.speaker, clip.index) for string in strings for clip in string.clips)


def test_each_test_recording_comes_exactly_four_times(corpus):
    test = planned(corpus)["test"]
    counts = files(test)
    assert set(counts) == set(itertools.product(range(10), prepare.SPEAKERS, range(5)))
    assert set(counts.values()) == {4}
    assert sum(len(string.text.split()) for string in test) == 1200


def test_no_test_or_dev_recording_is_trained_on(corpus):
    split = planned(corpus)
    assert {index for _, _, index in files(split["train"])} == set(range(5, 45))
    assert {index for _, _, index in files(split["dev"])} == set(range(45, 50))
    split = planned(corpus, "--train-all")
    assert {index for _, _, index in files(split["train"])} == set(range(5, 50))


def test_a_held_out_speaker_is_tested_and_nothing_else(corpus):
    split = planned(corpus, "--held-out", "theo")
    counts = files(split["test"])
    assert set(counts) == set(itertools.product(range(10), ["theo"], range(50)))
    assert set(counts.values()) == {2}
    others = set(prepare.SPEAKERS) - {"theo"}
    assert {speaker for _, speaker, _ in files(split["train"])} == others
    assert {speaker for _, speaker, _ in files(split["dev"])} == others
    assert {index for _, _, index in files(split["train"])} == set(range(45))


def test_strings_are_of_one_speaker_with_pauses_in_range_and_longer_in_training(corpus):
    split = planned(corpus, "--synthetic", "200", "--longest", "12")
    strings = [string for part in split.values() for string in part]
    assert len({string.id for string in strings}) == len(strings)
    for name, longest in (("train", 12), ("dev", 7), ("test", 7)):
        assert {len(string.clips) for string in split[name]} == set(range(1, longest + 1))
    for string in strings:
        assert len({clip.speaker for clip in string.clips}) == 1
        assert len(set(string.clips)) == len(string.clips) or string.id.startswith(("train", "synthetic"))
        assert len(string.gaps) == len(string.clips) + 1
        assert all(0.05 <= gap <= 0.5 for gap in string.gaps)


@pytest.mark.parametrize("longest", ["0", "51"])
def test_strings_of_no_words_and_of_more_than_there_are(longest, tmp_path, capsys):
    assert prepare.main(["--output", str(tmp_path), "--offline", "--longest", longest]) == 1
    assert f"--longest {longest}: a training string has 1 to 50 words at most" in capsys.readouterr().err


def test_training_digits_and_speakers_are_balanced(corpus):
    train = planned(corpus, "--train-strings", "3000")["train"]
    assert set(collections.Counter(string.clips[0].speaker for string in train).values()) == {500}
    digits = collections.Counter(clip.digit for string in train for clip in string.clips)
    assert max(digits.values()) < 1.05 * min(digits.values())
    recordings = files(train)
    assert max(recordings.values()) - min(recordings.values()) <= 2


def test_the_test_list_is_the_same_whatever_is_asked_for(corpus):
    plain = planned(corpus)
    other = planned(corpus, "--seed", "7", "--train-strings", "5", "--synthetic", "3", "--level", "0", "--train-all")
    assert plain["test"] == other["test"]
    assert plain["dev"] == other["dev"]
    assert plain["train"][:5] != other["train"][:5]
    assert all(string.noise is None and string.gain == 0 for string in plain["test"] + plain["dev"])


def test_the_test_list_has_not_changed(corpus):
    """Results are compared across versions of the recipe: a change here is a new test set, to be said in RESULTS.md."""
    rows = [
        (s.id, [(c.digit, c.index) for c in s.clips], [round(gap * prepare.RATE) for gap in s.gaps])
        for s in planned(corpus)["test"]
    ]
    assert len(rows) == 320
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == "2ee21cd0a19fcad2"


@pytest.fixture(scope="module")
def prepared(fsdd, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared 한글")
    assert prepare.main(["--corpus", str(fsdd), "--output", str(output), "--train-strings", "60"]) == 0
    return output


def test_manifests_hold_texts_seconds_and_speakers(prepared):
    for split, strings in {"train": 60, "dev": 153, "test": 320}.items():
        utterances = read_manifest(prepared / f"{split}.jsonl")
        assert len(utterances) == strings
        for utterance in utterances:
            info = soundfile.info(utterance.audio)
            assert (info.samplerate, info.channels, info.subtype) == (8000, 1, "PCM_16")
            assert utterance.seconds == info.frames / 8000
            assert utterance.speaker in prepare.SPEAKERS
            assert set(utterance.text.split()) <= set(prepare.WORDS)
    facts = json.loads((prepared / "corpus.json").read_text(encoding="utf-8"))
    assert facts["source"] == "FSDD"
    assert facts["test"]["words"] == 1200


def test_word_times_cut_the_very_recordings_out_of_the_test_audio(prepared, corpus):
    times = [json.loads(line) for line in (prepared / "boundaries.jsonl").read_text(encoding="utf-8").splitlines()]
    words = {record["id"]: record["words"] for record in times}
    audio = {one.id: one for split in ("train", "dev", "test") for one in read_manifest(prepared / f"{split}.jsonl")}
    assert set(words) == set(audio)
    for string in planned(corpus)["test"][:40]:
        wave = load(audio[string.id].audio, 8000).numpy()
        for clip, word in zip(string.clips, words[string.id], strict=True):
            start, end = round(word["start"] * 8000), round(word["end"] * 8000)
            assert word["word"] == prepare.WORDS[clip.digit]
            assert np.array_equal(wave[start:end], corpus.wave(clip))
            wave[start:end] = 0
        assert not wave.any()  # the test list is plain: digital silence between the recordings


def test_word_times_are_held_against_the_truth(prepared, tmp_path, capsys):
    for name in ("boundaries.jsonl", "test.jsonl"):
        some = (prepared / name).read_text(encoding="utf-8").splitlines()
        some = [line for line in some if json.loads(line)["id"].startswith("test")][:3]
        (tmp_path / name).write_text("\n".join(some) + "\n", encoding="utf-8")
    (tmp_path / "audio").symlink_to(prepared / "audio")
    assert word_times.main(["digits", "--data", str(tmp_path), "--noise", "40"]) == 0
    words = sum(len(json.loads(line)["text"].split()) for line in (tmp_path / "test.jsonl").read_text().splitlines())
    assert capsys.readouterr().out.startswith(f"{words} words said, ")
    assert list(word_times.report(np.zeros((0, 2)), 5)) == ["5 words said, 0 timed"]
    errors = np.array([(0.01, -0.06), (-0.05, 0.02), (0.0, 0.2), (0.12, 0.0)])
    assert list(word_times.report(errors, 5)) == [
        "5 words said, 4 timed",
        "start: 45 ms off in the mean, 75.0% within 50 ms, 75.0% within 100 ms",
        "end: 70 ms off in the mean, 50.0% within 50 ms, 75.0% within 100 ms",
        "both: 25.0% within 50 ms",
    ]


def test_two_runs_write_the_same_bytes_and_leave_nothing_else(prepared, fsdd, tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "stale.flac").write_bytes(b"")
    assert prepare.main(["--corpus", str(fsdd), "--output", str(tmp_path), "--train-strings", "60"]) == 0
    first = {path.relative_to(prepared): path.read_bytes() for path in prepared.rglob("*") if path.is_file()}
    second = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert first == second


def test_training_pauses_hold_noise_at_the_recordings_own_floor():
    generator = np.random.default_rng(0)
    wave = np.concatenate([0.5 * generator.standard_normal(2000), 0.001 * generator.standard_normal(600)])
    noise = prepare.pause(80_000, wave.astype(np.float32), 0.0, generator)
    assert noise.shape == (80_000,)
    assert noise.std() == pytest.approx(0.001, rel=0.25)
    assert prepare.pause(80_000, wave, 20.0, generator).std() == pytest.approx(10 * noise.std(), rel=0.05)
    assert not prepare.pause(100, wave, None, generator).any()


def test_half_of_the_training_strings_have_noise_and_levels_differ(corpus):
    train = planned(corpus, "--train-strings", "1000")["train"]
    assert 400 < sum(string.noise is not None for string in train) < 600
    gains = [string.gain for string in train]
    assert -10 <= min(gains) < -9
    assert 9 < max(gains) <= 10
    louder = prepare.String("x", train[0].clips, train[0].gaps, None, gain=40.0)
    samples, _ = prepare.render(louder, corpus)
    assert np.abs(samples.astype(int)).max() == pytest.approx(0.99 * 32768, abs=1)  # never clipped


def test_synthetic_training_strings_are_joined_or_said_in_one_breath(corpus, monkeypatch):
    pytest.importorskip("espeakng_loader", reason="pip install las[demo]")
    strings = [string for string in planned(corpus, "--synthetic", "32")["train"] if string.id.startswith("synthetic")]
    assert len(strings) == 32
    assert sum(string.rate is not None for string in strings) == 16
    for string in (strings[0], strings[16]):
        samples, spans = prepare.render(string, corpus)
        assert len(spans) == (len(string.clips) if string.rate is None else 0)
        assert len(samples) > 8000 * (0.1 + 0.12 * len(string.clips))
        assert np.array_equal(samples, prepare.render(string, corpus)[0])


def tone(text, voice, rate, pitch):
    """Instead of a voice: a fiftieth of a second per letter."""
    return torch.sin(torch.arange(400 * len(text)) / (2 + pitch / 50)), 8000


def test_without_network_synthetic_voices_take_over_and_say_so(tmp_path, monkeypatch, capsys):
    def no_network(url, folder):
        raise UserError(f"{url}: no network")

    monkeypatch.delenv("LAS_CORPORA", raising=False)
    monkeypatch.setattr(download, "fetch", no_network)
    monkeypatch.setattr(prepare, "speak", tone)
    prepare.say.cache_clear()
    assert prepare.main(["--output", str(tmp_path), "--train-strings", "24"]) == 0
    prepare.say.cache_clear()
    assert "no network): SYNTHETIC voices take its place" in capsys.readouterr().err
    facts = json.loads((tmp_path / "corpus.json").read_text(encoding="utf-8"))
    assert facts["source"] == "synthetic"
    assert facts["test"]["words"] == 1200
    assert len(facts["speakers"]) == 12
    assert {one.speaker for one in read_manifest(tmp_path / "train.jsonl")} == set(facts["speakers"])


def test_offline_asks_no_network(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LAS_CORPORA", raising=False)
    monkeypatch.setattr(download, "fetch", None)
    assert prepare.find_corpus(None, tmp_path, offline=True).source == "synthetic"
    assert "--offline was given" in capsys.readouterr().err


def test_a_synthetic_digit_is_trimmed_and_repeatable():
    pytest.importorskip("espeakng_loader", reason="pip install las[demo]")
    clip = prepare.Clip(7, "en-gb-scotland+m4", 12)
    wave = prepare.say(clip)
    assert 0.15 < len(wave) / 8000 < 0.9
    assert np.abs(wave[[0, -1]]).min() > 0.01 * np.abs(wave).max()
    assert np.array_equal(wave, prepare.say.__wrapped__(clip))
    assert len(wave) != len(prepare.say(prepare.Clip(7, "en-gb-scotland+m4", 13)))


def test_the_corpus_is_looked_for_in_las_corpora_then_downloaded(fsdd, tmp_path, monkeypatch):
    monkeypatch.setenv("LAS_CORPORA", str(tmp_path))
    (tmp_path / "fsdd").symlink_to(fsdd)
    assert prepare.find_corpus(None, tmp_path, offline=False).place == str(tmp_path / "fsdd" / "recordings")
    monkeypatch.delenv("LAS_CORPORA")
    calls = []
    monkeypatch.setattr(download, "fetch", lambda url, folder: calls.append(url) or folder / "archive.tar.gz")

    def unpack(archive, folder):
        os.makedirs(folder)
        (folder / "free-spoken-digit-dataset-1.0.10").symlink_to(fsdd)
        return folder

    monkeypatch.setattr(download, "unpack", unpack)
    for _ in range(2):
        found = prepare.find_corpus(None, tmp_path / "out", offline=False)
        assert found.place == str(tmp_path / "out/corpus/fsdd/free-spoken-digit-dataset-1.0.10/recordings")
    assert calls == [f"{prepare.MIRROR}/v1.0.10.tar.gz"]  # the second time it was there


def test_a_missing_recording_is_named(fsdd, tmp_path):
    for digit, index in itertools.product(range(10), range(50)):
        if (digit, index) != (7, 31):
            (tmp_path / f"{digit}_george_{index}.wav").symlink_to(fsdd / f"recordings/{digit}_george_{index}.wav")
    with pytest.raises(UserError, match=r"499 of FSDD's 3000 recordings found, 0_jackson_0\.wav is missing"):
        prepare.recordings(tmp_path)


def test_errors_are_one_line_and_exit_1(fsdd, tmp_path, capsys):
    assert prepare.main(["--corpus", str(tmp_path / "nowhere"), "--output", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nowhere: 0 of FSDD's 3000 recordings found, 0_george_0.wav is missing" in error
    assert prepare.main(["--corpus", str(fsdd), "--output", str(tmp_path), "--held-out", "bob"]) == 1
    assert "--held-out bob: no such speaker; there are george, jackson" in capsys.readouterr().err


@pytest.mark.skipif(CORPORA is None, reason="wants $LAS_CORPORA/fsdd")
def test_the_real_corpus(tmp_path):
    corpus = ["--corpus", f"{CORPORA}/fsdd"]
    assert prepare.main([*corpus, "--output", str(tmp_path), "--train-strings", "12"]) == 0
    facts = json.loads((tmp_path / "corpus.json").read_text(encoding="utf-8"))
    assert facts["source"] == "FSDD"
    assert facts["test"] == {"strings": 320, "words": 1200, "seconds": 854.3}


def test_from_the_archive_to_results(fsdd, tmp_path, mirror, run_recipe, tools):
    address, folder = mirror
    shutil.copytree(fsdd, tmp_path / "unpacked" / prepare.UNPACKED)
    tools.pack(folder / "v1.0.10.tar.gz", tmp_path / "unpacked")
    words = ("data.batch_utterances=64", "model.listener.reduce=[1]")
    status, output, said = run_recipe("digits", *words, PREPARE=f"--train-strings 40 --mirror {address}")
    assert status == 0, said
    results = (output / "RESULTS.md").read_text(encoding="utf-8")
    assert "| test | " in results
    assert "/ N 1200)" in results
