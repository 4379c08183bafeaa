from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from las.errors import UserError
from las.evaluate import report
from las.evaluate.report import COLUMNS, SetResult, append_rows, command, commit, hardware, program, scored_files
from las.evaluate.score import score
from las.evaluate.texts import Texts, read_texts
from las.text.alignment import ErrorCounts


@pytest.fixture
def result():
    scored = score({"a": "one two", "b": "three"}, {"a": "one too", "b": "three"})
    return SetResult(
        "시험",
        scored,
        {"a": "One two", "b": "three"},
        {"a": "one too", "b": "three"},
        {"a": 80.0, "b": 40.0},
        6.0,
        "digits",
        "beam 8, style basic",
        {"a": "anna", "b": "진수"},
    )


def test_a_result_for_people(result):
    assert result.real_time_factor == 0.05
    assert result.summary().split("\t") == [
        "시험", "WER 33.33% (S 1 D 0 I 0 / N 3)", "95% 0.00-50.00% (2 speakers)", "CER 9.09% (S 1 D 0 I 0 / N 11)",
        "2.0 min", "RTF 0.050",
    ]  # fmt: skip


def test_what_is_not_known_is_left_out(result):
    unknown = replace(result, lengths={"a": 1.0}, speakers={}, seconds=None)
    assert (unknown.audio_seconds, unknown.real_time_factor) == (None, None)
    assert unknown.summary().split("\t")[2:] == ["95% 0.00-50.00% (2 utterances)", "CER 9.09% (S 1 D 0 I 0 / N 11)"]
    assert json.loads(unknown.lines().splitlines()[1]) == {"id": "b", "text": "three", "reference": "three"}


def test_a_row_has_a_cell_for_every_column(result, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/las", "evaluate", "시험=data/a b", "--model", "x|y"])
    cells = [cell.strip() for cell in result.row().replace("\\|", "¦").strip("|").split("|")]
    assert len(cells) == len(COLUMNS)
    assert cells[:6] == [
        "시험",
        "33.33% (S 1 D 0 I 0 / N 3), 95% 0.00-50.00% (2 speakers)",
        "9.09% (S 1 D 0 I 0 / N 11)",
        "beam 8, style basic",
        "0.050",
        "digits",
    ]
    assert cells[6] == "`las evaluate '시험=data/a b' --model 'x¦y'`"
    assert "\n" not in result.row()


def table(rows):
    return ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), *rows]


def test_rows_added_twice_make_one_table(tmp_path):
    path = tmp_path / "RESULTS.md"
    append_rows(path, ["| 1 |"])
    append_rows(path, ["| 2 |", "| 3 |"])
    assert path.read_text().splitlines() == table(["| 1 |", "| 2 |", "| 3 |"])
    assert [one.name for one in tmp_path.iterdir()] == ["RESULTS.md"]


def test_rows_go_behind_what_is_there(tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_text("# 결과\n\n| other | table |\n|---|---|\n| 1 | 2 |\n\n\n", encoding="utf-8")
    append_rows(path, ["| 1 |"])
    append_rows(path, ["| 2 |"])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# 결과\n\n| other | table |\n|---|---|\n| 1 | 2 |\n\n| set |")
    assert text.splitlines()[6:] == table(["| 1 |", "| 2 |"])


def test_words_after_a_table_begin_a_new_one(tmp_path):
    path = tmp_path / "RESULTS.md"
    append_rows(path, ["| 1 |"])
    with path.open("a") as file:
        file.write("\nMore about this.\n")
    append_rows(path, ["| 2 |"])
    assert path.read_text().splitlines() == [*table(["| 1 |"]), "", "More about this.", "", *table(["| 2 |"])]


@pytest.mark.parametrize("program_path", ["/x/bin/las", "/x/las/__main__.py"])
def test_the_command_is_what_one_would_type(monkeypatch, program_path):
    monkeypatch.setattr(sys, "argv", [program_path, "train", "a b.yaml", "data.train='x'", "__main__.py"])
    assert shlex.split(command()) == ["las", "train", "a b.yaml", "data.train='x'", "__main__.py"]


def test_the_commit_is_that_of_our_checkout_only(monkeypatch, tmp_path):
    """In a folder below another project's checkout, as site-packages often is, that one's commit would mislead."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "other"], check=True)
    inside = tmp_path / ".venv" / "site-packages" / "las" / "evaluate"
    monkeypatch.setattr(report, "__file__", str(inside / "report.py"))
    assert commit() == program()
    monkeypatch.setattr(report, "__file__", str(tmp_path / "las" / "evaluate" / "report.py"))
    assert (
        commit()
        == subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    )
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert commit() == program()


def test_the_program_names_itself_where_it_is_not_installed(monkeypatch):
    assert program().startswith("las")

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(report, "version", absent)
    assert program() == "las, not installed"


def test_the_hardware_of_all_ranks_is_named(monkeypatch):
    alone = hardware()
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert hardware() == f"4 processes, each {alone}"


def test_the_hardware_is_named():
    assert len(hardware()) > 4
    if not torch.cuda.is_available():
        assert hardware().startswith(f"{torch.get_num_threads()} x ")


def test_lines_are_read_back(result, tmp_path):
    path = tmp_path / "시험.jsonl"
    path.write_text(result.lines(), encoding="utf-8")
    found = read_texts(path)
    assert found == Texts(result.hypotheses, result.speakers, result.lengths, result.references)


def test_scored_files(tmp_path):
    (tmp_path / "r.trn").write_text("one two (anna-1)\nthree (ben-1)\n")
    (tmp_path / "my h.jsonl").write_text('{"id": "ben-1", "text": "tree", "seconds": 2}\n')
    paths = tmp_path / "r.trn", tmp_path / "my h.jsonl"
    found = scored_files(*paths, "basic", allow_missing=True)
    assert (found.name, found.model, found.missing) == ("my h", str(paths[1]), ("anna-1",))
    assert found.score.counts == ErrorCounts(substitutions=1, deletions=2, reference=3)
    assert (found.speakers, found.lengths) == ({"anna-1": "anna", "ben-1": "ben"}, {"ben-1": 2.0})
    with pytest.raises(UserError, match=r"1 of 2 references have no hypothesis \(anna-1\)"):
        scored_files(*paths, "basic", allow_missing=False)
