"""The aishell recipe: archives inside the archive, words without spaces, errors in characters."""

import shutil
import subprocess

import pytest

from las.data.manifest import read_manifest

TREE = {  # set/speaker -> number of the utterance -> text
    "train/S0002": {122: "而 对 楼市 成交", 123: "成交 Ｔ 恤"},
    "train/S0003": {122: "楼市 对"},
    "dev/S0724": {121: "对 楼市"},
    "test/S0764": {121: "成交 而 对", 122: "楼市"},
}


@pytest.fixture
def prepare(tools):
    return tools.load_script("aishell")


@pytest.fixture
def published(tmp_path, tools):
    """data_aishell/ as it comes out of the archive: an archive for each speaker."""
    root = tmp_path / "published tree" / "data_aishell"
    lines = []
    for place, texts in TREE.items():
        speaker = place.split("/")[1]
        room = tmp_path / "speakers" / speaker
        for number, text in texts.items():
            id = f"BAC009{speaker}W{number:04d}"
            tools.write_tone(room / place / f"{id}.wav", number, subtype="PCM_16")
            lines.append(f"{id} {text}\n")
        tools.pack(root / f"wav/{speaker}.tar.gz", room)
    (root / "transcript").mkdir()
    (root / "transcript/aishell_transcript_v0.8.txt").write_text("".join(lines), encoding="utf-8")
    return root


@pytest.fixture
def unpacked(published):
    for archive in (published / "wav").glob("*.tar.gz"):
        subprocess.run(["tar", "-xzf", archive, "-C", published / "wav"], check=True)  # the archives stay beside
    return published


def test_unpacked_speakers_become_manifests(prepare, unpacked, tmp_path):
    assert prepare.main(["--corpus", str(unpacked), "--output", str(tmp_path / "out")]) == 0
    sets = {name: read_manifest(tmp_path / f"out/{name}.jsonl") for name in ("train", "dev", "test")}
    assert [(one.id, one.text, one.speaker) for one in sets["train"]] == [
        ("BAC009S0002W0122", "而对楼市成交", "S0002"),
        ("BAC009S0002W0123", "成交t恤", "S0002"),
        ("BAC009S0003W0122", "楼市对", "S0003"),
    ]
    assert [one.id for one in sets["dev"]] == ["BAC009S0724W0121"]
    assert [one.text for one in sets["test"]] == ["成交而对", "楼市"]


def test_recordings_without_a_text_are_counted_up_to_a_limit(prepare, unpacked, tmp_path, tools, capsys):
    listing = unpacked / "transcript/aishell_transcript_v0.8.txt"
    tools.write_tone(unpacked / "wav/train/S0002/BAC009S0002W0999.wav")
    assert prepare.main(["--corpus", str(unpacked), "--output", str(tmp_path / "out")]) == 1
    assert (
        "1 of 7 utterances left out, more than 1.0% (no text: 1 (first: BAC009S0002W0999))" in capsys.readouterr().err
    )
    lines = listing.read_text(encoding="utf-8")
    for number in range(100):
        tools.write_tone(unpacked / f"wav/train/S0002/BAC009S0002W1{number:03d}.wav", seconds=0.1)
        lines += f"BAC009S0002W1{number:03d} 对\n"
    listing.write_text(lines, encoding="utf-8")
    assert prepare.main(["--corpus", str(unpacked), "--output", str(tmp_path / "out")]) == 0
    assert "left out: no text: 1 (first: BAC009S0002W0999)" in capsys.readouterr().err


def test_a_missing_recording_stops_it(prepare, unpacked, tmp_path, capsys):
    (unpacked / "wav/dev/S0724/BAC009S0724W0121.wav").unlink()
    assert prepare.main(["--corpus", str(unpacked), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "1 lines of transcript/aishell_transcript_v0.8.txt without a recording: BAC009S0724W0121; the" in said


def test_missing_transcripts_stop_it(prepare, unpacked, tmp_path, capsys):
    shutil.rmtree(unpacked / "transcript")
    assert prepare.main(["--corpus", str(unpacked), "--output", str(tmp_path / "out")]) == 1
    assert "aishell_transcript_v0.8.txt: cannot be read: No such file" in capsys.readouterr().err


def test_recordings_outside_the_sets_stop_it(prepare, unpacked, tmp_path, capsys):
    (unpacked / "wav/dev").rename(unpacked / "wav/val")  # train/ is still there
    assert prepare.main(["--corpus", str(unpacked), "--output", str(tmp_path / "out")]) == 1
    assert "recordings that lie in none of train, dev, test" in capsys.readouterr().err


def test_from_the_archive_to_results(published, mirror, run_recipe, tools):
    address, folder = mirror
    tools.pack(folder / "33/data_aishell.tgz", published.parent)
    status, output, said = run_recipe("aishell", PREPARE=f"--mirror {address}")
    assert status == 0, said
    assert said.count("/ N 6)") == 1  # characters of test, on the line of `las evaluate`
    assert "| test | " in (output / "RESULTS.md").read_text(encoding="utf-8")
