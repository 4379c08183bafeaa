from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from las.data.manifest import Utterance, read_manifest, write_manifest
from las.recipe import verdicts
from las.transcribe.verdict import Evidence
from las.transcribe.verdict_fit import Case


def test_evaluate_sets_and_score_its_hypotheses(las, random_model, corpus, tmp_path):
    sets = (f"조각={corpus}/shards/valid", corpus / "valid.jsonl", f"train={corpus}/train.jsonl")
    words = ("--model", random_model, "-o", tmp_path / "hypotheses", "search.beam=1")
    status, out, err = las("evaluate", *sets, *words)
    assert (status, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines] == ["조각", "valid", "train"]
    assert lines[0][1] == lines[1][1]
    for name, line in zip(("조각", "valid", "train"), lines, strict=True):
        reference = corpus / f"{'train' if name == 'train' else 'valid'}.jsonl"
        status, out, _ = las("score", reference, tmp_path / "hypotheses" / f"{name}.jsonl")
        assert status == 0
        assert out.splitlines()[0].startswith(line[1].replace("WER", "WER:"))
        assert out.splitlines()[1].startswith(line[3].replace("CER", "CER:"))
    report = json.loads((tmp_path / "hypotheses/report.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in report["sets"]] == ["조각", "valid", "train"]
    page = (tmp_path / "hypotheses/report.html").read_text(encoding="utf-8")
    assert page.count("data:audio/flac;base64,") == 8  # from the shards
    assert page.count("data:audio/wav;base64,") == 16
    assert page.count("data:image/png;base64,") == 24


def test_shards_at_an_address_are_a_set_like_any_other(las, complaint, random_model, corpus, tmp_path, shards_address):
    words = ("--model", random_model, "search.beam=1")
    remote, local = f"{shards_address}/valid", corpus / "shards/valid"
    found = las("evaluate", remote, f"이름={remote}/", *words, "-o", tmp_path / "remote")
    assert found[0] == 0, found[2]
    wanted = las("evaluate", local, f"이름={local}", *words, "-o", tmp_path / "local")[1]

    def scores(out):
        return [line.split("\t")[:4] for line in out.splitlines()]

    assert [line[0] for line in scores(found[1])] == ["valid", "이름"]
    assert scores(found[1]) == scores(wanted)
    page = (tmp_path / "remote/report.html").read_text(encoding="utf-8")
    assert page.count("data:audio/flac;base64,") == 16
    words = ("--model", random_model, "--hypotheses", "2", "--vary", "length_exponent")
    assert las("tune", remote, *words) == las("tune", local, *words)
    assert las("doctor", "data", remote, f"t={shards_address}/train") == las(
        "doctor", "data", local, f"t={corpus}/shards/train"
    )
    assert complaint("evaluate", f"{shards_address}/test?a=b", "--model", random_model).startswith(
        f"{shards_address}/test?a=b/index.json: the server answers 404"
    )
    assert "are both called 'valid'; name sets as NAME=SET" in complaint("evaluate", remote, local, *words[:2])


def test_a_set_is_reported_without_what_cannot_be_read(las, random_model, corpus, tmp_path):
    bad = Utterance("bad", str(tmp_path / "a.wav"), "ab")
    Path(bad.audio).write_bytes(b"no audio")
    write_manifest(tmp_path / "set.jsonl", [*read_manifest(corpus / "valid.jsonl"), bad])
    words = ("--model", random_model, "-o", tmp_path / "out", "search.beam=1")
    status, out, err = las("evaluate", tmp_path / "set.jsonl", *words)
    assert (status, out.count("WER")) == (1, 1)
    assert err.splitlines()[0].startswith(f"las: {bad.audio}: not audio that can be read")
    assert err.splitlines()[1] == "las: 1 recordings could not be read; their words were counted as deleted"
    assert "counted as deleted" in (tmp_path / "out/report.txt").read_text()
    assert (tmp_path / "out/report.html").is_file()


def test_rows_of_results_are_one_table(las, random_model, corpus, tmp_path):
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n")
    for beam in (1, 2):
        words = ("--model", random_model, f"search.beam={beam}", "--append", results)
        assert las("evaluate", corpus / "valid.jsonl", *words)[0] == 0
    lines = results.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["# Results", ""]
    assert lines[2].startswith("| set | WER (S/D/I/N) |")
    assert [re.search(r"beam \d", line)[0] for line in lines[4:]] == ["beam 1", "beam 2"]
    assert f"search.beam=2 --append {results}" in lines[5]


def test_sets_that_cannot_be_evaluated(complaint, random_model, corpus, tmp_path, voices):
    model = ("--model", random_model)
    shards = corpus / "shards/valid"
    assert complaint("evaluate", "nowhere", *model) == "nowhere: no such folder of shards or manifest: nowhere"
    assert complaint("evaluate", shards, "serach.beam=8", *model) == (
        "serach.beam=8: no such folder of shards or manifest: 8, and 'serach.beam' is no setting (search.KEY or style)"
    )
    assert "unknown key 'search.baem'; the nearest known key is 'search.beam'" in complaint(
        "evaluate", shards, "search.baem=8", *model
    )
    assert complaint("evaluate", shards, corpus / "valid.jsonl", *model) == (
        f"{shards} and {corpus}/valid.jsonl are both called 'valid'; name sets as NAME=SET"
    )
    assert complaint("evaluate", f"a/b={shards}", *model) == (
        f"a/b={shards}: a set's name becomes a file's, so it cannot hold a /: 'a/b'"
    )
    assert "no index here" in complaint("evaluate", tmp_path, *model)
    write_manifest(tmp_path / "broken.jsonl", [Utterance("a", str(voices[-1]), "a")])
    assert str(voices[-1]) in complaint("evaluate", tmp_path / "broken.jsonl", *model)


def test_score_two_files(las, complaint, tmp_path):
    (tmp_path / "ref").write_text("발화1\tone two three\nb four\n", encoding="utf-8")
    (tmp_path / "hyp").write_text("b four\n발화1\tOne, too three!\n", encoding="utf-8")
    status, out, _ = las("score", tmp_path / "ref", tmp_path / "hyp")
    assert status == 0
    assert out.splitlines()[:4] == [
        "WER: 25.00% (S 1 D 0 I 0 / N 4), 95% 0.00-33.33% over 2 utterances",
        "CER: 6.67% (S 1 D 0 I 0 / N 15), 95% 0.00-9.09% over 2 utterances",
        "caution: 2 utterances are few: the true interval is wider than the one shown",
        "style: basic, on both sides",
    ]
    assert las("score", tmp_path / "ref", tmp_path / "hyp", "--style", "verbatim")[1].startswith("WER: 75.00%")
    assert "unknown text style 'base'" in complaint("score", tmp_path / "ref", tmp_path / "hyp", "--style", "base")
    (tmp_path / "less").write_text("b four\nc five\n")
    assert complaint("score", tmp_path / "ref", tmp_path / "less") == (
        "1 of 2 references have no hypothesis (발화1) and 1 of 2 hypotheses have no reference (c); to be scored, an id "
        "must stand on both sides"
    )
    assert "nowhere: cannot read the texts: No such file" in complaint("score", tmp_path / "ref", tmp_path / "nowhere")
    (tmp_path / "some").write_text("b four\n")
    out = las("score", tmp_path / "ref", tmp_path / "some", "--allow-missing", "-o", tmp_path / 'out "1"')[1]
    assert out.startswith("WER: 75.00% (S 0 D 3 I 0 / N 4)")
    assert out.endswith("without hypothesis, counted as deleted: 1: 발화1\n")
    assert {path.name for path in (tmp_path / 'out "1"').iterdir()} == {
        "some.jsonl", "report.json", "report.txt", "report.html",
    }  # fmt: skip


def test_compare_files(las, complaint, tmp_path):
    (tmp_path / "ref").write_text("a one two three\nb four\n", encoding="utf-8")
    (tmp_path / "h1").write_text("a one too three\nb 사\n", encoding="utf-8")
    (tmp_path / "h2").write_text("a one two three\nb four\n", encoding="utf-8")
    status, out, err = las(
        "compare", tmp_path / "h1", tmp_path / "h2", "--reference", tmp_path / "ref", "-o", tmp_path / "c"
    )
    assert (status, err) == (0, "")
    assert "\nB - A: -50.00 points, 95% -100.00 to -33.33\n" in out
    assert (tmp_path / "c/compare.txt").read_text(encoding="utf-8") == out
    assert json.loads((tmp_path / "c/compare.json").read_text(encoding="utf-8"))["systems"][1]["wer"]["rate"] == 0.0
    assert "h1: holds no references" in complaint("compare", tmp_path / "h1", tmp_path / "h2")
    assert "give the hypotheses of two systems or more" in complaint(
        "compare", tmp_path / "h1", "--reference", tmp_path / "ref"
    )


def test_a_folder_that_cannot_be_written_is_seen_before_the_work(complaint, random_model, corpus, tmp_path):
    (tmp_path / "file").write_text("in the way")
    words = ("evaluate", corpus / "valid.jsonl", "--model", random_model, "-o", tmp_path / "file/out")
    message = f"{tmp_path}/file/out: no folder that results can be written to: Not a directory"
    assert complaint(*words) == message
    (tmp_path / "text").write_text("a one\n")
    assert complaint("score", tmp_path / "text", tmp_path / "text", "-o", tmp_path / "file/out") == message
    assert complaint("compare", tmp_path / "x", tmp_path / "y", "-o", tmp_path / "file/out") == message
    rows = ("--append", tmp_path / "file/out/RESULTS.md")
    assert complaint("evaluate", corpus / "valid.jsonl", "--model", random_model, *rows) == message


def test_results_take_no_input_s_place(complaint, random_model, tools, tmp_path):
    wave = tools.write_wav(tmp_path / "a.wav", tools.sing("ab"))
    write_manifest(tmp_path / "set.jsonl", [Utterance("a", str(wave), "ab")])
    before = (tmp_path / "set.jsonl").read_bytes()
    message = f"{tmp_path}/set.jsonl: results would overwrite what they are made from; name another folder"
    assert complaint("evaluate", tmp_path / "set.jsonl", "--model", random_model, "-o", tmp_path) == message
    (tmp_path / "set.txt").write_text("a ab\n")
    assert complaint("score", tmp_path / "set.jsonl", tmp_path / "set.txt", "-o", tmp_path) == message
    assert (tmp_path / "set.jsonl").read_bytes() == before


def test_a_row_is_added_after_each_set(las, random_model, corpus, voices, tmp_path):
    write_manifest(tmp_path / "broken.jsonl", [Utterance("a", str(voices[-1]), "a")])
    results = tmp_path / "RESULTS.md"
    sets = (corpus / "valid.jsonl", tmp_path / "broken.jsonl")
    assert las("evaluate", *sets, "--model", random_model, "--append", results)[0] == 1
    assert [line[:7] for line in results.read_text(encoding="utf-8").splitlines()[2:]] == ["| valid"]


def test_hypotheses_keep_awkward_ids(las, random_model, tools, tmp_path):
    wave = tools.write_wav(tmp_path / "a.wav", tools.sing("ab"))
    ids = ["화자 1/발화.2", "it's", "a b", '"q"', "{", "tab\there", " at both ends "]
    write_manifest(tmp_path / "set.jsonl", [Utterance(id, str(wave), "ab") for id in ids])
    out = las("evaluate", tmp_path / "set.jsonl", "--model", random_model, "-o", tmp_path / "out")[1]
    again = las("score", tmp_path / "set.jsonl", tmp_path / "out/set.jsonl")[1]
    assert again.startswith(out.split("\t")[1].replace("WER", "WER:"))
    assert len(read_manifest(tmp_path / "set.jsonl")) == len(ids)


def test_tune_prints_a_surface_and_writes_the_config(las, complaint, trained, corpus, tmp_path):
    shutil.copytree(trained / "model", tmp_path / "model")
    words = ("tune", corpus / "shards" / "valid", "--model", tmp_path / "model", "--hypotheses", "2")
    status, out, err = las(*words, "--vary", "ctc_weight,length_exponent", "--write")
    assert (status, err) == (0, "")
    assert out.startswith("length_exponent \\ ctc_weight")
    assert re.search(r"^best \S+% with search.ctc_weight=\S+ search.length_exponent=\S+$", out, re.MULTILINE)
    assert "search:" in (tmp_path / "model" / "config.yaml").read_text()
    assert "--vary beam: wanted some of" in complaint(*words, "--vary", "beam")
    assert las("tune", corpus / "shards" / "valid", corpus / "shards" / "train")[0] == 2


def test_verdicts_are_not_fitted_on_the_set_that_checks_them(las, complaint, random_model, corpus, monkeypatch):
    fine = Evidence(5.0, 1.0, 30.0, (0.1, 0.5), (False, True), 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.9)
    ways = {"ok": fine, "silence": replace(fine, heard=-7.0), "loop": replace(fine, places=(0.1,) * 9,
            repeated=(True,) * 9), "truncated": replace(fine, end_nats=9.0), "skipped": replace(fine, inside_nats=9.0),
            "low": replace(fine, confidence=0.1)}  # fmt: skip
    read = []

    def cases(model, early, path, device, bar, changes):
        assert changes == ["search.beam=4"]
        read.append((path, early))
        return [Case("made", name, evidence) for name, evidence in ways.items()]

    monkeypatch.setattr(verdicts, "cases_of", cases)
    words = ("doctor", "verdicts", corpus / "shards/valid", "search.beam=4", "--model", random_model, "--check")
    assert "are both called 'valid'; name sets as NAME=SET" in complaint(*words, corpus / "valid.jsonl")
    assert read == []
    status, out, err = las(*words, f"다른={corpus}/valid.jsonl", "--early", "a", "--early", "b", "--write")
    assert (status, err) == (0, "")
    assert read == [(str(corpus / "shards/valid"), "a"), (f"{corpus}/valid.jsonl", "b")]
    assert [line for line in out.splitlines() if ":" in line] == [
        "valid: verdicts on 6 cases",
        "다른: verdicts on 6 cases",
    ]
    section = json.loads((random_model / "calibration.json").read_text(encoding="utf-8"))["verdicts"]
    assert (section["fitted on"], section["cases"]) == (["valid"], 6)


def test_what_ships_is_not_written_to(complaint, corpus):
    for verb in ("tune", "calibrate"):
        assert complaint(verb, corpus / "shards/valid", "--model", "digits", "--write") == (
            "--write: digits ships with las and is not changed; copy its folder and name the copy"
        )
