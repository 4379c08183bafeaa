"""What `make demo` runs: transcribe digit strings with the model that ships, then train one from audio to WER.

Real recordings are taken from $LAS_CORPORA where that is set; else espeak-ng voices are synthesised, offline.
Everything is written below demo/, which is made anew.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from las.data.manifest import read_manifest

ROOT = Path(__file__).parents[1]
DEMO = Path("demo")


def main() -> None:
    started = time.time()
    os.chdir(ROOT)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shutil.rmtree(DEMO, ignore_errors=True)
    real = (Path(os.environ.get("LAS_CORPORA") or "/nowhere") / "fsdd").is_dir()
    say(f"1 Digit strings from {'recordings (FSDD)' if real else 'synthetic voices; LAS_CORPORA is not set'}")
    run(
        "python",
        "egs/digits/prepare.py",
        "--output",
        str(DEMO / "data"),
        "--train-all",
        *([] if real else ["--offline"]),
    )
    say("2 Six of them, transcribed by the model that ships")
    test = read_manifest(DEMO / "data/test.jsonl")
    some = test[:: len(test) // 6][:6]
    run("las", "transcribe", *(os.path.relpath(utterance.audio) for utterance in some))
    print("what was said:", *(f"    {utterance.text}" for utterance in some), sep="\n", flush=True)
    say("3 A digit recogniser from audio to WER: tokens, shards, training, evaluation")
    os.environ["STAGE"] = "2"
    run("egs/digits/run.sh", str(DEMO))
    say(f"4 Results, {time.time() - started:.0f} s after the start (demo/RESULTS.md)")
    print((DEMO / "RESULTS.md").read_text(encoding="utf-8"))


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(*command: str) -> None:
    print(f"$ {shlex.join(command)}", flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
