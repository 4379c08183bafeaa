"""The zeroth_korean recipe: Hangul from the published archive to WER and CER."""

import json

import pytest

from las.data.manifest import read_manifest

TREE = {  # set/script/speaker -> texts
    "train_data_01/003/104": ("동백꽃 삼 월", "지난해 월"),
    "train_data_01/003/105": ("지난해 삼 월",),
    "train_data_01/004/105": ("동백꽃 속으로",),
    "test_data_01/003/205": ("백화점과 영화관", "삼십 일 일"),
}


@pytest.fixture
def corpus(tmp_path, tools):
    root = tmp_path / "zeroth"
    for place, texts in TREE.items():
        _, script, speaker = place.split("/")
        lines = []
        for number, text in enumerate(texts):
            id = f"{speaker}_{script}_{number:04d}"
            tools.write_tone(root / place / f"{id}.flac", number)
            lines.append(f"{id} {text}\n")
        (root / place / f"{speaker}_{script}.trans.txt").write_text("".join(lines), encoding="utf-8")
    (root / "AUDIO_INFO").write_text("SPEAKERID|NAME|SEX|SCRIPTID|DATASET\n", encoding="utf-8")
    return root


@pytest.fixture
def prepare(tools):
    return tools.load_script("zeroth_korean")


def test_the_published_tree_becomes_manifests(prepare, corpus, tmp_path):
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 0
    sets = {name: read_manifest(tmp_path / f"out/{name}.jsonl") for name in ("train", "dev", "test")}
    assert [(one.id, one.speaker, one.text, one.seconds) for one in sets["train"]] == [
        ("105_003_0000", "105", "지난해 삼 월", 1.0),
        ("105_004_0000", "105", "동백꽃 속으로", 1.0),
    ]
    assert [one.id for one in sets["dev"]] == ["104_003_0000", "104_003_0001"]  # a whole speaker
    assert [one.text for one in sets["test"]] == ["백화점과 영화관", "삼십 일 일"]
    assert json.loads((tmp_path / "out/corpus.json").read_text(encoding="utf-8")) == {"dev_speakers": ["104"]}


def test_a_missing_recording_stops_it(prepare, corpus, tmp_path, capsys):
    (corpus / "test_data_01/003/205/205_003_0001.flac").unlink()
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 1
    assert "1 lines of .trans.txt without a recording: 205_003_0001; the copy is" in capsys.readouterr().err
    assert not (tmp_path / "out/train.jsonl").exists()


def test_from_the_archive_to_results(corpus, mirror, run_recipe, tools):
    address, folder = mirror
    tools.pack(folder / "40/zeroth_korean.tar.gz", corpus)
    status, output, said = run_recipe("zeroth_korean", PREPARE=f"--mirror {address}")
    assert status == 0, said
    assert (output / "data/download/zeroth_korean.tar.gz.sha256.json").exists()
    assert "/ N 5)" in (output / "RESULTS.md").read_text(encoding="utf-8")
    assert said.count("/ N 11)") == 1  # characters of test; spaces are none
