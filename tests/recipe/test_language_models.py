"""`las lm`, from text to a model and its perplexity, as the command line does it."""

from __future__ import annotations

import lzma
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch

from las import cli
from las import config as settings
from las.cli import progress
from las.errors import UserError
from las.recipe import language_models
from las.search.language_model import sentence_scores
from las.text.tokenizer import BLANK, BOS, EOS, train_tokenizer

SENTENCES = ["The cat sat.", "A cat sat", "the DOG sat on a cat!", "a dog"] * 30
TINY = ("model.width=16", "model.embedding=8", "train.optimizer.rate=0.02", "train.optimizer.warmup=2",
        "train.device=cpu", "train.epochs=6", "data.batch_tokens=100")  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """train.txt.xz, valid.txt and tokenizer.model."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "train.txt.xz").write_bytes(lzma.compress("\n".join(SENTENCES).encode()))
    (folder / "valid.txt").write_text("the cat sat\na dog sat\n", encoding="utf-8")
    train_tokenizer([sentence.lower().strip(".!") for sentence in SENTENCES], 20, "unigram", folder / "tokenizer.model")
    return folder


@pytest.fixture(scope="module")
def paths(text):
    return (
        f"data.train=[{text}/train.txt.xz]",
        f"data.valid=[{text}/valid.txt]",
        f"data.tokenizer={text}/tokenizer.model",
    )


@pytest.fixture
def las(monkeypatch, capfd):
    """A function that runs the command line in this process: words -> exit status, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["las", *(str(word) for word in words)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        return status, *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def trained(text, paths, tmp_path_factory):
    """The folder of a small language model."""
    folder = tmp_path_factory.mktemp("lm")
    config = settings.load(language_models.LanguageModelRunConfig, None, [*TINY, *paths])

    class Quiet:
        def training(self, done, epoch, figures): ...

        def foretold(self, epoch, update, found): ...

        def warned(self, message): ...

    return language_models.train(config, folder / "run", False, Quiet())


def test_training_makes_a_folder_and_leaves_no_text(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        "README.md", "config.yaml", "model.safetensors", "tokenizer.model",
    ]  # fmt: skip
    assert [path.name for path in trained.parent.iterdir() if path.name.endswith(".part")] == []
    card = (trained / "README.md").read_text(encoding="utf-8")
    assert re.search(r"train.txt.xz: 120 sentences, 420 words, \d+ tokens", card)
    assert re.search(r"6 words, perplexity per word \d", card)


def test_train_prints_its_folder_its_validations_and_its_keys(las, paths, tmp_path):
    status, out, err = las("lm", "train", *TINY, *paths, "train.epochs=1", "-o", tmp_path / "run")
    assert (status, out) == (0, f"{tmp_path}/run/language_model\n"), err
    assert re.search(r"epoch 1 update \d+: perplexity per token \d+\.\d{3} word \d", err)
    status, out, err = las("lm", "train", "--keys")
    assert (status, err) == (0, "")
    assert "model.skip=True\tbool\twhether every layer sees the input and feeds the output" in out
    assert "(required)" not in out
    assert all(len(line.split("\t")) == 3 and line.split("\t")[2] for line in out.splitlines())
    assert las("lm", "train", "a.yaml")[0] == 2  # no folder


def test_text_beside_the_run_stays(las, paths, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text/valid").write_text("the cat sat\n")
    assert las("lm", "train", *TINY, *paths, "train.epochs=1", "-o", tmp_path)[0] == 0
    assert (tmp_path / "text/valid").read_text() == "the cat sat\n"


def test_a_run_is_refused_resumed_and_comes_to_the_same(las, paths, tmp_path, monkeypatch):
    words = (*TINY, *paths, "train.epochs=2", "-o")
    assert las("lm", "train", *words, tmp_path / "whole")[0] == 0
    whole = (tmp_path / "whole/language_model/model.safetensors").read_bytes()
    before = progress.LanguageModelBar.training

    def stop(self, done, epoch, figures):
        before(self, done, epoch, figures)
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(progress.LanguageModelBar, "training", stop)
    status, out, err = las("lm", "train", *words, tmp_path / "run")
    assert (status, out) == (1, "")
    assert "continue with --resume" in err
    assert (tmp_path / "run/tokenized.part/train/store.json").exists()
    monkeypatch.setattr(progress.LanguageModelBar, "training", before)
    assert "holds a run; continue it with --resume" in las("lm", "train", *words, tmp_path / "run")[2]
    assert "train.epochs differs" in las("lm", "train", "train.epochs=3", "--resume", "-o", tmp_path / "run")[2]
    tokens = next(Path(word.partition("=")[2]) for word in paths if word.startswith("data.tokenizer="))
    own = tokens.read_bytes()
    train_tokenizer(["the cat"], 20, "char", tokens)
    message = las("lm", "train", "--resume", "-o", tmp_path / "run")[2]
    tokens.write_bytes(own)
    assert f"{tokens}: not what the run was started with; put it back, or start another run" in message
    assert las("lm", "train", "--resume", "-o", tmp_path / "run")[0] == 0
    assert (tmp_path / "run/language_model/model.safetensors").read_bytes() == whole
    (tmp_path / "run/language_model/README.md").write_text("mine")
    assert las("lm", "train", "--resume", "-o", tmp_path / "run")[0] == 0  # nothing is left to do
    assert (tmp_path / "run/language_model/README.md").read_text() == "mine"
    assert (tmp_path / "run/language_model/model.safetensors").read_bytes() == whole


def test_a_language_model_starts_from_another(las, text, trained, paths, tmp_path):
    scored = las("lm", "score", text / "valid.txt", "--model", trained)[1]
    started = float(scored.split("per token ")[1].split(",")[0])
    words = (*TINY, *paths, f"init={trained}", "train.epochs=1", "train.optimizer.rate=1e-9")
    status, _, err = las("lm", "train", *words, "-o", tmp_path / "run")
    assert status == 0, err
    assert float(err.split("perplexity per token ")[-1].split()[0]) == pytest.approx(started, abs=2e-3)
    status, _, err = las("lm", "train", *words, "model.width=8", "-o", tmp_path / "other")
    assert (status, err.count("\n")) == (1, 1)
    assert f"init={trained}: " in err
    assert "has shape" in err
    train_tokenizer(["the cat"], 20, "char", tmp_path / "other.model")
    status, _, err = las("lm", "train", *words, f"data.tokenizer={tmp_path}/other.model", "-o", tmp_path / "other")
    assert (status, err.count("\n")) == (1, 1)
    assert f"init={trained}: a language model of " in err


def test_ngrams_are_estimated_scored_and_better_than_chance(las, text, trained, tmp_path):
    arpa = tmp_path / "new" / "lm.arpa.gz"
    words = (text / "train.txt.xz", "--tokenizer", trained, "--order", 3, "--cutoffs", "0,1", "-o", arpa)
    status, out, err = las("lm", "ngram", *words)
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"{arpa}: 1\d 1-grams, \d+ 2-grams, \d+ 3-grams\n", out)
    status, out, err = las("lm", "score", text / "valid.txt", "--model", arpa, "--tokenizer", trained)
    assert (status, err) == (0, "")
    found = re.match(
        r"perplexity per token (\d+\.\d{3}), per word (\d+\.\d\d)\n2 sentences, 6 words, (\d+) tokens", out
    )
    per_token, per_word, tokens = map(float, found.groups())
    assert 1 < per_token < 5
    assert per_word == pytest.approx(per_token ** (tokens / 8), rel=0.01)


def test_score_of_an_lstm_is_that_of_training(las, text, trained):
    card = (trained / "README.md").read_text(encoding="utf-8")
    status, out, err = las("lm", "score", text / "valid.txt", "--model", trained, "--device", "cpu")
    assert (status, err) == (0, "")
    wanted = re.search(r"perplexity per word (\S+), per token (\S+) ", card)
    found = re.match(r"perplexity per token (\S+), per word (\S+)\n", out)
    assert float(found[1]) == pytest.approx(float(wanted[2]), abs=0.01)
    assert float(found[2]) == pytest.approx(float(wanted[1]), abs=0.1)


def test_unknown_tokens_are_told_of(las, trained, tmp_path):
    (tmp_path / "x.txt").write_text("the cat\n" * 90 + "the caté\n", encoding="utf-8")
    out = las("lm", "score", tmp_path / "x.txt", "--model", trained)[1]
    assert "ends of sentences, 1 tokens unknown\n" in out


def test_samples_are_the_seeds(las, text, trained, tmp_path):
    def draw(*words):
        status, out, err = las("lm", "sample", "--model", trained, "--device", "cpu", *words)
        assert (status, err) == (0, "")
        return out.splitlines()

    assert len(draw()) == 10
    assert draw("--seed", 1) == draw("--seed", 1) != draw("--seed", 2)
    assert len(set(draw("--temperature", 0.01, "--sentences", 20))) == 1
    las("lm", "ngram", text / "train.txt.xz", "--tokenizer", trained, "-o", tmp_path / "lm.arpa")
    out = las("lm", "sample", "--model", tmp_path / "lm.arpa", "--tokenizer", trained, "--sentences", 50)[1]
    assert {"cat", "dog"} <= set(out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "-o", "run"], "data.train is not set: give it in the config or as data.train=PATH"),
        (["train", "--resume", "-o", "run"], "run/config.yaml: no such config file"),
        (["train", "model.widht=3", "-o", "run"], "unknown key 'model.widht'; the nearest known key is 'model.width'"),
        (["train", "style=plain", "-o", "run"], "unknown text style 'plain'"),
        (["score", "{valid}", "--model", "nowhere"], "nowhere: no such language model; wanted a folder made by las lm"),
        (["score", "{valid}", "--model", "lm.arpa"], "lm.arpa: an ARPA file says nothing of how text becomes tokens"),
        (["score", "{valid}", "--model", "{lm}", "--style", "x"], "unknown text style 'x'"),
        (["score", "empty.txt", "--model", "{lm}"], "no text to read: no sentence with a character in it"),
        (["score", "{valid}", "--model", "{lm}", "--style", "verbatim", "upper.txt"], "tokens are unknown to the"),
        (["sample", "--model", "{lm}", "--temperature", "nan"], "a sample needs a finite temperature of 0.01 or more"),
        (["sample", "--model", "{lm}", "--temperature", "0"], "a sample needs a finite temperature of 0.01 or more"),
        (["sample", "--model", "{lm}", "--seed", "99999999999999999999"], "seed 99999999999999999999: wanted 0 to"),
        (["ngram", "upper.txt", "--tokenizer", "{lm}", "-o", "upper.txt"], "upper.txt: would overwrite what it is"),
        (["ngram", "empty.txt", "--tokenizer", "{lm}", "-o", "x.arpa"], "no text to count n-grams in"),
        (["ngram", "{valid}", "--tokenizer", "{lm}", "--order", "9", "-o", "x.arpa"], "order 9 of an n-gram model"),
        (
            ["ngram", "{valid}", "upper.txt", "--tokenizer", "{lm}", "--style", "verbatim", "-o", "x.arpa"],
            "tokens are unknown to the tokenizer, more than 1% (first: 'THECA' in 'THE CAT')",
        ),
        (["ngram", "{valid}", "--tokenizer", "no.model", "-o", "x.arpa"], "no.model: cannot read the tokenizer"),
    ],
)
def test_what_cannot_be_done_is_one_line(las, text, trained, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lm.arpa").touch()
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "upper.txt").write_text("THE CAT\n", encoding="utf-8")
    status, out, err = las("lm", *(word.format(valid=text / "valid.txt", lm=trained) for word in words))
    assert (status, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_cutoffs_are_numbers(las, text, trained):
    status, _, err = las("lm", "ngram", text / "valid.txt", "--tokenizer", trained, "--cutoffs", "a", "-o", "x")
    assert status == 2
    assert "wanted numbers such as 0,1,2" in err


@torch.no_grad()
def test_sentence_scores_are_sums_of_log_probabilities(trained):
    opened = language_models.open_language_model(trained, device="cpu")
    ids = opened.tokenizer.encode("a cat sat")
    inputs, targets = torch.tensor([[BOS, *ids, 7]]), torch.tensor([[*ids, EOS, BLANK]])
    scores = sentence_scores(opened.scorer(1), inputs, targets, BLANK)
    scorer = opened.scorer(1)
    state, total = scorer.start(), 0.0
    for token, target in zip([BOS, *ids], [*ids, EOS], strict=True):
        found, state = scorer.step(torch.tensor([[token]]), state)
        total += found[0, 0, target].item()
    assert scores.item() == pytest.approx(total, abs=1e-6)


def test_settings_are_refused_by_name():
    with pytest.raises(UserError, match="unknown text style"):
        language_models.LanguageModelRunConfig(style="none")
