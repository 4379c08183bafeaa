from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from las.files import hold, write_json, write_text


def test_the_new_text_takes_the_place_of_the_old_and_leaves_nothing_beside_it(tmp_path):
    for text in ("하나\n", "둘"):
        write_text(tmp_path / "표.txt", text)
        assert (tmp_path / "표.txt").read_bytes() == text.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["표.txt"]


def test_a_write_that_fails_leaves_the_old_text(tmp_path, monkeypatch):
    def half(self, text, **_):
        self.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_bytes_of_a_name_that_is_no_text_go_through(tmp_path):
    write_text(tmp_path / "a", os.fsdecode(b"caf\xe9.wav"))
    assert (tmp_path / "a").read_bytes() == b"caf\xe9.wav"


def test_a_folder_is_held_without_the_children_and_where_there_are_no_locks(tmp_path, monkeypatch):
    ask = [sys.executable, "-c", f"from las.files import *\nwith hold(Path({str(tmp_path)!r}), 'mine'): print('held')"]
    with hold(tmp_path, "mine"):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        assert f"UserError: {tmp_path}: mine" in subprocess.run(ask, capture_output=True, text=True, check=False).stderr
    assert subprocess.run(ask, capture_output=True, text=True, check=False).stdout == "held\n"
    child.kill()
    child.join()

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with hold(tmp_path / "elsewhere", "mine"):
        assert (tmp_path / "elsewhere").is_dir()


def test_a_name_may_be_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("가" * 85)  # 255 bytes
    write_text(path, "x")
    assert path.read_text() == "x"


def test_json_keeps_hangul_and_ends_its_last_line(tmp_path):
    write_json(tmp_path / "a.json", {"말": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "말": [\n  1\n ]\n}\n'
