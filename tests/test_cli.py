from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from las import cli, recipe
from las.data.manifest import Utterance, read_manifest, write_manifest
from las.data.shards import read_index
from las.text.tokenizer import Tokenizer


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


# --------------------------------------------------------------------------------------------------------- in processes


def test_help_is_quick_and_names_the_verbs():
    code = "import sys, las.cli as c, typer; typer.main.get_command(c.app); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"  # what takes time is not imported
    done = subprocess.run([sys.executable, "-m", "las", "--help"], capture_output=True, text=True, check=True)
    for verb in ("transcribe", "train", "evaluate", "score", "compare", "shard", "tokenizer", "models"):
        assert verb in done.stdout


def test_nine_of_ten_files_in_a_process_of_its_own(random_model, voices):
    command = [sys.executable, "-m", "las", "transcribe", "--model", str(random_model), "--", *map(str, voices)]
    done = subprocess.run(command, capture_output=True, check=False)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 1
    assert [line.split(": ")[0] for line in lines] == [str(path) for path in voices[:-1]]
    err = done.stderr.decode().splitlines()
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


# ---------------------------------------------------------------------------------------------------------- transcribe


def test_one_file_is_its_text_alone(las, trained, corpus):
    assert las("transcribe", corpus / "wav/valid-0.wav", "--model", trained / "model") == (0, "ab\n", "")


def test_nine_of_ten_files(las, trained, voices, tools):
    status, out, err = las("transcribe", "--model", trained / "model", "--", *voices)
    assert status == 1
    assert out.splitlines() == [f"{path}: {tools.texts[n % 8]}" for n, path in enumerate(voices[:-1])]
    assert err.splitlines()[0].startswith(f"las: {voices[-1]}: ")
    assert err.splitlines()[1:] == ["las: 1 of 10 files were not transcribed"]


def test_folders_and_globs(las, trained, voices, tmp_path, tools, monkeypatch):
    folder = voices[0].parent
    voices[-1].unlink()
    (folder / "notes.txt").write_text("no audio")
    (folder / "a folder.wav").mkdir()
    tools.write_wav(folder / "deep/er/K.WAV", tools.sing("ab"))
    _, out, err = las("transcribe", folder, "--model", trained / "model")
    assert err == ""
    assert {line.split(": ")[0] for line in out.splitlines()} == {
        str(p) for p in [*voices[:-1], folder / "deep/er/K.WAV"]
    }
    assert las("transcribe", f"{folder}/**/K.*", "--model", trained / "model") == (0, "ab\n", "")
    assert las("transcribe", folder / "[h].wav", "--model", trained / "model")[0] == 0  # a name, not a glob


def test_json_lines(las, trained, voices, tools):
    status, out, _ = las("transcribe", *voices[:3], "-f", "json", "--model", trained / "model")
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [(one["file"], one["text"]) for one in found] == [(str(p), tools.texts[n]) for n, p in enumerate(voices[:3])]
    assert all(one.keys() == {"file", "text", "seconds", "score", "complete", "segments"} for one in found)
    assert found[1]["segments"] == [
        {"start": 0.0, "end": 0.6, "text": "ba ab", "score": found[1]["score"], "complete": True}
    ]
    assert "두 번째" in out  # readable


def test_words_and_alternatives_on_demand(las, trained, voices):
    words = ("-f", "json", "--word-timestamps", "--n-best", 2, "--beam-size", 4, "--batch-seconds", 1)
    status, out, _ = las("transcribe", voices[1], *words, "--model", trained / "model")
    [segment] = json.loads(out)["segments"]
    assert status == 0
    assert [word["word"] for word in segment["words"]] == ["ba", "ab"]
    times = [time for word in segment["words"] for time in (word["start"], word["end"])]
    assert times == pytest.approx([0, 0.24, 0.36, 0.6], abs=0.03)
    assert all(0 < word["confidence"] < 1 for word in segment["words"])
    assert segment["alternatives"][0]["text"] == "ba ab"
    assert len({one["text"] for one in segment["alternatives"]}) == 2


def test_what_cannot_be_told_apart_is_refused(las, voices):
    for words in (("-f", "srt"), ("-f", "vtt"), ("-f", "tsv")):
        status, out, err = las("transcribe", *voices[:2], *words)
        assert (status, out) == (2, "")
        assert f"{words[1]} of 2 recordings need files of their own" in err
    assert "all formats need files of their own" in las("transcribe", voices[0], "-f", "all")[2]
    assert "only json has room for more than one transcript" in las("transcribe", voices[0], "--n-best", "2")[2]


def test_all_formats_at_once(las, trained, voices, tmp_path):
    status, out, err = las("transcribe", *voices[:2], "-f", "all", "-o", tmp_path / "o", "--model", trained / "model")
    assert (status, out, err) == (0, "", "")
    names = {f"{path.stem}.{kind}" for path in voices[:2] for kind in ("txt", "json", "srt", "vtt", "tsv", "ctm")}
    assert {path.name for path in (tmp_path / "o").iterdir()} == names
    assert (tmp_path / "o/두 번째.srt").read_text(encoding="utf-8").startswith("1\n00:00:00,000 --> 00:00:00,")
    assert (tmp_path / "o/두 번째.ctm").read_text(encoding="utf-8").startswith("두_번째 1 0.000 0.2")


@pytest.mark.parametrize(
    ("form", "content"), [("txt", r"ba ab\n"), ("tsv", r"start\tend\ttext\n0\t(59\d|600)\tba ab\n")]
)
def test_a_file_for_each_recording(las, trained, voices, tmp_path, form, content):
    output = tmp_path / "새 폴더" / "out"
    status, out, _ = las("transcribe", *voices[:6], "-f", form, "-o", output, "--model", trained / "model")
    assert (status, out) == (0, "")
    assert sorted(path.name for path in output.iterdir()) == sorted(path.stem + "." + form for path in voices[:6])
    assert re.fullmatch(content, (output / f"두 번째.{form}").read_text(encoding="utf-8"))


def test_two_recordings_of_one_name_are_not_written_over_each_other(complaint, trained, voices, tools, tmp_path):
    other = tools.write_wav(tmp_path / "one.flac.wav", tools.sing("a")).rename(tmp_path / "one.wav")
    output = tmp_path / "out"
    found = complaint("transcribe", voices[0], other, "-o", output, "--model", trained / "model")
    assert found == f"{voices[0]} and {other} would both be written to one.txt; transcribe them into different folders"
    assert not output.exists()


def test_an_output_folder_that_cannot_be_written(complaint, random_model, voices, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        found = complaint("transcribe", voices[0], "-o", output, "--model", random_model)
        assert re.fullmatch(rf"{re.escape(str(output))}: (File exists|Not a directory)", found)


def test_inputs_that_are_not_there(las, complaint, random_model, tmp_path):
    (tmp_path / "빈 폴더").mkdir()
    model = ("--model", random_model)
    assert complaint("transcribe", tmp_path / "빈 폴더", *model).endswith("빈 폴더: no audio files in this folder")
    assert complaint("transcribe", f"{tmp_path}/*.mp3", *model).endswith("*.mp3: matches no file")
    status, out, err = las("transcribe", tmp_path / "없음.wav", *model)
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"las: {tmp_path}/없음.wav: there is no such file", "las: 1 of 1 files were not transcribed",
    ]  # fmt: skip


def test_models_and_devices_that_are_not_there(complaint, voices, random_model):
    assert "no model 'nobody': neither a model folder nor one of those that ship" in complaint(
        "transcribe", voices[0], "--model", "nobody"
    )
    assert "device 'gpu': wanted auto, cpu, cuda or cuda:N" in complaint(
        "transcribe", voices[0], "--model", random_model, "--device", "gpu"
    )
    (random_model / "config.yaml").write_text("format: 9\n")
    assert "model format 9, this version of las reads format 1" in complaint(
        "transcribe", voices[0], "--model", random_model
    )


def test_a_file_name_that_is_not_utf_8(random_model, tools, tmp_path):
    path = tools.write_wav(tmp_path / "a.wav", tools.sing("ab")).rename(
        tmp_path / b"\xb0\xa1.wav".decode("utf-8", "surrogateescape")
    )
    command = [sys.executable, "-m", "las", "transcribe", "-f", "json", "--model", str(random_model), str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\xb0\xa1.wav" in done.stdout


def test_a_reader_that_goes_away_is_no_traceback(random_model, voices):
    command = [sys.executable, "-m", "las", "transcribe", "--model", str(random_model), *map(str, voices[:3])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() != 0
    assert b"Traceback" not in err


def test_models_lists_what_ships(las, random_model, monkeypatch, tmp_path):
    monkeypatch.setattr(recipe, "PRETRAINED", tmp_path / "pretrained")
    assert las("models") == (0, "", "")
    shutil.copytree(random_model, tmp_path / "pretrained" / "digits")
    (tmp_path / "pretrained/digits/README.md").write_text(
        "# digits\n\nReads numbers. 숫자.\n\nMore.\n", encoding="utf-8"
    )
    assert las("models") == (0, "digits (default)\t0.1 MB\tReads numbers. 숫자.\n", "")


# ------------------------------------------------------------------------------------------------- tokens and shards


def test_a_tokenizer_from_manifests_and_texts(las, corpus, tmp_path):
    (tmp_path / "글.txt").write_text("가나\n\n다 라\n", encoding="utf-8")
    output = tmp_path / "새" / "tokenizer.model"
    status, out, err = las("tokenizer", corpus / "train.jsonl", tmp_path / "글.txt", "-o", output, "--kind", "char")
    assert (status, err) == (0, "")
    assert out == f"{output}: 12 tokens (char; 500 asked for)\n"
    assert Tokenizer.load(output).unknown("가나다라 abc x") == "x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.txt"], "nowhere.txt: cannot be read: "),
        (["nowhere.jsonl"], "nowhere.jsonl: cannot read the manifest: No such file"),
        (["latin.txt"], "latin.txt: after line 0 the text is not UTF-8: "),
        (["empty.txt"], "no text to train a tokenizer on: "),
        (["good.txt", "--size", "5"], "tokenizer size 5 is too small: the texts hold"),
        (["good.txt", "--kind", "chars"], "unknown kind of tokenizer 'chars'; did you mean 'char'?"),
    ],
)
def test_a_tokenizer_that_cannot_be_made(complaint, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "good.txt").write_text("one two three\n")
    assert complaint("tokenizer", *words, "-o", "out.model").startswith(message)
    assert not (tmp_path / "out.model").exists()


def test_shards_from_a_manifest(las, corpus, tmp_path):
    status, out, err = las("shard", corpus / "valid.jsonl", "-o", tmp_path / "조각", "--workers", "2")
    assert (status, err) == (0, "")
    assert out == f"{tmp_path / '조각'}: 8 utterances, 0.00 h, 1 shards\n"
    assert len(read_index(tmp_path / "조각")) == 8


def test_shards_without_what_cannot_be_used(las, voices, tmp_path):
    utterances = [Utterance(f"발화 {n}", str(path), "ab" if n else "") for n, path in enumerate(voices)]
    write_manifest(tmp_path / "all.jsonl", utterances)
    status, out, err = las("shard", tmp_path / "all.jsonl", "-o", tmp_path / "out", "--leave-out", "0.2")
    assert status == 0
    assert out.startswith(f"{tmp_path}/out: 8 utterances")
    assert "empty text: 1 (first: 발화 0)" in err
    assert f"audio cannot be decoded: 1 (first: 발화 9: {voices[-1]}: " in err
    status, out, err = las("shard", tmp_path / "all.jsonl", "-o", tmp_path / "strict")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "2 of 10 utterances left out, more than 1.0%" in err
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "set.jsonl, line 2: not JSON"),
        ('{"id": "b", "audio": "one.wav"}', "set.jsonl, line 2: lacks the field 'text'"),
        ('{"id": "a", "audio": "one.wav", "text": "b"}', 'line 2: the id "a" was already used in line 1'),
        ('{"id": "b", "audio": "nowhere.wav", "text": "b"}', "1 of 2 audio paths are not files: "),
        (
            '{"id": "b", "audio": "one.wav", "text": "b", "txt": ""}',
            "line 2: unknown field \"txt\" (did you mean 'text'?)",
        ),
    ],
)
def test_a_manifest_that_is_wrong(complaint, tools, tmp_path, line, message):
    tools.write_wav(tmp_path / "one.wav", tools.sing("a"))
    first = '{"id": "a", "audio": "one.wav", "text": "a"}\n'
    (tmp_path / "set.jsonl").write_text(first + line + "\n", encoding="utf-8")
    assert message in complaint("shard", tmp_path / "set.jsonl", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_shards_is_not_written_over(complaint, corpus):
    assert "holds shards already" in complaint("shard", corpus / "valid.jsonl", "-o", corpus / "shards/valid")


def test_a_language_model_that_is_not_there(complaint, trained, voices, tmp_path):
    words = ("--model", trained / "model", "--language-model", tmp_path / "no.arpa")
    assert "no.arpa" in complaint("transcribe", voices[0], *words)


def test_tune_prints_a_surface_and_writes_the_config(las, complaint, trained, corpus, tmp_path):
    shutil.copytree(trained / "model", tmp_path / "model")
    words = ("tune", corpus / "shards" / "valid", "--model", tmp_path / "model", "--hypotheses", "2")
    status, out, err = las(*words, "--vary", "ctc_weight,length_exponent", "--write")
    assert (status, err) == (0, "")
    assert out.startswith("length_exponent \\ ctc_weight")
    assert re.search(r"^best \S+% with search.ctc_weight=\S+ search.length_exponent=\S+$", out, re.MULTILINE)
    assert "search:" in (tmp_path / "model" / "config.yaml").read_text()
    assert "--vary beam: wanted some of" in complaint(*words, "--vary", "beam")
    assert las("tune", corpus / "shards" / "valid", corpus / "shards" / "train")[0] == 2


def test_a_corpus_of_another_program_is_imported(las, complaint, tools, tmp_path):
    for number in range(2):
        tools.write_wav(tmp_path / f"{number}.wav", tools.sing("ab", number))
    (tmp_path / "corpus.csv").write_text("path,sentence\n0.wav,하나\n1.wav,둘\n2.wav,셋\n", encoding="utf-8")
    words = ("import", tmp_path / "corpus.csv", "-o", tmp_path / "train.jsonl")
    assert re.match(
        r"1 of 3 utterances left out, .* \(cannot be used: 1 \(first: 2: .*2\.wav: no such file", complaint(*words)
    )
    status, out, err = las(*words, "--leave-out", "0.5")
    assert (status, out) == (0, f"{tmp_path / 'train.jsonl'}: 2 utterances\n")
    assert err.startswith("las: left out: cannot be used: 1 (first: 2: ")
    assert [one.text for one in read_manifest(tmp_path / "train.jsonl")] == ["하나", "둘"]


def test_the_doctor_looks_at_data(las, corpus, tmp_path):
    shards = corpus / "shards" / "train"
    sets = (shards, f"again={shards}")
    words = (*sets, "--tokenizer", corpus / "tokenizer.model", "-o", tmp_path / "검사.json")
    status, out, err = las("doctor", "data", *words)
    assert (status, err) == (0, "")
    assert re.search(r"^train: utterances \d+, ", out)
    assert "id in several sets" in out
    report = json.loads((tmp_path / "검사.json").read_text(encoding="utf-8"))
    assert set(report["sets"]) == {"train", "again"}


# ---------------------------------------------------------------------------------------------------------------- train


def test_every_key_is_printed(las):
    status, out, _ = las("train", "--keys")
    assert status == 0
    lines = out.splitlines()
    assert "train.epochs=40\tint\tpasses over the training data" in lines
    assert "model.listener.reduce=[1,2,2]\ttuple[int, ...]\tframes that each layer reads at once, bottom first" in lines
    assert all(re.fullmatch(r"[\w.]+=\S*\t[\w\[\], .|]+\t\S.*", line) for line in lines)


def test_train_from_a_file_and_words(las, run_config, tmp_path, monkeypatch):
    from las.config import to_yaml

    for name in ("tensorboard", "torch.utils.tensorboard", "matplotlib", "matplotlib.figure", "av"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "설정.yaml").write_text(to_yaml(run_config()), encoding="utf-8")
    run = tmp_path / "실험" / "첫째"
    status, out, err = las("train", tmp_path / "설정.yaml", "train.epochs=2", "-o", run)
    assert status == 0
    assert out == f"{run}/model\n"
    lines = err.splitlines()
    assert lines[0] == "las: not installed, so left out: av, tensorboard, matplotlib"
    assert re.fullmatch(r"epoch 1 update 3: loss \d\.\d{4} WER \d+\.\d\d% \| .*", lines[1])
    assert re.fullmatch(r"epoch 2 update 6: .*", lines[2])
    assert "`las train " in (run / "model/README.md").read_text(encoding="utf-8")
    assert las("train", "-o", run, "--resume")[:2] == (0, f"{run}/model\n")  # its own config is the default
    for words, message in (
        ([], "holds a run; continue it with --resume, or name another folder"),
        (["--resume", "train.epochs=3"], "train.epochs differs from the run's config.yaml; a run is resumed as it was"),
    ):
        status, out, err = las("train", tmp_path / "설정.yaml", "train.epochs=2", *words, "-o", run)
        assert (status, out) == (1, "")
        assert err.splitlines()[1].startswith(f"las: {run}: {message}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.epoch=3"], "'train.epoch=3': unknown key 'train.epoch'; the nearest known key is 'train.epochs'"),
        (["nowhere.yaml"], "nowhere.yaml: no such config file"),
        (["data.train=x"], "data.valid is not set: give it in the config or as data.valid=PATH"),
        (["--resume"], "run/config.yaml: no such config file"),
    ],
)
def test_training_that_cannot_start(complaint, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert complaint("train", *words, "-o", "run").startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_cannot_be_made(complaint, run_config, tmp_path):
    from las.config import to_yaml

    (tmp_path / "c.yaml").write_text(to_yaml(run_config()))
    (tmp_path / "file").write_text("in the way")
    assert (
        complaint("train", tmp_path / "c.yaml", "-o", tmp_path / "file/run") == f"{tmp_path}/file/run: Not a directory"
    )


# -------------------------------------------------------------------------------------------------------------- scoring


def test_evaluate_sets_and_score_its_hypotheses(las, random_model, corpus, tmp_path):
    sets = (f"조각={corpus}/shards/valid", corpus / "valid.jsonl", f"train={corpus}/train.jsonl")
    words = ("--model", random_model, "-o", tmp_path / "hypotheses", "search.beam=1")
    status, out, err = las("evaluate", *sets, *words)
    assert (status, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines] == ["조각", "valid", "train"]
    assert lines[0][1] == lines[1][1]
    for name, line in zip(("조각", "valid", "train"), lines, strict=True):
        reference = corpus / f"{'train' if name == 'train' else 'valid'}.jsonl"
        status, out, _ = las("score", reference, tmp_path / "hypotheses" / f"{name}.jsonl")
        assert status == 0
        assert out.splitlines()[0].startswith(line[1].replace("WER", "WER:"))
        assert out.splitlines()[1].startswith(line[3].replace("CER", "CER:"))
    report = json.loads((tmp_path / "hypotheses/report.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in report["sets"]] == ["조각", "valid", "train"]
    page = (tmp_path / "hypotheses/report.html").read_text(encoding="utf-8")
    assert page.count("data:audio/flac;base64,") == 8  # from the shards
    assert page.count("data:audio/wav;base64,") == 16
    assert page.count("data:image/png;base64,") == 24


def test_rows_of_results_are_one_table(las, random_model, corpus, tmp_path):
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n")
    for beam in (1, 2):
        words = ("--model", random_model, f"search.beam={beam}", "--append", results)
        assert las("evaluate", corpus / "valid.jsonl", *words)[0] == 0
    lines = results.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["# Results", ""]
    assert lines[2].startswith("| set | WER (S/D/I/N) |")
    assert [re.search(r"beam \d", line)[0] for line in lines[4:]] == ["beam 1", "beam 2"]
    assert f"search.beam=2 --append {results}" in lines[5]


def test_sets_that_cannot_be_evaluated(complaint, random_model, corpus, tmp_path, voices):
    model = ("--model", random_model)
    shards = corpus / "shards/valid"
    assert complaint("evaluate", "nowhere", *model) == "nowhere: no such folder of shards or manifest: nowhere"
    assert complaint("evaluate", shards, "serach.beam=8", *model) == (
        "serach.beam=8: no such folder of shards or manifest: 8, and 'serach.beam' is no setting (search.KEY or style)"
    )
    assert "unknown key 'search.baem'; the nearest known key is 'search.beam'" in complaint(
        "evaluate", shards, "search.baem=8", *model
    )
    assert complaint("evaluate", shards, corpus / "valid.jsonl", *model) == (
        f"{shards} and {corpus}/valid.jsonl are both called 'valid'; name sets as NAME=SET"
    )
    assert "no index here" in complaint("evaluate", tmp_path, *model)
    write_manifest(tmp_path / "broken.jsonl", [Utterance("a", str(voices[-1]), "a")])
    assert str(voices[-1]) in complaint("evaluate", tmp_path / "broken.jsonl", *model)


def test_score_two_files(las, complaint, tmp_path):
    (tmp_path / "ref").write_text("발화1\tone two three\nb four\n", encoding="utf-8")
    (tmp_path / "hyp").write_text("b four\n발화1\tOne, too three!\n", encoding="utf-8")
    status, out, _ = las("score", tmp_path / "ref", tmp_path / "hyp")
    assert status == 0
    assert out.splitlines()[:3] == [
        "WER: 25.00% (S 1 D 0 I 0 / N 4), 95% 0.00-33.33% over 2 utterances",
        "CER: 6.67% (S 1 D 0 I 0 / N 15), 95% 0.00-9.09% over 2 utterances",
        "style: basic, on both sides",
    ]
    assert las("score", tmp_path / "ref", tmp_path / "hyp", "--style", "verbatim")[1].startswith("WER: 75.00%")
    assert "unknown text style 'base'" in complaint("score", tmp_path / "ref", tmp_path / "hyp", "--style", "base")
    (tmp_path / "less").write_text("b four\nc five\n")
    assert complaint("score", tmp_path / "ref", tmp_path / "less") == (
        "1 of 2 references have no hypothesis (발화1) and 1 of 2 hypotheses have no reference (c); to be scored, an id "
        "must stand on both sides"
    )
    assert "nowhere: cannot read the texts: No such file" in complaint("score", tmp_path / "ref", tmp_path / "nowhere")
    (tmp_path / "some").write_text("b four\n")
    out = las("score", tmp_path / "ref", tmp_path / "some", "--allow-missing", "-o", tmp_path / 'out "1"')[1]
    assert out.startswith("WER: 75.00% (S 0 D 3 I 0 / N 4)")
    assert out.endswith("without hypothesis, counted as deleted: 1: 발화1\n")
    assert {path.name for path in (tmp_path / 'out "1"').iterdir()} == {
        "some.jsonl", "report.json", "report.txt", "report.html",
    }  # fmt: skip


def test_compare_files(las, complaint, tmp_path):
    (tmp_path / "ref").write_text("a one two three\nb four\n", encoding="utf-8")
    (tmp_path / "h1").write_text("a one too three\nb 사\n", encoding="utf-8")
    (tmp_path / "h2").write_text("a one two three\nb four\n", encoding="utf-8")
    status, out, err = las(
        "compare", tmp_path / "h1", tmp_path / "h2", "--reference", tmp_path / "ref", "-o", tmp_path / "c"
    )
    assert (status, err) == (0, "")
    assert "\nB - A: -50.00 points, 95% -100.00 to -33.33\n" in out
    assert (tmp_path / "c/compare.txt").read_text(encoding="utf-8") == out
    assert json.loads((tmp_path / "c/compare.json").read_text(encoding="utf-8"))["systems"][1]["wer"]["rate"] == 0.0
    assert "h1: holds no references" in complaint("compare", tmp_path / "h1", tmp_path / "h2")
    assert "give the hypotheses of two systems or more" in complaint(
        "compare", tmp_path / "h1", "--reference", tmp_path / "ref"
    )


def test_a_folder_that_cannot_be_written_is_seen_before_the_work(complaint, random_model, corpus, tmp_path):
    (tmp_path / "file").write_text("in the way")
    words = ("evaluate", corpus / "valid.jsonl", "--model", random_model, "-o", tmp_path / "file/out")
    assert complaint(*words) == f"{tmp_path}/file/out: Not a directory"


def test_hypotheses_keep_awkward_ids(las, random_model, tools, tmp_path):
    wave = tools.write_wav(tmp_path / "a.wav", tools.sing("ab"))
    ids = ["화자 1/발화.2", "it's", "a b", '"q"', "{", "tab\there", " at both ends "]
    write_manifest(tmp_path / "set.jsonl", [Utterance(id, str(wave), "ab") for id in ids])
    out = las("evaluate", tmp_path / "set.jsonl", "--model", random_model, "-o", tmp_path / "out")[1]
    again = las("score", tmp_path / "set.jsonl", tmp_path / "out/set.jsonl")[1]
    assert again.startswith(out.split("\t")[1].replace("WER", "WER:"))
    assert len(read_manifest(tmp_path / "set.jsonl")) == len(ids)


def test_hot_words_come_as_words_or_as_a_file(las, complaint, trained, corpus, tmp_path):
    recording = next(one.audio for one in read_manifest(corpus / "valid.jsonl") if one.text == "ab")
    model = ("--model", trained / "model")
    words = tmp_path / "말.txt"
    words.write_text("cc\n\nbb\n", encoding="utf-8")
    for hot in ("cc, bb,", words):
        status, out, err = las("transcribe", recording, *model, "--hot-words", hot, "--hot-word-bonus", "8")
        assert (status, err) == (0, "")
        assert "cc" in out or "bb" in out
    assert las("transcribe", recording, *model, "--hot-words", "cc", "--hot-word-bonus", 0)[1].strip() == "ab"
    assert "hot word '서울': the model's tokens cannot write '서울'" in complaint(
        "transcribe", recording, *model, "--hot-words", "서울"
    )
