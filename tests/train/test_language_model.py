"""Training a language model: it learns, stops, goes on to the bit, and says what is wrong."""

import json
import math
import os
import signal

import pytest
import torch

from las import config as settings
from las.checkpoint import read_state, read_weights
from las.data.token_store import TextConfig, write_store
from las.errors import UserError
from las.model.language_model import LanguageModel, LanguageModelConfig
from las.text.perplexity import Perplexity
from las.text.tokenizer import Tokenizer, train_model
from las.train.language_model import LanguageModelTrainConfig, LanguageModelTrainer, nats, perplexity

TEXTS = ["abcabc", "cba cba", "aa bb", "c"] * 20
TOKENIZER = Tokenizer(train_model(TEXTS, 50, "char"))
FAST = ("optimizer.rate=0.02", "optimizer.warmup=2", "device=cpu")


class Quiet:
    def __init__(self, during=lambda update: None):
        self.during, self.updates, self.found, self.shares, self.warnings = during, 0, [], [], []

    def training(self, done, epoch, figures):
        self.updates += 1
        self.shares.append(done)
        self.during(self.updates)

    def foretold(self, epoch, update, found):
        self.found.append((epoch, update, found))

    def warned(self, message):
        self.warnings.append(message)


@pytest.fixture
def trainer(tmp_path):
    """A function from words and a reporter to a trainer in a folder of its own, or of that name."""
    store = write_store(tmp_path / "text", TEXTS, TOKENIZER, 100)

    def make(*words, reporter=None, folder="run", dropout=0.2):
        config = settings.load(LanguageModelTrainConfig, None, [*FAST, *words])
        torch.manual_seed(config.seed)
        sizes = LanguageModelConfig(embedding=8, width=16, layers=2, dropout=dropout)
        model = LanguageModel(sizes, TOKENIZER.size)
        (tmp_path / folder).mkdir(exist_ok=True)
        text = TextConfig(batch_tokens=60, pool=40)
        reporter = reporter or Quiet()

        def validate():
            return perplexity(model, store, 100)

        return LanguageModelTrainer(model, store, validate, config, text, tmp_path / folder, reporter)

    return make


def test_it_learns_four_sentences_by_heart(trainer):
    one = trainer("epochs=15", "optimizer.rate=0.06", "validate_every=50", "average=2", dropout=0)
    best = one.run()
    (first, *_), last = one.reporter.found, one.reporter.found[-1]
    assert last[2].loss < 0.32 < first[2].loss  # log(4) for 5.75 tokens is 0.24
    assert len(best) == 2
    assert all(path.exists() for path in best)
    assert one.reporter.shares[-1] == 1.0
    assert last[1] == one.progress.update == 15 * one.plan


@pytest.mark.parametrize("words", [(), ("moving_average=0.9", "optimizer.decay=plateau", "optimizer.patience=1")])
def test_resumed_is_as_uninterrupted_to_the_bit(trainer, tmp_path, words):
    words = ("epochs=4", "validate_every=7", "average=2", *words)
    whole = trainer(*words, folder="whole")
    expected = [read_weights(path) for path in whole.run()]

    def stop(update):
        if update == 17:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(UserError, match="interrupted at update 17; continue with --resume"):
        trainer(*words, reporter=Quiet(stop)).run()
    second = trainer(*words)
    second.restore(read_state(tmp_path / "run/state.pt"))
    assert second.progress.update == 17
    found = [read_weights(path) for path in second.run()]
    for one, other in zip(expected, found, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    kinds = [
        [line["loss"] for line in read_log(tmp_path / name) if line["kind"] == "valid"] for name in ("whole", "run")
    ]
    assert kinds[0] == kinds[1]
    assert second.progress.best == whole.progress.best


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_log_says_how_it_went(trainer, tmp_path):
    trainer("epochs=2", "validate_every=1000").run()
    lines = read_log(tmp_path / "run")
    assert [line["kind"] for line in lines[-1:]] == ["valid"]
    assert {"loss", "rate", "gradient_norm", "seconds", "speed", "epoch"} <= lines[0].keys()
    assert {"loss", "per_token", "per_word"} <= lines[-1].keys()


def test_a_run_that_was_complete_is_not_validated_again(trainer, tmp_path):
    first = trainer("epochs=1")
    first.run()
    second = trainer("epochs=1")
    second.restore(read_state(tmp_path / "run/state.pt"))
    assert second.run() == [tmp_path / "run/checkpoints" / f"{first.progress.update:06d}.safetensors"]
    assert second.reporter.found == []


def test_bf16_learns_too(trainer):
    one = trainer("epochs=8", "precision=bf16", dropout=0)
    one.run()
    assert one.reporter.found[-1][2].loss < 1.3


def test_a_loss_that_runs_away_is_named(trainer):
    one = trainer("epochs=1")
    with torch.no_grad():
        one.model.output.bias[5] = math.nan
    with pytest.raises(UserError, match=r"update 1: the gradient is nan; lower train\.optimizer\.rate"):
        one.run()


def short_of_memory(monkeypatch, room):
    """Batches of more than so many tokens do not fit any more."""
    forward = LanguageModel.forward

    def limited(model, inputs):
        if model.training and inputs.numel() > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(model, inputs)

    monkeypatch.setattr(LanguageModel, "forward", limited)


def test_a_batch_that_does_not_fit_into_memory_is_split_and_told_of(trainer, tmp_path, monkeypatch):
    """Its gradient is that of the whole; the first is told, each is in the log."""
    words = ("epochs=1", "optimizer.clip=0")
    whole = trainer(*words, folder="whole", dropout=0)
    [batch, *_] = (one for one in whole.store.batches(60) if len(one) > 3)
    tokens = int((batch.targets != 0).sum())
    expected = whole._gradient(batch, tokens)
    gradients = [value.grad.clone() for value in whole.parameters]
    whole.optimizer.zero_grad()
    short_of_memory(monkeypatch, 30)
    assert whole._gradient(batch, tokens) == pytest.approx(expected)
    for value, gradient in zip(whole.parameters, gradients, strict=True):
        torch.testing.assert_close(value.grad, gradient)
    cut = trainer(*words)
    cut.run()
    splits = [line for line in read_log(tmp_path / "run") if line["kind"] == "memory"]
    assert len(splits) > 3
    assert all(line["splits"] >= 1 and 30 < line["tokens"] <= 60 for line in splits)
    [warning] = cut.reporter.warnings
    assert (
        f"update {splits[0]['update']}: a batch of {splits[0]['tokens']} tokens did not fit into memory and was split"
        in warning
    )
    assert "lower data.batch_tokens (60)" in warning


def test_a_sentence_that_does_not_fit_alone_is_named(trainer, monkeypatch):
    short_of_memory(monkeypatch, 3)
    wanted = r"update \d: a sentence of \d tokens does not fit into memory; lower data\.longest, or train where"
    with pytest.raises(UserError, match=wanted):
        trainer("epochs=1").run()


def test_padding_costs_nothing_and_batches_change_nothing(tmp_path):
    store = write_store(tmp_path / "s", TEXTS, TOKENIZER, 100)
    model = LanguageModel(LanguageModelConfig(embedding=4, width=4), TOKENIZER.size).double()
    one, other = perplexity(model, store, 1), perplexity(model, store, 100_000)
    assert one.nats == pytest.approx(other.nats, abs=1e-3)
    assert (one.tokens, one.words, one.sentences) == (460, 120, 80)
    targets = torch.tensor([[5, 4, 3], [3, 0, 0]])
    assert nats(torch.zeros(2, 3, 7), targets).item() == pytest.approx(4 * math.log(7), rel=1e-6)


def test_perplexities_of_nothing_and_of_the_hopeless():
    assert Perplexity().per_word == 1.0
    assert Perplexity(1e6, 10, 2, 1).per_word == math.inf


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "train: epochs, validate_every and average must be at least 1"),
        ({"moving_average": 1.0}, "train.moving_average 1.0 must be at least 0 and below 1"),
        ({"precision": "fp8"}, "train.precision 'fp8': wanted one of fp32, bf16"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        LanguageModelTrainConfig(**changes)
    with pytest.raises(UserError, match="data: batch_tokens, longest and pool must be at least 1"):
        TextConfig(pool=0)
