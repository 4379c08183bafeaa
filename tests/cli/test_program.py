from __future__ import annotations

import subprocess
import sys


def test_help_is_quick_and_names_the_verbs():
    code = "import sys, las.cli as c, typer; typer.main.get_command(c.app); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"  # what takes time is not imported
    done = subprocess.run([sys.executable, "-m", "las", "--help"], capture_output=True, text=True, check=True)
    for verb in ("transcribe", "train", "evaluate", "score", "compare", "shard", "tokenizer", "models"):
        assert verb in done.stdout


def test_threads_are_told_how_long_to_wait_awake_before_torch_is_loaded_and_a_user_may_say_otherwise(monkeypatch):
    code = "import os, sys, las.cli as c; sys.argv[1:] = ['models']; c.main()"
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    for said, expected in (((), "2000"), (("7",), "7"), ((None, "passive"), "None")):
        for name in names:
            monkeypatch.delenv(name, raising=False)
        for name, value in zip(names, said, strict=False):
            if value:
                monkeypatch.setenv(name, value)
        ask = f"import atexit, os, sys; atexit.register(lambda: print(os.environ.get('GOMP_SPINCOUNT'))); {code}"
        done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == expected
    ask = "import sys, las.cli; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout == "False\n"


def test_nine_of_ten_files_in_a_process_of_its_own(random_model, voices):
    command = [sys.executable, "-m", "las", "transcribe", "--model", str(random_model), "--", *map(str, voices)]
    done = subprocess.run(command, capture_output=True, check=False)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 1
    assert [line.split(": ")[0] for line in lines] == [str(path) for path in voices[:-1]]
    err = [line for line in done.stderr.decode().splitlines() if " at 0." not in line]  # verdicts of random weights
    assert err[0].startswith(f"las: {voices[-1]}: ")
    assert err[1] == "las: 1 of 10 files were not transcribed"
    assert len(err) == 2


def test_usage_is_exit_status_2(las):
    for words in (["nonsense"], ["transcribe"], ["transcribe", "a", "--beam-size", "0"], ["transcribe", "a", "-f", "x"],
                  ["train"], ["train", "a.yaml", "b.yaml", "-o", "x"], ["evaluate", "style=basic"], ["shard", "a"],
                  ["tokenizer", "a", "-o", "b", "--size", "many"]):  # fmt: skip
        status, out, err = las(*words)
        assert status == 2, words
        assert out == ""
        assert "Traceback" not in err
