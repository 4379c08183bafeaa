"""report.html in headless Chromium, where one is installed (Debian's `chromium`, or $CHROMIUM): what a reader does."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import subprocess
import time
import wave

import numpy as np
import pytest

from las.evaluate.folder import write_folder
from las.evaluate.media import Attention, Media
from las.evaluate.report import SetResult
from las.evaluate.score import score

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
EVIL = "</script><script>document.title='gone'</script><img src=x onerror=\"document.title='gone'\">"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")


class Browser:
    """A page in headless Chromium, spoken to by its DevTools protocol over pipes (file descriptors 3 and 4)."""

    def __init__(self, folder):
        there, self.to = os.pipe()
        self.back, here = os.pipe()
        command = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ]
        script = f'exec "$@" 3<&{there} 4>&{here}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "browser", CHROMIUM, *command, "about:blank"],
            pass_fds=(there, here), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(there)
        os.close(here)
        self.numbers = itertools.count(1)
        self.rest = b""
        self.session = None
        target = next(one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]

    def call(self, method, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                data = os.read(self.back, 1 << 16)
                assert data, "the browser is gone"
                self.rest += data
            line, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def do(self, script):
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, path):
        self.call("Page.navigate", url=path.as_uri())
        until = time.monotonic() + 30
        while self.do("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < until
            time.sleep(0.02)

    def close(self):
        os.close(self.to)
        self.process.wait(timeout=30)
        os.close(self.back)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def recording():
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes((3000 * np.sin(np.arange(4000) / 5)).astype("<i2").tobytes())
    return file.getvalue()


@pytest.fixture
def report(tmp_path):
    references = {
        "하나": "one two three",
        EVIL: f"four {EVIL}",
        "c": "مرحبا بالعالم",
        **{f"u{n}": "x" for n in range(997)},
    }
    hypotheses = {**references, "하나": "one too", EVIL: EVIL}
    lengths = {id: 0.5 + number for number, id in enumerate(references)}
    speakers = {id: "anna" if number % 2 else "ben" for number, id in enumerate(references)}
    scored = score(references, hypotheses, "verbatim")
    one = SetResult("시험", scored, references, hypotheses, lengths, 1.0, "model", "beam", speakers)
    (tmp_path / "b c.wav").write_bytes(recording())
    weights = np.eye(3, 9)
    media = {
        "하나": Media(recording(), "", Attention(("▁one", "▁too", "</s>"), weights)),
        EVIL: Media(link="b%20c.wav"),
    }
    write_folder(tmp_path, [one], {"시험": media})
    return tmp_path / "report.html"


ROWS = "[...document.querySelectorAll('tr.one')]"
PLAYED = """new Promise((done) => {
  const audio = document.querySelector('audio');
  audio.addEventListener('ended', () => done('played ' + audio.duration));
  audio.addEventListener('error', () => done('error'));
  audio.muted = true;
  audio.play();
})"""


def test_what_a_reader_does(browser, report):
    browser.open(report)
    assert browser.do("document.title") == "시험 - WER report"  # no text has become a script
    assert browser.do("document.querySelectorAll('img').length") == 0
    assert browser.do(f"{ROWS}.length") == 100  # of 1000: the rest when they are scrolled to
    assert browser.do(f"{ROWS}.slice(0, 3).map((row) => row.cells[0].textContent)") == ["하나", EVIL, "c"]
    assert browser.do(f"{ROWS}[0].querySelector('.wrong').textContent") == "twotoo"
    # sorted by length, the longest first, then by id
    heads = "[...document.querySelectorAll('.utterances th button')]"
    browser.do(f"{heads}.find((one) => one.textContent === 's').click()")
    assert browser.do(f"{ROWS}[0].cells[0].textContent") == "u996"
    browser.do(f"{heads}.find((one) => one.textContent === 'id').click()")
    assert browser.do(f"{ROWS}.filter((row) => /^u/.test(row.textContent))[2].cells[0].textContent") == "u2"
    # a table that was written in Python
    speakers = "document.querySelector('table.sortable')"
    browser.do(f"{speakers}.querySelector('button').click()")
    assert browser.do(f"[...{speakers}.tBodies[0].rows].map((row) => row.cells[0].textContent)") == ["ben", "anna"]
    # searching, and the last rows
    browser.do("scrollTo(0, 1e6)")
    browser.do("new Promise((done) => setTimeout(done, 300))")
    assert browser.do(f"{ROWS}.length") > 100
    browser.do(
        "{const box = document.querySelector('input'); box.value = '하나'; box.dispatchEvent(new Event('input'));}"
    )
    assert browser.do(f"{ROWS}.length") == 1
    # what lies behind a row: alignment, recording, picture
    browser.do(f"{ROWS}[0].click()")
    assert browser.do("[...document.querySelectorAll('.pair')].map((one) => one.className.trim())") == [
        "pair", "pair S", "pair D",
    ]  # fmt: skip
    assert browser.do(PLAYED) == "played 0.5"
    sizes = "[image.complete, image.naturalWidth, image.naturalHeight, image.clientHeight > 40]"
    assert browser.do(f"{{const image = document.querySelector('.attention img'); {sizes}}}") == [True, 9, 3, True]
    browser.do(f"{ROWS}[0].click()")
    assert browser.do("document.querySelectorAll('.more').length") == 0


def test_a_recording_beside_the_page_plays(browser, report):
    browser.open(report)
    browser.do(f"{ROWS}[2].click()")
    assert browser.do("document.querySelector('.more p').textContent").startswith("Recording left out")
    browser.do(f"{ROWS}[2].click()")
    browser.do(f"{ROWS}[1].click()")
    assert browser.do("document.querySelector('audio').getAttribute('src')") == "b%20c.wav"
    assert browser.do(PLAYED) == "played 0.5"
    assert browser.do("document.title") == "시험 - WER report"
