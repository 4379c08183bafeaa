"""The commonvoice recipe: an archive fetched by hand, any language, clips that the tables name."""

import json
import shutil

import pytest

from las.data.manifest import read_manifest

HEAD = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\tsegment\n"
SENTENCES = {
    "train": ("안녕하세요.", '그는 "네" 하고 말했다.', "말했다, 그는!"),
    "dev": ("네, 안녕하세요.",),
    "test": ("그는 말했다.", "네"),
}


@pytest.fixture
def prepare(tools):
    return tools.load_script("commonvoice")


@pytest.fixture
def release(tmp_path, tools):
    return write_language(tmp_path / "fetched" / "cv-corpus-22.0-2025-06-20", "ko", tools)


def write_language(root, code, tools):
    number = 0
    for name, sentences in SENTENCES.items():
        rows = []
        for sentence in sentences:
            clip = f"common_voice_{code}_{36_880_067 + number}.mp3"
            tools.write_tone(root / code / "clips" / clip, number, rate=32_000)
            rows.append(f"speaker{number}\t{clip}\t{sentence}\t2\t0\t\t\t\t{code}\t\n")
            number += 1
        (root / code / f"{name}.tsv").write_text(HEAD + "".join(rows), encoding="utf-8")
    return root


def test_tables_become_manifests(prepare, release, tmp_path):
    assert prepare.main(["--corpus", str(release), "--output", str(tmp_path / "out")]) == 0
    train = read_manifest(tmp_path / "out/train.jsonl")
    assert [(one.id, one.text, one.speaker) for one in train] == [
        ("common_voice_ko_36880067", "안녕하세요", "speaker0"),
        ("common_voice_ko_36880068", "그는 네 하고 말했다", "speaker1"),
        ("common_voice_ko_36880069", "말했다 그는", "speaker2"),
    ]
    assert [one.text for one in read_manifest(tmp_path / "out/test.jsonl")] == ["그는 말했다", "네"]
    facts = json.loads((tmp_path / "out/corpus.json").read_text(encoding="utf-8"))
    assert facts == {"release": "cv-corpus-22.0-2025-06-20", "language": "ko"}


def test_the_language_is_chosen(prepare, release, tools, tmp_path, capsys):
    write_language(release, "cy", tools)
    assert prepare.main(["--corpus", str(release), "--output", str(tmp_path / "out")]) == 1
    assert "wanted one folder with train.tsv, found " in capsys.readouterr().err
    assert prepare.main(["--corpus", str(release), "--output", str(tmp_path / "out"), "--language", "cy"]) == 0
    assert read_manifest(tmp_path / "out/dev.jsonl")[0].id == "common_voice_cy_36880070"
    assert prepare.main(["--corpus", str(release), "--output", str(tmp_path / "out"), "--language", "de"]) == 1
    assert "wanted one folder with train.tsv called de, found " in capsys.readouterr().err


def test_a_missing_clip_stops_it(prepare, release, tmp_path, capsys):
    (release / "ko/clips/common_voice_ko_36880070.mp3").unlink()
    assert prepare.main(["--corpus", str(release), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "1 of 1 utterances left out, more than 1.0% (cannot be used: 1 (first: common_voice_ko_36880070: " in said


def test_one_clip_in_many_may_be_missing_and_is_told_of(prepare, release, tmp_path, capsys):
    clips = release / "ko/clips"
    rows = []
    for number in range(120):
        shutil.copy(clips / "common_voice_ko_36880067.mp3", clips / f"{number}.mp3")
        rows.append(f"s\t{number}.mp3\t네\t2\t0\t\t\t\tko\t\n")
    (release / "ko/dev.tsv").write_text(HEAD + "".join(rows), encoding="utf-8")
    (clips / "7.mp3").unlink()
    assert prepare.main(["--corpus", str(release), "--output", str(tmp_path / "out")]) == 0
    assert "dev: left out: cannot be used: 1 (first: 7: " in capsys.readouterr().err
    assert len(read_manifest(tmp_path / "out/dev.jsonl")) == 119


def test_without_the_archive_it_says_where_to_fetch_it(prepare, alone, tmp_path, capsys):
    assert prepare.main(["--output", str(tmp_path / "out")]) == 1
    assert "fetch a language at https://commonvoice.mozilla.org/datasets, then name" in capsys.readouterr().err


def test_from_the_fetched_archive_to_results(release, run_recipe, tools, tmp_path):
    archive = tools.pack(tmp_path / "cv-corpus-22.0-2025-06-20-ko.tar.gz", release.parent)
    for _ in range(2):  # the second time it is unpacked already
        shutil.rmtree(tmp_path / "out put/run", ignore_errors=True)
        status, output, said = run_recipe("commonvoice", PREPARE=f"--archive {archive.name} --language ko")
        assert status == 0, said
    assert "/ N 3)" in (output / "RESULTS.md").read_text(encoding="utf-8")
    assert [path.name for path in (output / "data/corpus").iterdir()] == ["cv-corpus-22.0-2025-06-20-ko"]
    assert "CER " in said
