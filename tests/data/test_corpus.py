"""What recipes share: one writer for a folder, sets that are whole, options."""

import errno
import json
import subprocess
import sys

import pytest

from las.data.corpus import parser, run, sole_writer, write_sets
from las.data.manifest import Utterance, read_manifest
from las.errors import UserError

ONE = Utterance("a", "a.wav", "eins", 3600.0, "anna")
TWO = Utterance("b", "b.wav", "둘")
HOLD = "from pathlib import Path; from las.data.corpus import sole_writer\nwith sole_writer(Path(r'{}')): {}"


def options(tmp_path):
    return parser("A corpus", str(tmp_path / "prepare.py"), "corpus", "http://publisher")


def test_options_and_their_defaults(tmp_path, capsys):
    found = options(tmp_path).parse_args([])
    assert (found.corpus, found.output, found.mirror) == (None, tmp_path / "data", "http://publisher")
    assert not hasattr(parser("A corpus", "prepare.py", "corpus").parse_args([]), "mirror")
    with pytest.raises(SystemExit):
        options(tmp_path).parse_args(["--help"])
    assert "else $LAS_CORPORA/corpus, else it is downloaded" in " ".join(capsys.readouterr().out.split())


def test_sets_are_written_and_told_of(tmp_path, capsys):
    write_sets(tmp_path, {"train": [ONE], "test": [TWO]}, {"language": "한국어"})
    assert [one.id for one in read_manifest(tmp_path / "train.jsonl", check_audio=False)] == ["a"]
    assert json.loads((tmp_path / "corpus.json").read_text(encoding="utf-8")) == {"language": "한국어"}
    assert capsys.readouterr().out == (
        f"{tmp_path}/train.jsonl: 1 utterances, 1 speakers, 1.00 h\n{tmp_path}/test.jsonl: 1 utterances\n"
    )


def test_an_empty_set_leaves_the_earlier_ones(tmp_path):
    write_sets(tmp_path, {"train": [ONE]})
    with pytest.raises(UserError, match=r"test\.jsonl: no utterance for it in the corpus; nothing was written"):
        write_sets(tmp_path, {"train": [TWO], "test": []})
    assert [one.id for one in read_manifest(tmp_path / "train.jsonl", check_audio=False)] == ["a"]


def test_a_set_that_cannot_be_written_leaves_no_mixture(tmp_path):
    write_sets(tmp_path, {"train": [ONE], "test": [ONE]})
    with pytest.raises(UserError, match="is there twice"):
        write_sets(tmp_path, {"train": [TWO], "test": [ONE, ONE]})
    assert not (tmp_path / "test.jsonl").exists()
    assert not (tmp_path / "corpus.json").exists()


def test_a_complaint_is_one_line_and_status_1(tmp_path, capsys):
    def prepare(found):
        raise UserError(f"{found.output}: no good")

    assert run(options(tmp_path), ["--output", str(tmp_path / "out")], prepare) == 1
    assert capsys.readouterr().err == f"{tmp_path}/out: no good\n"
    assert run(options(tmp_path), ["--output", str(tmp_path / "out")], lambda found: None) == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk: No space left on device"),
        (OSError(errno.EFBIG, "File too large"), "disk: File too large"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
    ],
)
def test_what_the_disk_refuses_is_one_line_too(tmp_path, capsys, error, said):
    def prepare(found):
        raise error

    assert run(options(tmp_path), ["--output", str(tmp_path / "out")], prepare) == 1
    assert capsys.readouterr().err == said + "\n"


def test_other_errors_of_the_system_are_not_hidden(tmp_path):
    def prepare(found):
        raise OSError("out of luck")

    with pytest.raises(OSError, match="out of luck"):
        run(options(tmp_path), ["--output", str(tmp_path / "out")], prepare)


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path, capsys):
    command = HOLD.format(tmp_path, "print('mine', flush=True); input()")
    with subprocess.Popen([sys.executable, "-c", command], stdin=-1, stdout=-1, text=True) as first:
        assert first.stdout.readline() == "mine\n"
        assert run(options(tmp_path), ["--output", str(tmp_path)], lambda found: None) == 1
        said = "another prepare.py is writing there; wait until it is done, or give another --output"
        assert capsys.readouterr().err == f"{tmp_path}: {said}\n"
        first.kill()  # -9: nothing is left to be cleaned up by hand
        first.wait()
    with sole_writer(tmp_path):
        pass
