"""What `make demo` runs: transcribe with the models that ship, then train one from audio to WER.

Real recordings are taken from $LAS_CORPORA where that is set; else espeak-ng voices are synthesised, offline.
Everything is written below demo/, which is made anew.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import soundfile

from las.data.librispeech import LibriSpeech
from las.data.manifest import Utterance, read_manifest
from las.data.voices import speak

ROOT = Path(__file__).parents[1]
DEMO = Path("demo")
SENTENCES = (
    "the old man sat by the fire and looked at his children",
    "she had been in the house for a long time when he came home",
    "there was nothing to be seen but the water and the sky",
)


def main() -> None:
    started = time.time()
    os.chdir(ROOT)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shutil.rmtree(DEMO, ignore_errors=True)
    corpora = Path(os.environ.get("LAS_CORPORA") or "/nowhere")
    say("1 English sentences, transcribed by the model that ships")
    transcribe(sentences(corpora))
    real = (corpora / "fsdd").is_dir()
    say(f"2 Digit strings from {'recordings (FSDD)' if real else 'synthetic voices; LAS_CORPORA is not set'}")
    run(
        "python",
        "egs/digits/prepare.py",
        "--output",
        str(DEMO / "data"),
        "--train-all",
        *([] if real else ["--offline"]),
    )
    say("3 Three of them, transcribed by the model for digits")
    test = read_manifest(DEMO / "data/test.jsonl")
    transcribe(test[:: len(test) // 3][:3], "--model", "digits")
    say("4 A digit recogniser from audio to WER: tokens, shards, training, evaluation")
    os.environ["STAGE"] = "2"
    run("egs/digits/run.sh", str(DEMO))
    say(f"5 Results, {time.time() - started:.0f} s after the start (demo/RESULTS.md)")
    print((DEMO / "RESULTS.md").read_text(encoding="utf-8"))


def sentences(corpora: Path) -> list[Utterance]:
    """Three recordings of speakers that the model has not heard, or what a synthetic voice says."""
    if (corpora / "LibriSpeech" / "dev-clean").is_dir():
        unheard = LibriSpeech(corpora, {}, DEMO).read("dev-clean")
        return unheard[:: len(unheard) // 3][:3]
    said = []
    for number, text in enumerate(SENTENCES):
        wave, hertz = speak(text, "en-us")
        path = DEMO / "sentences" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave.numpy(), hertz)
        said.append(Utterance(str(number), str(path), text))
    return said


def transcribe(utterances: Sequence[Utterance], *words: str) -> None:
    run("las", "transcribe", *words, *(os.path.relpath(utterance.audio) for utterance in utterances))
    print("what was said:", *(f"    {utterance.text}" for utterance in utterances), sep="\n", flush=True)


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(*command: str) -> None:
    print(f"$ {shlex.join(command)}", flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
