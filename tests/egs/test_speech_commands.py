"""The speech_commands recipe: lists name dev and test, the rest is train, noise is none of them."""

import pytest

from las.data.manifest import read_manifest

WORDS = ("bed", "go", "yes")


@pytest.fixture
def prepare(tools):
    return tools.load_script("speech_commands")


@pytest.fixture
def corpus(tmp_path, tools):
    root = tmp_path / "published tree"
    for number, word in enumerate(WORDS):
        for speaker in ("0a7c2a8d", "026290a7", "01bb6a2a", "022cd682"):
            tools.write_tone(root / word / f"{speaker}_nohash_0.wav", number, subtype="PCM_16")
    tools.write_tone(root / "_background_noise_/running_tap.wav", 9, 3.0, subtype="PCM_16")
    (root / "validation_list.txt").write_text("bed/026290a7_nohash_0.wav\n", encoding="utf-8")
    (root / "testing_list.txt").write_text("go/0a7c2a8d_nohash_0.wav\nyes/0a7c2a8d_nohash_0.wav\n", encoding="utf-8")
    return root


def test_lists_name_dev_and_test(prepare, corpus, tmp_path):
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 0
    sets = {name: read_manifest(tmp_path / f"out/{name}.jsonl") for name in ("train", "dev", "test")}
    assert [(one.id, one.text, one.speaker) for one in sets["dev"]] == [("bed/026290a7_nohash_0", "bed", "026290a7")]
    assert [one.text for one in sets["test"]] == ["go", "yes"]
    assert len(sets["train"]) == 9
    assert not any("noise" in one.audio for one in sets["train"])


def test_a_recording_that_a_list_names_is_missing(prepare, corpus, tmp_path, capsys):
    (corpus / "go/0a7c2a8d_nohash_0.wav").unlink()
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "1 lines of testing_list.txt without a recording: go/0a7c2a8d_nohash_0; the copy is not whole" in said


def test_without_its_lists_it_is_another_version(prepare, corpus, tmp_path, capsys):
    (corpus / "testing_list.txt").unlink()
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 1
    assert "testing_list.txt: cannot be read: No such file" in capsys.readouterr().err


def test_from_the_archive_to_results(corpus, mirror, run_recipe, tools):
    address, folder = mirror
    tools.pack(folder / "speech_commands_v0.02.tar.gz", corpus)
    status, output, said = run_recipe("speech_commands", PREPARE=f"--mirror {address}")
    assert status == 0, said
    assert "/ N 2)" in (output / "RESULTS.md").read_text(encoding="utf-8")
