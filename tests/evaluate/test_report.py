from __future__ import annotations

import json
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from las.evaluate import report
from las.evaluate.report import COLUMNS, SetResult, append_rows, command, commit, hardware, program
from las.evaluate.score import score


@pytest.fixture
def result():
    scored = score({"a": "one two", "b": "three"}, {"a": "one too", "b": "three"})
    return SetResult(
        "시험",
        scored,
        {"a": "One two", "b": "three"},
        {"a": "one too", "b": "three"},
        120.0,
        6.0,
        "digits",
        "beam 8, style basic",
    )


def test_a_result_for_people(result):
    assert result.real_time_factor == 0.05
    assert result.summary() == "시험\tWER 33.33% (S 1 D 0 I 0 / N 3)\t2.0 min\tRTF 0.050"


def test_a_row_has_a_cell_for_every_column(result, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/las", "evaluate", "시험=data/a b", "--model", "x|y"])
    cells = [cell.strip() for cell in result.row().replace("\\|", "¦").strip("|").split("|")]
    assert len(cells) == len(COLUMNS)
    assert cells[:5] == ["시험", "33.33% (S 1 D 0 I 0 / N 3)", "beam 8, style basic", "0.050", "digits"]
    assert cells[5] == "`las evaluate '시험=data/a b' --model 'x¦y'`"
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


def test_the_hardware_is_named():
    assert len(hardware()) > 4
    if not torch.cuda.is_available():
        assert hardware().startswith(f"{torch.get_num_threads()} x ")


def test_lines_hold_both_texts_by_id(result):
    first = json.loads(result.lines().splitlines()[0])
    assert first == {"id": "a", "text": "one too", "reference": "One two"}
