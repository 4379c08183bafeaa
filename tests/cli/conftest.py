from __future__ import annotations

import sys

import pytest
from loopback import Host

from las import cli


@pytest.fixture
def las(monkeypatch, capsys):
    """A function that runs the command line in this process: words -> exit status, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["las", *(str(word) for word in words)])
        capsys.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def complaint(las):
    """A function that runs words which must fail with status 1 and one line on stderr, which is returned."""

    def run(*words):
        status, out, err = las(*words)
        assert (status, out) == (1, ""), err
        assert err.startswith("las: ")
        assert err.count("\n") == 1, err
        return err.removeprefix("las: ").strip()

    return run


@pytest.fixture
def voices(tools, tmp_path):
    """Ten recordings with awkward names, the last of them broken."""
    names = ["one.wav", "두 번째.wav", "it's.wav", 'a "b".wav', "e=f.wav", "x.y.z.wav", "-g.wav", "[h].wav", "i j.wav"]
    folder = tmp_path / "소리 모음"
    paths = [tools.write_wav(folder / name, tools.sing(tools.texts[n % 8], n)) for n, name in enumerate(names)]
    broken = folder / "z 부서진.wav"
    broken.write_bytes(b"RIFF" + bytes(60))
    return [*paths, broken]


@pytest.fixture
def shards_address(corpus, monkeypatch):
    """Where the corpus' shards are served: the address of train and valid."""
    monkeypatch.setenv("no_proxy", "*")
    host = Host(corpus / "shards")
    yield host.address
    host.server.shutdown()
    host.server.server_close()
