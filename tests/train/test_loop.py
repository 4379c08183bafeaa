from __future__ import annotations

import gc
import json
import os
import signal
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from las.batch import Batch, pad
from las.checkpoint import read_state, read_weights
from las.data.loader import Loader
from las.data.shards import read_index
from las.errors import UserError
from las.model.las import LAS
from las.text.tokenizer import BOS, EOS, Tokenizer
from las.train import loop
from las.train.consistency import disagreement
from las.train.distributed import World
from las.train.log import Log
from las.train.loop import Progress, TrainConfig, Trainer, Validation
from las.train.objectives import guide

STILL = (
    "model.listener.dropout=0", "model.speller.dropout=0",
    "model.spec_augment.time_masks=0", "model.spec_augment.frequency_masks=0",
)  # fmt: skip


def fake_validation(rates=()):
    """A validator that gives these error rates, one after another; then 1.0."""
    left = list(rates)

    def validate():
        rate = left.pop(0) if left else 1.0
        return Validation(1.0, rate, torch.eye(2), ["a", "</s>"], "a")

    return validate


@pytest.fixture
def make(run_config, corpus, tools, tmp_path, monkeypatch):
    """A function that builds a Trainer in tmp_path/NAME from settings; nothing is validated for real.

    `pictures` and TensorBoard's file take a second or so: only where they are looked at.
    """

    def trainer(*words, name="run", during=None, rates=(), double=False, pictures=False):
        if not pictures:
            monkeypatch.setattr(loop, "draw_attention", lambda *_: None)
            monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        config = run_config(*words)
        tokenizer = Tokenizer.load(config.data.tokenizer)
        loader = Loader(read_index(config.data.train), tokenizer, tools.rate, config.data, shuffle=True, seed=0)
        torch.manual_seed(0)
        model = LAS(config.model, tokenizer.size)
        if double:
            model = model.double()
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        reporter = tools.quiet(during)
        return Trainer(model, loader, fake_validation(rates), config.train, folder, BOS, EOS, reporter)

    return trainer


def lines(trainer, kind=None):
    found = [json.loads(line) for line in (trainer.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in found if kind in (None, line["kind"])]


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_falls_and_every_update_is_told(make):
    trainer = make("train.epochs=5", *STILL)
    files = trainer.run()
    losses, shares = trainer.reporter.losses, trainer.reporter.shares
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(losses) == trainer.progress.update == 5 * len(trainer.loader.plan(0))
    assert trainer.progress.audio == pytest.approx(5 * trainer.loader.seconds)
    assert all(file.is_file() for file in files)


def test_the_log_has_a_line_every_ten_updates_and_at_every_validation(make):
    trainer = make("train.epochs=8", rates=[0.5] * 7 + [1 / 3])
    trainer.run()
    updates = trainer.progress.update
    assert [line["update"] for line in lines(trainer, "train")] == list(range(10, updates + 1, 10))
    assert all(
        line.keys() == {"update", "kind", "epoch", "loss", "ctc_loss", "accuracy", "rate", "gradient_norm", "seconds",
                        "speed", "waited"} for line in lines(trainer, "train")
    )  # fmt: skip
    found = lines(trainer, "valid")
    assert [line["epoch"] for line in found] == list(range(1, 9))
    assert found[-1]["wer"] == 0.333333


def test_epochs_are_counted_from_one_in_every_line(make):
    trainer = make("train.epochs=3", rates=[0.5] * 3)
    trainer.run()
    for kind in ("epoch", "valid"):
        assert [line["epoch"] for line in lines(trainer, kind)] == [1, 2, 3]
    assert {line["epoch"] for line in lines(trainer, "train")} <= {1, 2, 3}


def test_an_epoch_that_ends_again_has_one_line(tmp_path):
    """The state was saved after its last update, and the process killed while it was validated."""
    log = Log(tmp_path)
    for kind in ("train", "epoch", "valid"):
        log.write(10, kind, {"epoch": 1})
    log.take_back(10)
    assert [json.loads(line)["kind"] for line in log.path.read_text().splitlines()] == ["train", "epoch", "valid"]
    log.take_back(10, within=True)
    assert [json.loads(line)["kind"] for line in log.path.read_text().splitlines()] == ["train"]
    log.close()


def test_an_epoch_whose_validation_did_not_end_is_told_of_once(make):
    def die():
        raise RuntimeError("power is gone")

    words = ("train.epochs=1", "train.save_minutes=0")  # saves after the last update, too
    first = make(*words)
    first.validate = die
    with pytest.raises(RuntimeError, match="power is gone"):
        first.run()
    assert len(lines(first, "epoch")) == 1
    again = make(*words)
    again.restore(read_state(again.folder / "state.pt"))
    again.run()
    assert [line["kind"] for line in lines(again)] == ["epoch", "valid"]


def test_small_figures_are_not_rounded_away(tmp_path):
    log = Log(tmp_path)
    log.write(3, "train", {"rate": 1.23456789e-9, "epoch": 2})
    log.close()
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line == {"update": 3, "kind": "train", "rate": 1.23457e-09, "epoch": 2}


def test_only_the_best_weights_are_kept(make):
    trainer = make("train.epochs=5", "train.average=2", rates=[0.5, 0.2, 0.9, 0.2, 0.3])
    files = trainer.run()
    plan = trainer.progress.update // 5
    kept = [f"{2 * plan:06d}.safetensors", f"{4 * plan:06d}.safetensors"]  # equal: the earlier first
    assert [file.name for file in files] == kept
    assert sorted(path.name for path in (trainer.folder / "checkpoints").iterdir()) == kept


def test_validation_comes_every_few_epochs_and_at_the_end(make):
    trainer = make("train.epochs=5", "train.validate_every=2", pictures=True)
    trainer.run()
    assert [epoch for epoch, *_ in trainer.reporter.validations] == [2, 4, 5]
    pictures = sorted((trainer.folder / "attention").iterdir())
    assert len(pictures) == 3
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def joined(one: Batch, other: Batch) -> Batch:
    rows = [wave[:n] for batch in (one, other) for wave, n in zip(batch.waves, batch.samples.tolist(), strict=True)]
    texts = [ids[:n] for batch in (one, other) for ids, n in zip(batch.tokens, batch.lengths.tolist(), strict=True)]
    waves, samples = pad(rows)
    tokens, lengths = pad(texts)
    return Batch([*one.ids, *other.ids], waves, samples, tokens, lengths)


def test_two_batches_accumulated_are_one_of_both(make):
    gradients = []
    for name in ("apart", "together"):
        trainer = make(*STILL, "train.optimizer.clip=0", name=name, double=True)
        one, other = list(trainer.loader.epoch(0))[:2]
        trainer.update([one, other] if name == "apart" else [joined(one, other)], plan=2)
        gradients.append({name: value.grad for name, value in trainer.model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        assert torch.allclose(gradients[0][name], gradients[1][name], rtol=1e-4, atol=1e-6), name


def short_of_memory(trainer, most, late=False):
    """The trainer on a machine without memory for more than `most` letters of a batch, padding counted.

    Memory runs out before anything is done or, `late`, when all is done; the batches that were tried are returned.
    """
    backward, tried = trainer._backward, []

    def limited(batch):
        tried.append(batch)
        full = batch.tokens.numel() > most
        if full and not late:
            torch.empty(10**15)
        found = backward(batch)
        if full:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return found

    trainer._backward = limited
    return tried


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("batches", [1, 2])
def test_a_batch_in_halves_is_the_batch(make, batches, late):
    """In float64 nothing else hides the difference; with every part of the objective."""
    gradients, figures = [], []
    for most in (1000, 12):
        words = ("train.objective.guide_weight=1", "train.weight_noise=0.01", "data.batch_seconds=3")
        trainer = make(*STILL, *words, "train.optimizer.clip=0", name=f"{most}", double=True)
        tried = short_of_memory(trainer, most, late)
        torch.manual_seed(5)
        figures.append(trainer.update(list(trainer.loader.epoch(0))[:batches], plan=batches))
        gradients.append({name: value.grad for name, value in trainer.model.named_parameters()})
    assert len(tried) >= 3 * batches
    assert figures[1] == pytest.approx(figures[0], rel=1e-9)
    for name in gradients[0]:
        torch.testing.assert_close(gradients[1][name], gradients[0][name], rtol=1e-8, atol=1e-12, msg=name)


def test_a_batch_that_does_not_fit_is_logged_and_told_of_once(make):
    trainer = make("train.epochs=2", "data.batch_seconds=3", *STILL)
    tried = short_of_memory(trainer, 12)
    trainer.run()
    splits = [batch for batch in tried if batch.tokens.numel() > 12]
    assert len(splits) > 2
    found = lines(trainer, "memory")
    assert sum(line["splits"] for line in found) == len(splits)
    assert found[0]["update"] == 1
    assert found[0]["seconds"] == pytest.approx(splits[0].waves.numel() / 8000, rel=1e-3)
    [warning] = trainer.reporter.warnings
    assert "s of padded audio did not fit into memory and was split in two" in warning
    assert "lower data.batch_seconds (3)" in warning
    assert [line["utterances"] for line in lines(trainer, "epoch")] == [8, 8]
    assert len(trainer.loader.ledger) == 0


def test_an_utterance_that_does_not_fit_is_left_out_and_counted(make):
    """The others' gradient is as if it had not been there: `ba ab`, `bac a` and `a b c` have five letters."""
    words = ("train.epochs=1", "data.leave_out=0.5", "data.batch_seconds=8", "train.optimizer.clip=0", *STILL)
    short, without = make(*words, name="short", double=True), make(*words, name="without", double=True)
    short_of_memory(short, 4)
    short.run()
    ((cause, cases),) = short.loader.ledger.cases.items()
    assert cause == "does not fit into memory"
    assert sorted(cases) == ["train-1", "train-3", "train-5"]
    assert [(line["utterances"], line["left"]) for line in lines(short, "epoch")] == [(5, 3)]
    [batch] = without.loader.epoch(0)
    each = [batch.rows(place, place + 1) for place in range(len(batch))]
    without.update([one for one in each if one.tokens.numel() < 5], plan=1)
    for name, value in without.model.named_parameters():
        gradient = short.model.get_parameter(name).grad
        torch.testing.assert_close(gradient, value.grad, rtol=1e-8, atol=1e-12, msg=name)


def test_where_too_much_does_not_fit_the_run_stops(make):
    trainer = make("train.epochs=1", "data.leave_out=0.3", *STILL)
    short_of_memory(trainer, 4)
    with pytest.raises(
        UserError, match=r"3 of 8 utterances left out, .*memory: 3 .*; lower data.longest, or train whe"
    ):
        trainer.run()


def test_an_update_of_which_nothing_fits_is_none(make):
    trainer = make("train.epochs=1", "data.leave_out=1", *STILL)
    before = weights(trainer)
    short_of_memory(trainer, 0)
    trainer.run()
    assert trainer.progress.update == 0
    assert same(weights(trainer), before)
    assert [(line["utterances"], line["left"]) for line in lines(trainer, "epoch")] == [(0, 8)]


@pytest.mark.parametrize(
    "words",
    [
        ("train.accumulate=2",),
        ("train.weight_noise=0.05",),
        ("train.sampling.share=0.5",),
        ("train.objective.speller_consistency=1", "train.objective.pass_speeds=[0.9,1.0,1.1]"),
    ],
)
def test_resuming_is_exact_where_batches_are_split(make, words):
    """However far an attempt comes before memory runs out."""
    words = ("train.epochs=2", "data.batch_seconds=2", *words)
    whole = make(*words, name="whole")
    tried = short_of_memory(whole, 12)
    whole.run()
    assert any(batch.tokens.numel() > 12 for batch in tried)
    first = make(*words, during=lambda updates: updates == 1 and os.kill(os.getpid(), signal.SIGTERM))
    short_of_memory(first, 12, late=True)
    with pytest.raises(UserError, match="interrupted at update 1"):
        first.run()
    second = make(*words)
    second.restore(read_state(second.folder / "state.pt"))
    short_of_memory(second, 12, late=True)
    second.run()
    assert same(weights(second), weights(whole))
    assert lines(second, "memory") == lines(whole, "memory")


def test_accumulation_makes_fewer_updates_of_the_same_audio(make):
    trainer = make("train.epochs=2", "train.accumulate=2")
    trainer.run()
    assert trainer.progress.update == 2 * -(-len(trainer.loader.plan(0)) // 2)
    assert trainer.progress.audio == pytest.approx(2 * trainer.loader.seconds)


def test_a_gradient_is_clipped(make):
    steps = []
    for clip in (0, 1e-6):
        trainer = make(*STILL, f"train.optimizer.clip={clip}", name=f"clip{clip}")
        figures = trainer.update(list(trainer.loader.epoch(0))[:1], plan=1)
        norm = torch.cat([value.grad.flatten() for value in trainer.model.parameters()]).norm().item()
        steps.append((figures["gradient_norm"], norm))
    assert steps[0][0] == pytest.approx(steps[0][1], rel=1e-4)
    assert steps[1][0] == pytest.approx(steps[0][0], rel=1e-4)  # told as it was
    assert steps[1][1] == pytest.approx(1e-6, rel=1e-2)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_ids(make):
    def poison(updates):
        if updates == 2:
            trainer.model.speller.output.bias.data[0] = float("nan")

    trainer = make(during=poison)
    third = list(trainer.loader.epoch(0))[2].ids
    with pytest.raises(UserError) as raised:
        trainer.run()
    assert str(raised.value).startswith(f"update 3, utterances {', '.join(third)}: the loss is nan; lower train.opti")


def test_a_gradient_that_is_no_number_stops_the_run_and_names_the_ids(make, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    trainer = make()
    before = weights(trainer)
    with pytest.raises(UserError, match=r"update 1, utterances train-\d.*: the gradient is inf; lower train.optimizer"):
        trainer.run()
    assert same(weights(trainer), before)


def test_utterances_without_a_ctc_path_are_counted_and_named(make):
    trainer = make("train.epochs=1", "model.listener.reduce=[4,4]")  # 2 frames a letter become 1 or fewer
    trainer.run()
    ((cause, cases),) = trainer.ledger.cases.items()
    assert cause == "fewer listener frames than its tokens need, trained without CTC"
    assert "train-4" in cases  # "cc b": a blank must stand between the two c


def test_bf16_trains(make):
    trainer = make("train.epochs=4", "train.precision=bf16", *STILL)
    trainer.run()
    assert sum(trainer.reporter.losses[-2:]) < sum(trainer.reporter.losses[:2])
    assert {value.dtype for value in trainer.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_interrupted_and_resumed_is_uninterrupted(make, number, after):
    words = ("train.epochs=3",)  # 3 updates each; after 3 the epoch is over but not yet validated
    whole = make(*words, name="whole")
    whole.run()

    def stop(updates):
        if updates == after:
            os.kill(os.getpid(), number)

    first = make(*words, during=stop)
    before = signal.getsignal(number)
    with pytest.raises(UserError, match=f"interrupted at update {after}; continue with --resume"):
        first.run()
    assert signal.getsignal(number) is before
    second = make(*words)
    second.restore(read_state(second.folder / "state.pt"))
    assert second.progress.update == after
    second.run()
    assert same(weights(second), weights(whole))
    assert second.progress.best == whole.progress.best
    assert second.progress.update == whole.progress.update
    assert whole.reporter.losses[after:] == second.reporter.losses


@pytest.mark.parametrize("words", [
    ("train.accumulate=2",), ("data.workers=1",), ("train.precision=bf16",), ("train.moving_average=0.9",),
    ("train.weight_noise=0.05",), ("train.optimizer.kind=adadelta",),
    ("train.sampling.share=0.8", "train.sampling.start=1", "train.sampling.over=2"),
])  # fmt: skip
def test_resuming_is_exact_with_other_settings_too(make, words):
    words = ("train.epochs=2", "data.batch_seconds=0.8", *words)
    whole = make(*words, name="whole")
    whole.run()
    first = make(*words, during=lambda updates: updates == 2 and os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(UserError, match="interrupted at update 2"):
        first.run()
    second = make(*words)
    second.restore(read_state(second.folder / "state.pt"))
    second.run()
    assert same(weights(second), weights(whole))
    assert same(second.moving.weights, whole.moving.weights)


def test_a_plateau_lowers_the_rate_and_a_resumed_run_knows_it(make):
    words = ("train.epochs=4", "train.optimizer.decay=plateau", "train.optimizer.patience=1")
    rates = [0.5, 0.5, 0.4, 0.4]
    whole = make(*words, name="whole", rates=rates)
    whole.run()
    assert whole.progress.plateau.share == 0.25
    first = make(*words, rates=rates, during=lambda updates: updates == 7 and os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(UserError, match="interrupted at update 7"):
        first.run()
    second = make(*words, rates=rates[2:])
    second.restore(read_state(second.folder / "state.pt"))
    assert second.progress.plateau.share == 0.5
    second.run()
    assert second.progress.plateau == whole.progress.plateau
    assert same(weights(second), weights(whole))


def test_the_moving_average_is_what_is_validated_and_kept(make):
    seen = []
    trainer = make("train.epochs=2", "train.moving_average=0.9")
    validate = trainer.validate
    trainer.validate = lambda: (seen.append(weights(trainer)), validate())[1]
    files = trainer.run()
    assert same(seen[-1], weights(trainer) | trainer.moving.weights)
    assert not same(seen[-1], weights(trainer))
    kept = [read_weights(file) for file in files]
    assert any(same(seen[-1], one) for one in kept)


def test_a_moving_average_changes_nothing_in_training(make):
    found = []
    for decay in (0, 0.9):
        trainer = make("train.epochs=2", f"train.moving_average={decay}", name=f"{decay}")
        trainer.run()
        found.append(weights(trainer))
    assert same(*found)


def test_weight_noise_is_there_while_the_gradient_is_taken_and_only_in_its_span(make):
    words = ("train.epochs=2", "train.weight_noise=0.1", "train.weight_noise_start=1", "train.weight_noise_end=3")
    trainer = make(*words, *STILL)
    distances, backward = [], trainer._backward

    def watched(batch):
        clean = trainer.clean
        distances.append((trainer.model.speller.hidden.weight.detach() - clean).std().item())
        return backward(batch)

    def update(group, plan, missing, ask):
        trainer.clean = trainer.model.speller.hidden.weight.detach().clone()
        return step(group, plan, missing, ask)

    step, trainer.update, trainer._backward = trainer.update, update, watched
    trainer.run()
    assert distances[0] == distances[3] == distances[4] == 0
    assert distances[1:3] == pytest.approx([0.1, 0.1], rel=0.2)


def test_labels_are_smoothed_in_their_span(make, monkeypatch):
    trainer = make("train.epochs=2", "train.objective.smoothing_start=1", "train.objective.smoothing_end=4")
    seen, judge = [], loop.losses
    monkeypatch.setattr(loop, "losses", lambda *inputs: (seen.append(inputs[3]), judge(*inputs))[1])
    trainer.run()
    assert seen == [0, 0.1, 0.1, 0.1, 0, 0]


def test_tokens_are_sampled_as_the_schedule_says_in_training_alone(make):
    trainer = make("train.epochs=2", "train.sampling.share=0.8", "train.sampling.start=1", "train.sampling.over=4")
    shares = []
    forward = trainer.model.speller.forward
    trainer.model.speller.forward = lambda *inputs: (shares.append(inputs[2]), forward(*inputs))[1]
    trainer.run()
    assert shares == pytest.approx([0, 0, 0.2, 0.4, 0.6, 0.8])


def test_a_share_of_no_sampled_tokens_changes_nothing(make):
    found = []
    for words in ((), ("train.sampling.share=0.5", "train.sampling.start=1000")):
        trainer = make("train.epochs=1", *words, name=f"run{len(words)}")
        trainer.run()
        found.append(weights(trainer))
    assert same(*found)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_was_trained_on_is_let_go_of_before_the_next_batch(make, precision):
    trainer = make(f"train.precision={precision}")
    (batch, *_) = trainer.loader.epoch(0)
    listen, heard = trainer.model.listen, []

    def watched(*words):
        found = listen(*words)
        heard.append(weakref.ref(found.frames))
        return found

    trainer.model.listen = watched
    found = trainer._backward(batch)
    gc.collect()
    assert found.tokens
    assert [frames() for frames in heard] == [None]


def test_the_weights_of_the_losses_are_those_of_the_update(make):
    """With a CTC weight that has gone to 1 nothing is left that the speller learns from, but its guide."""
    words = ("train.objective.ctc_weight=0", "train.objective.ctc_weight_to=1", "train.objective.ctc_weight_over=2")
    trainer = make(*words, *STILL)
    (batch, *_) = trainer.loader.epoch(0)
    for update, learns in ((0, (True, False)), (1, (True, True)), (2, (False, True))):
        trainer.progress.update = update
        trainer.optimizer.zero_grad()
        trainer._backward(batch)
        parts = (trainer.model.speller.output.weight, trainer.model.ctc.output.weight)
        assert tuple(part.grad is not None and bool(part.grad.any()) for part in parts) == learns


def test_a_guide_pulls_attention_to_the_diagonal(make):
    found = []
    for weight in (0, 10):
        trainer = make("train.epochs=15", f"train.objective.guide_weight={weight}", *STILL, name=f"guide{weight}")
        trainer.run()
        batch = next(trainer.loader.epoch(0))
        with torch.no_grad():
            found.append(guide(trainer.model.eval()(batch, BOS), batch, 0.2).item())
    assert found[1] < 0.8 * found[0]


def test_two_passes_that_say_the_same_change_nothing(make):
    """The gradient, what is logged and what is heard are those of one pass."""
    found = []
    for words in ((), ("train.objective.ctc_consistency=1", "train.objective.speller_consistency=1")):
        trainer = make("model.speller.dropout=1e-12", *STILL[:1], *STILL[2:], *words, double=True)
        (batch, *_) = trainer.loader.epoch(0)
        trainer.optimizer.zero_grad()
        figures = trainer.update([batch], 1)
        found.append((figures, {name: one.grad for name, one in trainer.model.named_parameters()}))
        assert trainer.progress.audio == pytest.approx(batch.samples.sum().item() / trainer.rate)
        assert trainer.progress.heard == len(batch)
    (one, gradients), (both, doubled) = found
    assert both == pytest.approx(one)
    for name, gradient in gradients.items():
        torch.testing.assert_close(doubled[name], gradient, msg=name)


def test_consistency_brings_passes_together(make):
    """Of two passes over an epoch 0.50 to 0.62 times as far apart, with 5 seeds."""
    found = []
    for weight in (0, 10):
        words = (f"train.objective.{part}_consistency={weight}" for part in ("ctc", "speller"))
        trainer = make("train.epochs=15", "model.spec_augment.time_width=10", *words, name=f"consistent{weight}")
        trainer.run()
        trainer.model.train()
        torch.manual_seed(0)
        with torch.no_grad():
            batches = [batch.repeated(2) for batch in trainer.loader.epoch(0)]
            apart = [disagreement(trainer.model(batch, BOS), batch) for batch in batches]
        found.append(sum(one.speller.item() + one.ctc.item() for one in apart))
    assert found[1] < 0.8 * found[0]


GROWS = ("train.epochs=5", "model.listener.reduce=[1,2,1,2]", "train.growth=[4,9]")  # 3 updates an epoch


def test_the_listener_grows_and_layers_that_wait_are_not_touched(make):
    ran, changed = [], []
    trainer = make(*GROWS, "train.weight_noise=0.01", during=lambda _: look())
    start = weights(trainer)

    def look():
        ran.append(trainer.model.listener.running)
        now = weights(trainer)
        names = [[name for name in now if name.startswith(f"listener.layers.{layer}.")] for layer in range(4)]
        changed.append("".join("1" if any(not torch.equal(now[one], start[one]) for one in layer) else "0"
                               for layer in names))  # fmt: skip

    trainer.run()
    assert ran == [2] * 4 + [3] * 5 + [4] * 6
    assert changed == ["1001"] * 4 + ["1101"] * 5 + ["1111"] * 6
    assert [line["layers"] for line in lines(trainer, "train")] == [4]  # at update 10
    assert [line["layers"] for line in lines(trainer, "valid")] == [2, 3, 3, 4, 4]


@pytest.mark.parametrize("after", [3, 4, 8, 9])  # at the end of an epoch, before a layer joins, and between
def test_resuming_is_exact_in_every_stage_of_growth(make, after):
    words = (*GROWS, "train.moving_average=0.9", "train.optimizer.decay=plateau")
    rates = [0.1, 0.2, 0.3, 0.4, 0.5]
    whole = make(*words, name="whole", rates=rates)
    whole.run()
    first = make(*words, rates=rates, during=lambda updates: updates == after and os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(UserError, match=f"interrupted at update {after}"):
        first.run()
    second = make(*words, rates=rates[(after - 1) // 3 :])
    second.restore(read_state(second.folder / "state.pt"))
    second.run()
    assert same(weights(second), weights(whole))
    assert same(second.moving.weights, whole.moving.weights)
    assert second.moving.updates == whole.moving.updates == 15 - 9  # begun anew as the last layer joined
    assert second.progress.best == whole.progress.best
    assert [line["layers"] for line in lines(second, "valid")] == [line["layers"] for line in lines(whole, "valid")]


def test_only_validations_of_the_grown_listener_are_averaged(make):
    """The best validations come early, with two and three layers; a plateau does not wait for them to come again."""
    words = (*GROWS, "train.optimizer.decay=plateau", "train.optimizer.patience=1")
    trainer = make(*words, rates=[0.1, 0.2, 0.3, 0.5, 0.4])
    files = trainer.run()
    assert [file.name for file in files] == ["000015.safetensors", "000012.safetensors"]
    assert sorted(path.name for path in (trainer.folder / "checkpoints").iterdir()) == sorted(one.name for one in files)
    assert trainer.progress.plateau.share == 0.5  # of the two with three layers the second was no better
    assert trainer.progress.plateau.best == (0.4, 1.0)


def scattered(trainer, rows):
    """Validations whose attention is this."""
    trainer.validate = lambda: Validation(1.0, 1.0, rows, ["a"] * len(rows), "a")


def test_attention_that_does_not_align_is_told_of_once(make):
    words = ("train.epochs=5", "train.aligned_by=6")  # 3 updates an epoch
    trainer = make(*words, during=lambda updates: updates == 10 and os.kill(os.getpid(), signal.SIGTERM))
    scattered(trainer, torch.full((5, 8), 1 / 8))
    with pytest.raises(UserError, match="interrupted at update 10"):
        trainer.run()
    (warning,) = trainer.reporter.warnings
    assert warning.startswith("attention is not aligned after 6 updates (monotonic 0.00, sharp 0.00;")
    again = make(*words)
    again.restore(read_state(again.folder / "state.pt"))
    scattered(again, torch.full((5, 8), 1 / 8))
    again.run()
    assert again.reporter.warnings == []  # a resumed run knows that it was told
    found = lines(again, "valid")
    assert [line["sharp"] for line in found] == pytest.approx([0.0] * 5, abs=1e-6)
    assert all({"monotonic", "train_monotonic", "train_sharp"} <= line.keys() for line in found)
    whole = make(*words, name="whole")
    whole.run()
    assert whole.progress.watch.batches == again.progress.watch.batches == 2  # updates 0 and 10
    assert whole.progress.watch.sharp == again.progress.watch.sharp


@pytest.mark.parametrize(("words", "rows"), [
    (("train.aligned_by=0",), torch.full((5, 8), 1 / 8)),  # not asked for
    (("train.aligned_by=7",), torch.full((5, 8), 1 / 8)),  # not yet
    (("train.aligned_by=3",), torch.eye(5)),  # aligned
    (("train.aligned_by=3",), torch.zeros(5, 8)),  # no attention
])  # fmt: skip
def test_there_is_nothing_to_tell(make, words, rows):
    trainer = make("train.epochs=2", *words)
    scattered(trainer, rows)
    trainer.run()
    assert trainer.reporter.warnings == []
    assert ("sharp" in lines(trainer, "valid")[-1]) == bool(rows.any())


def test_a_batch_that_fell_away_does_not_shift_the_place_of_a_resumed_run(make, monkeypatch):
    """Nothing is left of the first planned batch; the state must count it all the same."""
    read = Loader.batches

    def without_first(*words):
        yield from ((place, batch if place else None) for place, batch in read(*words))

    monkeypatch.setattr(Loader, "batches", without_first)
    words = ("train.epochs=1", "data.batch_seconds=0.8")
    whole = make(*words, name="whole")
    whole.run()
    first = make(*words, during=lambda updates: updates == 2 and os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(UserError, match="interrupted at update 2"):
        first.run()
    assert first.progress.batch == 3
    second = make(*words)
    second.restore(read_state(second.folder / "state.pt"))
    second.run()
    assert same(weights(second), weights(whole))


def test_a_second_ctrl_c_interrupts_at_once(make):
    def stop(updates):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)  # a background job of a shell ignores it
    with pytest.raises(KeyboardInterrupt):
        make(during=stop).run()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_state_is_saved_every_few_minutes(make):
    saved = []
    trainer = make("train.epochs=1", "train.save_minutes=0", during=lambda _: saved.append(trainer.progress.update))
    save, states = trainer.save, []
    trainer.save = lambda: (states.append(trainer.progress.update), save())
    trainer.run()
    assert states == [1, 2, 3, 3]  # after every update, and after the validation


def test_a_crash_between_validation_and_saving_loses_nothing(make):
    """The state before the last validation still finds the weights that it calls the best."""
    trainer = make("train.epochs=2", "train.average=1", rates=[0.5, 0.2])
    save, states = trainer.save, []

    def crash():
        states.append(trainer.progress.update)
        if len(states) == 2:
            raise RuntimeError("power is gone")
        save()

    trainer.save = crash
    with pytest.raises(RuntimeError, match="power is gone"):
        trainer.run()
    again = make("train.epochs=2", "train.average=1", rates=[0.9])
    again.restore(read_state(again.folder / "state.pt"))
    files = again.run()
    assert [file.name for file in files] == ["000003.safetensors"]
    assert files[0].is_file()


def test_what_was_logged_after_the_state_is_taken_back(make):
    first = make("train.epochs=8", rates=[0.5] * 8)
    first.run()
    state = read_state(first.folder / "state.pt")
    whole = lines(first)
    with (first.folder / "log.jsonl").open("a") as file:
        file.write('{"update": 30, "kind": "train"}\n{"upda')  # a start that was killed while it wrote
    second = make("train.epochs=8")
    second.restore(state)
    second.run()
    assert lines(second) == whole


def test_a_finished_run_that_is_resumed_has_nothing_to_do(make):
    first = make("train.epochs=2")
    files = first.run()
    second = make("train.epochs=2")
    second.restore(read_state(second.folder / "state.pt"))
    assert second.run() == files
    assert second.reporter.losses == []


def test_without_tensorboard_and_matplotlib_training_goes_on(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    trainer = make("train.epochs=1", pictures=True)
    trainer.run()
    assert not (trainer.folder / "tensorboard").exists()
    assert list((trainer.folder / "attention").iterdir()) == []
    assert lines(trainer, "valid")


def test_with_tensorboard_the_figures_and_the_picture_are_in_its_file(make):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = make("train.epochs=4", "train.validate_every=2", pictures=True)
    trainer.run()
    trainer.log.close()
    board = event_accumulator.EventAccumulator(str(trainer.folder / "tensorboard"))
    board.Reload()
    assert {"train/loss", "train/rate", "valid/wer"} <= set(board.Tags()["scalars"])
    assert board.Tags()["images"] == ["attention"]
    assert len(board.Scalars("valid/wer")) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "train: epochs, accumulate, validate_every and average must be at least 1"),
        ({"average": 0}, "must be at least 1"),
        (
            {"moving_average": 1.0},
            "train: moving_average must be at least 0 and below 1, weight_noise and aligned_by 0",
        ),
        ({"weight_noise": -0.1}, "weight_noise and aligned_by 0 or more"),
        ({"aligned_by": -1}, "weight_noise and aligned_by 0 or more"),
        ({"weight_noise_start": 5, "weight_noise_end": 5}, "train.weight_noise_start 5, train.weight_noise_end 5: the"),
        ({"growth": (5, 5)}, r"train.growth \[5, 5\]: updates in rising order, the first at least 1"),
        ({"growth": (0, 5)}, r"train.growth \[0, 5\]: updates"),
        ({"precision": "fp16"}, "train.precision 'fp16': wanted one of fp32, bf16"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        replace(TrainConfig(), **settings)


def test_what_is_too_long_counts_with_what_ranks_left_out():
    """Nine of a hundred are too long and one cannot be read: ten, as one process alone would count them."""
    config = SimpleNamespace(leave_out=0.095)
    loader = SimpleNamespace(entries=range(91), index=range(100), config=config)
    log = SimpleNamespace(write=lambda *line: None)
    trainer = SimpleNamespace(progress=Progress(heard=90, left=1), loader=loader, log=log, world=World(0, 2))
    with pytest.raises(UserError, match=r"10 of 100 utterances left out in epoch 1, by all ranks: more than 9\.5%"):
        Trainer._check_epoch(trainer, 0)


def test_what_was_left_out_before_a_stop_is_still_known_after_it(make):
    first = make(name="first")
    first.loader.ledger.leave("no text", "말없는 사람")
    first.ledger.leave("fewer listener frames than its tokens need, trained without CTC", "u7", "x")
    first.save()
    second = make(name="second")
    second.restore(read_state(first.folder / "state.pt"))
    assert second.loader.ledger.lines() == first.loader.ledger.lines()
    assert second.ledger.lines() == first.ledger.lines()
