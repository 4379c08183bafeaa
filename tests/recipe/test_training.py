from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from las import checkpoint
from las import config as settings
from las.data.loader import Loader
from las.data.manifest import Utterance, read_manifest
from las.data.sharding import write_shards
from las.data.shards import read_index
from las.errors import UserError
from las.recipe import training
from las.recipe.config import RunConfig
from las.recipe.models import open_model
from las.recipe.training import train
from las.text.tokenizer import Tokenizer, train_tokenizer
from las.train import run_folder

PNG = b"\x89PNG\r\n\x1a\n"

STILL = (
    "model.listener.dropout=0", "model.speller.dropout=0", "train.objective.label_smoothing=0",
    "model.spec_augment.time_masks=0", "model.spec_augment.frequency_masks=0",
)  # fmt: skip


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Without TensorBoard, which takes a while to start; `test_loop.py` looks at it."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


@pytest.fixture
def run(run_config, tools, tmp_path):
    """A function that trains in tmp_path/NAME; the run folder is returned."""

    def start(*words, name="run", resume=False, during=None):
        train(run_config(*words), tmp_path / name, resume, tools.quiet(during))
        return tmp_path / name

    return start


def stop_after(number):
    return lambda updates: updates == number and os.kill(os.getpid(), signal.SIGTERM)


def model_weights(folder):
    return checkpoint.read_weights(folder / "model" / checkpoint.WEIGHTS)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_lengths(config):
    """The config as the run had it: a model folder also says how long its training recordings were."""
    return replace(config, search=replace(config.search, whole=0.0, piece=0.0))


def test_a_run_folder_has_what_is_promised(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        ".lock", "attention", "checkpoints", "config.yaml", "left_out.jsonl", "log.jsonl", "model", "state.earlier.pt",
        "state.pt", "tensorboard",
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(PNG) for path in (trained / "attention").iterdir())
    assert len(list((trained / "attention").iterdir())) == 4
    assert 2 <= len(list((trained / "checkpoints").iterdir())) <= 4  # the best two of each of the last two states
    assert (trained / "left_out.jsonl").read_text() == ""
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["kind"] for line in log} == {"train", "epoch", "valid", "averaged"}
    losses = [line["loss"] for line in log if line["kind"] == "train"]
    assert losses[-1] < 0.3 * losses[0]
    assert log[-1]["kind"] == "averaged"
    assert log[-1]["wer"] == 0.0


@pytest.mark.parametrize(
    "words",
    [
        ["model.speller.context=initial"],
        ["model.speller.context=every_step", "model.speller.cell=gru", "model.listener.cell=gru"],
        ["model.speller.attention.kind=windowed", "model.speller.attention.window=5"],
        ["model.speller.attention.kind=additive", "model.speller.input_feeding=false"],
    ],
)
def test_every_decoder_trains_stops_resumes_and_transcribes(run, corpus, words):
    """Interrupted or not, the same weights come out; greedy and beam search run; pictures are drawn."""
    words = ["train.epochs=2", *words]
    whole = run(*words, name="whole")
    assert list((whole / "attention").iterdir())
    with pytest.raises(UserError, match="interrupted"):
        run(*words, name="stopped", during=stop_after(3))
    assert same(model_weights(whole), model_weights(run(*words, name="stopped", resume=True)))
    recognizer, config = open_model(whole / "model")
    assert without_lengths(config) == settings.load(RunConfig, whole / "config.yaml")
    sources = [utterance.audio for utterance in read_manifest(corpus / "valid.jsonl")]
    assert len(list(recognizer.transcribe(sources))) == len(sources)


def test_a_model_folder_is_whole_and_transcribes(trained, corpus):
    folder = trained / "model"
    assert {path.name for path in folder.iterdir()} - {"calibration.json"} == {  # which the fixture put there
        "README.md", "config.yaml", "model.safetensors", "tokenizer.model",
    }  # fmt: skip
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "8 utterances" in card
    assert "WER 0.00%" in card
    assert (folder / "tokenizer.model").read_bytes() == (corpus / "tokenizer.model").read_bytes()
    recognizer, config = open_model(folder)
    assert without_lengths(config) == settings.load(RunConfig, trained / "config.yaml")
    assert config.search.whole >= config.search.piece > 0
    utterances = read_manifest(corpus / "valid.jsonl")
    texts = [one.text for one in recognizer.transcribe([utterance.audio for utterance in utterances])]
    assert texts == [utterance.text for utterance in utterances]


def test_the_model_is_the_mean_of_the_best_weights(trained):
    best = checkpoint.read_state(trained / "state.pt")["progress"]["best"]
    files = [trained / "checkpoints" / f"{update:06d}.safetensors" for *_, update in best]
    one, other = (checkpoint.read_weights(file) for file in files)
    mean = model_weights(trained)
    assert all(torch.allclose(mean[name], (one[name] + other[name]) / 2, atol=1e-7) for name in mean)


def test_features_are_normalised_by_the_training_data(trained):
    weights = model_weights(trained)
    assert weights["frontend.mean"].abs().min() > 0.1
    assert weights["frontend.deviation"].min() > 0


def test_with_the_mean_of_each_utterance_none_is_left_in_the_training_data(run):
    weights = model_weights(run("train.epochs=1", "model.frontend.utterance_mean=true"))
    assert weights["frontend.mean"].abs().max() < 1e-5
    assert weights["frontend.deviation"].min() > 0.1


def test_the_same_seed_gives_the_same_model(run):
    one = model_weights(run("train.epochs=1", name="one"))
    assert same(one, model_weights(run("train.epochs=1", name="again")))
    assert not same(one, model_weights(run("train.epochs=1", "train.seed=1", name="other")))


def test_interrupted_and_resumed_gives_the_model_of_an_uninterrupted_run(run, tmp_path):
    whole = run("train.epochs=2", name="whole")
    with pytest.raises(UserError, match="interrupted at update 2; continue with --resume"):
        run("train.epochs=2", during=stop_after(2))
    assert not (tmp_path / "run" / "model").exists()
    resumed = run("train.epochs=2", resume=True)
    assert same(model_weights(whole), model_weights(resumed))


def test_a_resumed_run_does_not_read_its_texts_again(run, monkeypatch):
    """Tens of thousands of them, which took longer than all else."""
    with pytest.raises(UserError, match="interrupted at update 2"):
        run("train.epochs=2", during=stop_after(2))
    monkeypatch.setattr(training, "check_ctc_paths", None)
    run("train.epochs=2", resume=True)


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(run):
    folder = run("train.epochs=1")
    (folder / "model/calibration.json").write_text("{}")  # what is fitted to a model lies in its folder
    (folder / "model/config.yaml").write_text((folder / "model/config.yaml").read_text() + "# tuned\n")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    run("train.epochs=1", resume=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_that_ended_before_its_model_was_made_makes_it(run):
    first = model_weights(folder := run("train.epochs=1"))
    shutil.rmtree(folder / "model")
    assert same(first, model_weights(run("train.epochs=1", resume=True)))


def test_statistics_are_those_of_all_lengths_where_the_first_epoch_is_sorted(run_config, corpus, monkeypatch):
    monkeypatch.setattr(training, "STATISTICS_SECONDS", 1.0)
    config = run_config("data.sorted_first=true", "data.batch_seconds=1").data
    index, tokens = read_index(corpus / "shards/train"), Tokenizer.load(corpus / "tokenizer.model")
    loader = Loader(index, tokens, 8000, config, shuffle=True, seed=0)
    shortest = [entry.id for entry in loader.plan(0)[0]]
    assert [batch.ids for batch in training._some_batches(loader)] != [shortest]


def test_a_run_stopped_before_its_first_state_begins_anew_when_resumed(run, tmp_path):
    folder = run("train.epochs=1")
    before = model_weights(folder)
    (folder / "state.pt").unlink()
    (folder / "state.earlier.pt").unlink(missing_ok=True)
    assert same(before, model_weights(run("train.epochs=1", resume=True)))
    kinds = [json.loads(line)["kind"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert kinds.count("valid") == 1


HOLD = """
from pathlib import Path
from las.train.run_folder import held
with held(Path({!r})):
    print("mine", flush=True)
    input()
"""


def test_one_process_trains_in_a_folder(run, tmp_path):
    """The second is refused before it has changed anything, be it a fresh one or one that resumes."""
    with pytest.raises(UserError, match="interrupted"):
        run("train.epochs=2", during=stop_after(2))
    folder = tmp_path / "run"
    first = subprocess.Popen([sys.executable, "-c", HOLD.format(str(folder))], stdin=-1, stdout=-1, text=True)
    assert first.stdout.readline() == "mine\n"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="run: another process trains there; wait for it, or name another folder"):
        run("train.epochs=2", resume=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    first.kill()
    first.communicate()
    run("train.epochs=2", resume=True)


def test_a_run_that_began_meanwhile_is_left_alone(run, tmp_path, monkeypatch):
    held = run_folder.held

    def begun(folder):
        folder.mkdir()
        (folder / "config.yaml").write_text("another's")
        return held(folder)

    monkeypatch.setattr(run_folder, "held", begun)
    with pytest.raises(UserError, match="run: holds a run; continue it with --resume, or name another folder"):
        run("train.epochs=1")
    assert (tmp_path / "run/config.yaml").read_text() == "another's"


def test_nothing_to_resume(run, tmp_path):
    with pytest.raises(UserError, match="run: no run to resume here; leave out --resume to start one"):
        run(resume=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_refused_and_left_as_it_is(run, trained, run_config, tools):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="run: holds a run; continue it with --resume, or name another folder"):
        train(run_config(), trained, False, tools.quiet())
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_a_run_is_resumed_as_it_was_started(run):
    with pytest.raises(UserError, match="interrupted"):
        run("train.epochs=2", during=stop_after(1))
    with pytest.raises(
        UserError, match=r"train.optimizer.rate differs from the run's config.yaml; a run is resumed as"
    ):
        run("train.epochs=2", "train.optimizer.rate=0.5", resume=True)
    run("train.epochs=2", "data.workers=1", "train.save_minutes=9", "data.leave_out=0.5", resume=True)  # harmless


def test_a_run_goes_on_with_its_own_tokens_and_data(run, corpus, tools, tmp_path):
    words = [f"data.tokenizer={tmp_path}/tokenizer.model", f"data.train={tmp_path}/train", "train.epochs=2"]
    shutil.copy(corpus / "tokenizer.model", tmp_path)
    shutil.copytree(corpus / "shards/train", tmp_path / "train")
    with pytest.raises(UserError, match="interrupted"):
        run(*words, during=stop_after(1))
    message = "run: the tokens or the training data are not those that the run was started with; put them back"
    train_tokenizer([*tools.texts, "ab ab ab"], 20, "char", tmp_path / "tokenizer.model")
    with pytest.raises(UserError, match=message):
        run(*words, resume=True)
    shutil.copy(corpus / "tokenizer.model", tmp_path)
    shutil.rmtree(tmp_path / "train")
    write_shards(read_manifest(corpus / "train.jsonl")[1:], tmp_path / "train")
    with pytest.raises(UserError, match=message):
        run(*words, resume=True)
    shutil.rmtree(tmp_path / "train")
    shutil.copytree(corpus / "shards/train", tmp_path / "train")
    run(*words, resume=True)


def test_a_damaged_state_is_said_and_the_one_before_it_taken(run, tmp_path, capsys):
    whole = run("train.epochs=3", name="whole")
    with pytest.raises(UserError, match="interrupted"):
        run("train.epochs=3", "train.save_minutes=0", during=stop_after(3))
    path = tmp_path / "run" / "state.pt"
    path.write_bytes(path.read_bytes()[:-100])
    resumed = run("train.epochs=3", "train.save_minutes=0", resume=True)
    assert re.search(
        r"state.pt: damaged, cannot be resumed: .*; going on from state.earlier.pt\n", capsys.readouterr().err
    )
    assert same(model_weights(whole), model_weights(resumed))


def test_a_state_of_something_else_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="interrupted"):
        run("train.epochs=2", during=stop_after(1))
    (tmp_path / "run/state.earlier.pt").unlink(missing_ok=True)
    torch.save({"a": 1}, tmp_path / "run/state.pt")
    with pytest.raises(UserError, match=r"state\.pt: not the state of a run, cannot be resumed: it holds no progress"):
        run("train.epochs=2", resume=True)


def test_two_damaged_states_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="interrupted"):
        run("train.epochs=2", during=stop_after(1))
    path = tmp_path / "run" / "state.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"state.pt: damaged, cannot be resumed"):
        run("train.epochs=2", resume=True)


def train_on_one_thread(config, folder, tools):
    """A forked process must not use the threads of its parent, which it has not."""
    torch.set_num_threads(1)
    train(config, folder, (folder / "config.yaml").exists(), tools.quiet())


def train_until_killed(config, tools, folder, seconds):
    """Train in a process that is killed when it has gone on for so long; whether it was."""
    process = multiprocessing.get_context("fork").Process(target=train_on_one_thread, args=(config, folder, tools))
    process.start()
    patience = time.perf_counter() + 60
    while process.is_alive() and not (folder / "config.yaml").exists():  # it is still trying things out
        assert time.perf_counter() < patience
        time.sleep(0.001)
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize(("kills", "workers"), [(3, 0), pytest.param(200, 1, marks=pytest.mark.slow)], ids=["3", "200"])
def test_killed_at_random_moments_and_resumed_gives_the_same_model(run_config, tools, tmp_path, kills, workers):
    """With augmentation, masks, dropout and a moving average; a state is saved after every update.

    A run that comes to its end gives way to another, until there were so many kills.
    """
    words = ["augment.speeds=[0.9,1.0,1.1]", "train.moving_average=0.9", "model.listener.dropout=0.2",
             "train.epochs=6", f"data.workers={workers}", "train.save_minutes=0"]  # fmt: skip
    config = run_config(*words)
    threads, chance, killed, runs = torch.get_num_threads(), random.Random(kills), 0, 0
    try:
        started = time.perf_counter()
        train_on_one_thread(config, tmp_path / "whole", tools)
        taken = time.perf_counter() - started
        while killed < kills:
            folder = tmp_path / f"run-{runs}"
            if train_until_killed(config, tools, folder, chance.uniform(0, 0.4 * taken)):
                killed += 1
            else:
                runs += 1
                assert same(model_weights(tmp_path / "whole"), model_weights(folder))
        train_on_one_thread(config, tmp_path / f"run-{runs}", tools)
        assert same(model_weights(tmp_path / "whole"), model_weights(tmp_path / f"run-{runs}"))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.train=", "data.train: Incompatible value"),
        ("data.train=''", "data.train is not set: give it in the config or as data.train=PATH"),
        ("data.valid=''", "data.valid is not set"),
        ("data.tokenizer=''", "data.tokenizer is not set"),
        ("data.train=nowhere", r"nowhere/index.json: no index here; `las shard"),
        ("data.tokenizer=nowhere", "nowhere: cannot read the tokenizer: No such file"),
        ("train.device=cuda:77", r"device 'cuda:77': this machine has \d+ such devices; use device cpu or auto"),
        ("train.device=abacus", "device 'abacus': wanted auto, cpu, cuda or cuda:N"),
        ("init=nobody", r"no model 'nobody': neither a model folder nor one of those that ship"),
    ],
)
def test_a_start_that_fails_does_not_take_the_folder(run, tmp_path, word, message):
    with pytest.raises(UserError, match=message):
        run(word)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train.objective.guide_weight=1", "model.speller.context=initial"],
            "train.objective.guide_weight 1.0: with model.speller.context initial there is no attention to guide",
        ),
        (
            ["model.speller.context=every_step", "train.objective.guide_weight=0.5"],
            "train.objective.guide_weight 0.5: with model.speller.context every_step there is no attention to guide",
        ),
        (
            ["model.ctc=false", "train.objective.ctc_weight_to=0.1", "train.objective.ctc_weight_over=5"],
            "train.objective.ctc_weight_to 0.1: with model.ctc=false there is no CTC loss to weigh",
        ),
        (
            ["train.sampling.share=0.1", "train.objective.ctc_weight=1"],
            "train.sampling.share 0.1: with train.objective.ctc_weight 1 the speller learns nothing from what it reads",
        ),
        (
            ["model.ctc=false", "train.objective.ctc_consistency=0.2"],
            "train.objective.ctc_consistency 0.2: with model.ctc=false there is no CTC branch",
        ),
        (
            ["init=digits", "train.mwer.hypotheses=4", "train.objective.speller_consistency=1"],
            "train.mwer.hypotheses with train.objective's consistency: give only one",
        ),
        (
            [*STILL, "train.objective.speller_consistency=1"],
            "train.objective's consistency without masks and dropout: two passes say the same",
        ),
    ],
)
def test_craft_that_has_nothing_to_work_on_is_refused_by_name(words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        settings.load(RunConfig, None, words)


@pytest.mark.parametrize(
    "words",
    [
        ["model.speller.context=initial", "train.objective.guide_over=10"],
        ["model.ctc=false", "train.objective.ctc_weight=1", "train.sampling.share=0.1"],  # no CTC: all is the speller's
        ["train.sampling.share=0.1", "train.objective.ctc_weight=1", "train.objective.ctc_weight_to=0.3",
         "train.objective.ctc_weight_over=10"],
    ],
)  # fmt: skip
def test_craft_that_has_something_to_work_on_is_not_refused(words):
    settings.load(RunConfig, None, words)


def test_a_validation_set_without_words_fails_before_training(run, run_config, tools, corpus, tmp_path):
    wave = tools.write_wav(tmp_path / "one.wav", tools.sing("ab"))
    write_shards([Utterance("발화", str(wave), "?!")], tmp_path / "valid")
    with pytest.raises(UserError, match=r"data.valid .*valid: no words to validate on in the style basic"):
        run(f"data.valid={tmp_path}/valid")
    assert not (tmp_path / "run").exists()


def test_bf16_runs(run):
    folder = run("train.epochs=1", "train.precision=bf16")
    assert all(value.isfinite().all() for value in model_weights(folder).values())


def test_labels_are_smoothed_by_the_frequencies_of_the_training_tokens(run, tools, corpus, monkeypatch):
    seen = []

    class Watched(training.Trainer):
        def run(self):
            seen.append(self.shares)
            return super().run()

    monkeypatch.setattr(training, "Trainer", Watched)
    run("train.epochs=1", "train.objective.smoothing=unigram")
    run("train.epochs=1", name="uniform")
    shares, none = seen
    tokenizer = Tokenizer.load(corpus / "tokenizer.model")
    letters = "".join(tools.texts)
    (b,) = tokenizer.encode("b")
    assert none is None
    assert shares[b].item() == pytest.approx(letters.count("b") / (len(letters) + len(tools.texts)))
    assert shares.sum().item() == pytest.approx(1)


def test_leavings_are_written_down(run, run_config, tools, tmp_path, capsys):
    for name in ("train", "valid"):
        paths = [tools.write_wav(tmp_path / f"{n}.wav", tools.sing(text, n)) for n, text in enumerate(tools.texts)]
        texts = [*tools.texts[:-1], "bㅋ"]
        write_shards([Utterance(f"{name}{n}", str(path), texts[n]) for n, path in enumerate(paths)], tmp_path / name)
    data = (f"data.train={tmp_path}/train", f"data.valid={tmp_path}/valid", "data.leave_out=0.2")
    folder = run(*data, "train.epochs=1")
    found = [json.loads(line) for line in (folder / "left_out.jsonl").read_text(encoding="utf-8").splitlines()]
    cause = "characters that the tokenizer cannot write"
    assert found == [{"cause": cause, "id": "train7", "detail": "ㅋ"}]  # what validates is judged with its error
    assert f"train: {cause}: 1 (first: train7: ㅋ)" in capsys.readouterr().err


def test_without_matplotlib_tensorboard_and_av_training_works(run, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg", "tensorboard", "av"):
        monkeypatch.setitem(sys.modules, name, None)
    folder = run("train.epochs=1")
    assert (folder / "model" / "model.safetensors").exists()
    assert list((folder / "attention").iterdir()) == []


def test_too_few_frames_for_ctc_stop_the_run_and_say_which_reduction_fits(run, tmp_path):
    with pytest.raises(UserError) as raised:
        run("model.listener.reduce=[4,4]")
    message = str(raised.value)
    assert "of 8 utterances (first: train-" in message
    assert "at a reduction of 16; one of at most " in message
    assert "las tokenizer --size` above 8" in message
    assert message.endswith("or model.ctc=false")
    assert not (tmp_path / "run").exists()
    largest = int(message.split("one of at most ")[1].split(" ")[0])
    run(f"model.listener.reduce=[{largest}]", "train.epochs=1")  # the advice holds
    with pytest.raises(UserError, match=f"at a reduction of {largest + 1}; one of at most {largest} fits"):
        run(f"model.listener.reduce=[{largest + 1}]", name="more")


def test_without_a_ctc_branch_no_path_is_needed(run):
    run("model.listener.reduce=[4,4]", "model.ctc=false", "train.epochs=1")


def test_where_no_reduction_fits_the_hop_is_too_long(run, tools, corpus, tmp_path):
    wave = tools.write_wav(tmp_path / "short.wav", tools.sing("a")[:800])  # 0.1 s: 8 frames
    write_shards([Utterance("짧은", str(wave), "abc abc abc")], tmp_path / "short")
    with pytest.raises(UserError, match=r"1 of 1 utterances \(first: 짧은\).*; a shorter model.frontend.hop may fit"):
        run(f"data.train={tmp_path}/short")


def test_few_utterances_without_a_path_are_counted_and_named(run, tools, tmp_path, capsys):
    wave = tools.write_wav(tmp_path / "short.wav", tools.sing("a"))
    utterances = [Utterance(f"u{number}", str(wave), "a") for number in range(99)]
    utterances.append(Utterance("말이 빠른 사람", str(wave), "abc abc"))
    write_shards(utterances, tmp_path / "many")
    folder = run(f"data.train={tmp_path}/many", "data.batch_seconds=20", "train.epochs=1")
    cause = "fewer listener frames than its tokens need, trained without CTC"
    assert f"train: {cause}: 1 (first: 말이 빠른 사람)" in capsys.readouterr().err
    (line,) = [json.loads(line) for line in (folder / "left_out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert line == {"cause": cause, "id": "말이 빠른 사람", "detail": ""}


SIZES = ("model.speller.width=32", "model.listener.width=24")


def first_loss(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return next(line["loss"] for line in lines if line["kind"] == "valid")


def test_starting_from_a_model_with_the_same_tokens(run, trained):
    words = ("train.epochs=1", "train.optimizer.rate=1e-9", f"init={trained}/model", *SIZES)
    folder = run(*words)
    assert first_loss(folder) < 0.2  # it knows the language already
    before, after = model_weights(trained), model_weights(folder)
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_starting_from_a_model_with_other_tokens(run, trained, tools, corpus, tmp_path):
    train_tokenizer([*tools.texts, "d e f"], 30, "char", tmp_path / "more.model")
    words = ("train.epochs=1", "train.optimizer.rate=1e-9", f"init={trained}/model", *SIZES)
    folder = run(*words, f"data.tokenizer={tmp_path}/more.model")
    before, after = model_weights(trained), model_weights(folder)
    changed = {name for name in before if before[name].shape != after[name].shape}
    assert changed == {
        "speller.embedding.weight", "speller.output.weight", "speller.output.bias", "ctc.output.weight",
        "ctc.output.bias",
    }  # fmt: skip
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before.keys() - changed)


def test_starting_from_a_model_of_another_shape_is_refused(run, trained):
    with pytest.raises(UserError, match=r"init=.*model: '[\w.]+' has shape \("):
        run(f"init={trained}/model")


def test_starting_from_a_model_that_hears_otherwise_is_refused(run, trained):
    with pytest.raises(UserError, match=r"init=.*: model.frontend.hop is 0.01 there and 0.02 here; its weights know"):
        run(f"init={trained}/model", "model.frontend.hop=0.02", *SIZES)


FINE = ("train.mwer.hypotheses=3", "train.optimizer.rate=0.003", "data.batch_seconds=1.5", *SIZES)


def test_fine_tuning_for_word_errors_can_be_interrupted_and_resumed(run, trained):
    words = (*FINE, "train.epochs=2", f"init={trained}/model")
    whole = run(*words, name="whole")
    with pytest.raises(UserError, match="interrupted"):
        run(*words, during=stop_after(2))
    assert same(model_weights(run(*words, resume=True)), model_weights(whole))


def test_fine_tuning_makes_fewer_word_errors(run, trained, tmp_path, monkeypatch):
    """Of a model that makes some: a good one with noise on its weights."""
    monkeypatch.setattr("las.train.loop.LOG_EVERY", 1)
    start = shutil.copytree(trained / "model", tmp_path / "start")
    torch.manual_seed(0)
    weights = model_weights(trained)
    noisy = {name: value + 0.25 * torch.randn_like(value) for name, value in weights.items() if "speller" in name}
    checkpoint.write_weights(start / checkpoint.WEIGHTS, weights | noisy)
    folder = run(*FINE, *STILL, "train.epochs=6", "train.optimizer.rate=0.0015", f"init={start}")
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    errors = [line["expected_errors"] for line in log if line["kind"] == "train"]  # of 1.6 words an utterance
    half = len(errors) // 2
    assert sum(errors[half:]) < 0.95 * sum(errors[:half])  # .32 to .89 with 8 seeds, 1 and 2 threads
    wrong = [line["wer"] for line in log if line["kind"] in ("valid", "averaged")]
    assert wrong[-1] <= wrong[0]  # of 13 words, the first after an epoch


@pytest.mark.parametrize(("said", "heard", "errors"), [
    ("하나 둘", "하나 셋", 1), ("하나 둘", "", 2), ("", "둘", 1), ("하나 둘", "하나둘", 2), ("Ab c", "ab C", 0),
])  # fmt: skip
def test_errors_in_fine_tuning_are_those_of_the_words(random_model, tmp_path, said, heard, errors):
    recognizer, config = open_model(random_model, "cpu", ["init=somewhere", "train.mwer.hypotheses=2"])
    tokenizer = train_tokenizer(["하나 둘 셋", "Ab ab c C"], 40, "char", tmp_path / "tokens.model")
    recognizer.tokenizer = tokenizer
    mwer = training._mwer(recognizer, config)
    assert mwer.count(tokenizer.encode(said), tokenizer.encode(heard)) == errors


def test_a_resumed_run_does_not_need_the_model_that_it_began_with(run, random_model):
    words = ("train.epochs=2", f"init={random_model}")
    whole = run(*words, name="whole")
    with pytest.raises(UserError, match="interrupted"):
        run(*words, during=stop_after(2))
    shutil.rmtree(random_model)
    assert same(model_weights(whole), model_weights(run(*words, resume=True)))


def start_training(run_config, folder, *words):
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(settings.to_yaml(run_config("train.epochs=500", "train.validate_every=500", *words)))
    command = [sys.executable, "-m", "las", "train", str(path), "-o", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    log = folder / "log.jsonl"
    until = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 2):
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_with_a_whole_state(run_config, tools, tmp_path, number):
    """Ctrl-C and `timeout` reach every process of the group; the loader's workers must not die of it."""
    wave = tools.write_wav(tmp_path / "ab.wav", tools.sing("ab"))
    write_shards([Utterance(f"u{n}", str(wave), "ab") for n in range(400)], tmp_path / "many")
    words = ("data.workers=2", f"data.train={tmp_path}/many", "data.batch_utterances=1")
    process = start_training(run_config, tmp_path / "run", *words)
    os.killpg(process.pid, number)
    complaint = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "Traceback" not in complaint
    last = complaint.strip().splitlines()[-1]
    assert last.startswith("las: interrupted at update ")
    assert last.endswith("; continue with --resume")
    state = checkpoint.read_state(tmp_path / "run" / "state.pt")
    assert state["progress"]["update"] == int(last.split("update ")[1].split(";")[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.listener.reduce=[1,2]", "train.growth=[5]"], r"train.growth \[5\]: 1 layers cannot join a"),
        (["train.growth=[5]", "init=digits"], "train.growth with init=digits: a trained listener has grown already"),
        (["train.growth=[6]", "train.epochs=2"], r"train.growth \[6\]: the run is over before the last layer joins"),
        (["train.mwer.hypotheses=4"], "train.mwer.hypotheses without init: it is for models that are trained; give"),
    ],
)
def test_growth_and_fine_tuning_that_cannot_be_do_not_take_the_folder(run, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        run("model.listener.reduce=[1,2,1]", *words)
    assert not (tmp_path / "run").exists()


def test_a_grown_model_is_a_model_like_any_other(run):
    folder = run("model.listener.reduce=[1,2,1]", "train.growth=[4]", "train.epochs=3")
    recognizer, config = open_model(folder / "model", "cpu")
    assert config.train.growth == (4,)
    assert recognizer.model.listener.running == 3
