"""Published trees in miniature, a publisher on 127.0.0.1, and run.sh with its commands run in this process."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from las.data import download
from las.errors import UserError

ROOT = Path(__file__).parents[2]
TINY = (
    "train.epochs=1", "train.precision=fp32", "train.device=cpu", "train.accumulate=1", "data.workers=0",
    "model.listener.width=8", "model.listener.convolutions=4", "model.speller.width=8", "model.speller.embedding=8",
    "model.speller.attention.width=8", "search.beam=1", "search.longest=0.2",
)  # fmt: skip
STUB = """#!/bin/bash
printf '%s\\0' "${{0##*/}}" "$PWD" "$@" > "{asked}"
read -r status < "{answered}"
exit "$status"
"""


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def load_script(name):
    """The module egs/NAME/prepare.py."""
    title = f"egs_{name}_prepare"
    if title not in sys.modules:
        spec = importlib.util.spec_from_file_location(title, ROOT / "egs" / name / "prepare.py")
        sys.modules[title] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[title])
    return sys.modules[title]


def write_tone(path, number=0, seconds=1.0, rate=16_000, **options):
    """A recording that stands for speech; its format is the suffix's, or `format` and `subtype`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.sin(0.05 * (number + 1) * np.arange(round(seconds * rate)))
    soundfile.write(path, wave, rate, **options)
    return path


def pack(archive, folder, names=None):
    """An archive of what `folder` holds, or of some of it, in the format that its name tells."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    mode = {"bz2": "w:bz2", "gz": "w:gz", "tgz": "w:gz"}[archive.name.rsplit(".", 1)[1]]
    with tarfile.open(archive, mode) as tar:
        for name in names or sorted(path.name for path in folder.iterdir()):
            tar.add(folder / name, name)
    return archive


@pytest.fixture
def alone(monkeypatch):
    """No corpora of this machine, no proxy and no pauses between downloads' tries."""
    monkeypatch.delenv("LAS_CORPORA", raising=False)
    for name in ("CORPUS", "PREPARE", "TOKENS", "CONF", "STAGE", "RESULTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSES", (0.0,))


@pytest.fixture
def mirror(tmp_path, alone):
    """The address of a publisher, and the folder that he serves."""
    folder = tmp_path / "published"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


@pytest.fixture
def run_recipe(tmp_path, monkeypatch, capfd, alone):
    """A function: run egs/NAME/run.sh OUTPUT TINY WORDS in tmp_path, with variables -> (status, OUTPUT, what was said).

    The script is run as it stands; `las` and `python` on its PATH hand their command lines over to this process, which
    has imported torch already.
    """
    programs = tmp_path / "programs"
    programs.mkdir()
    asked, answered = programs / "asked", programs / "answered"
    for pipe in (asked, answered):
        os.mkfifo(pipe)
    for name in ("las", "python"):
        (programs / name).write_text(STUB.format(asked=asked, answered=answered), encoding="utf-8")
        (programs / name).chmod(0o755)

    def call(name, *words, **variables):
        output = tmp_path / "out put"
        script = f'"{ROOT}/egs/{name}/run.sh" "$@"; printf "%s\\0" end $? > "{asked}"'
        environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **variables}
        command = ["bash", "-c", script, "run.sh", str(output), *TINY, *words]
        with contextlib.chdir(tmp_path), subprocess.Popen(command, env=environment) as process:
            while (request := asked.read_text(encoding="utf-8").split("\0"))[0] != "end":
                program, place, *arguments = request[:-1]
                os.chdir(place)
                monkeypatch.setattr(sys, "argv", [program, *arguments])
                status = run_las(arguments) if program == "las" else run_script(arguments)
                answered.write_text(f"{status}\n", encoding="utf-8")
            process.wait()
        said = capfd.readouterr()
        return int(request[1]), output, said.out + said.err

    return call


def run_las(arguments):
    from las.cli import app

    try:
        app(arguments, standalone_mode=False)
    except UserError as error:
        print(f"las: {error}", file=sys.stderr)
        return 1
    return 0


def run_script(arguments):
    return load_script(Path(arguments[0]).parent.name).main(arguments[1:])


@pytest.fixture(scope="session")
def tools():
    """The functions above, for the tests of several recipes."""

    class Tools:
        load_script, write_tone, pack = staticmethod(load_script), staticmethod(write_tone), staticmethod(pack)

    return Tools
