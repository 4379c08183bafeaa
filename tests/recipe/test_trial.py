"""Some updates of a tiny run."""

from __future__ import annotations

import pytest
import torch

from las.errors import UserError
from las.recipe import trial
from las.recipe.plan import plan
from las.recipe.trial import attempt
from las.train.loop import Trainer


def nothing(done, total):
    pass


def test_the_largest_batch_comes_first_and_then_some_of_the_epoch(run_config, monkeypatch):
    found = plan(
        run_config("train.epochs=4", "data.batch_seconds=0.7", "train.growth=[2,3]", "model.listener.reduce=[1,1,1,2]")
    )
    seen, layers, update = [], [], Trainer.update

    def watched(trainer, group, batches, missing=0):
        figures = update(trainer, group, batches, missing)
        seen.append(sorted(id for batch in group for id in batch.ids))
        layers.append(trainer.model.listener.running)
        return figures

    monkeypatch.setattr(Trainer, "update", watched)
    monkeypatch.setattr(trial, "UPDATES", 3)
    tried = attempt(found, nothing)
    largest = sorted(entry.id for entry in found.data.largest)
    assert seen[:2] == [largest, largest]  # the first makes what is made once
    assert len(seen) == 2 + 3
    assert set(layers) == {4}  # as in the middle of the run
    assert tried.tried == 3
    assert 0 < tried.seconds < 60
    assert tried.longest > 0
    assert tried.peak >= 0
    assert tried.warnings == ()


def test_a_slow_device_is_not_tried_for_long(run_config, monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 0.0)
    calls = []
    tried = attempt(plan(run_config("train.accumulate=2")), lambda done, total: calls.append((done, total)))
    assert tried.tried == 1
    assert tried.seconds == tried.longest
    assert len(calls) == 1


def test_a_batch_that_does_not_fit_is_told_of(run_config, monkeypatch):
    backward = Trainer._backward

    def limited(trainer, batch):
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return backward(trainer, batch)

    monkeypatch.setattr(Trainer, "_backward", limited)
    monkeypatch.setattr(trial, "UPDATES", 1)
    tried = attempt(plan(run_config()), nothing)
    [warning] = tried.warnings
    assert "did not fit into memory and was split" in warning
    first, second, third = tried.render(updates=1000).splitlines()
    assert first.startswith("tried on cpu: ")
    assert second.startswith("so the run takes about ")
    assert third == warning


def test_peak_memory_is_that_of_what_is_done(run_config):
    before = trial._start(torch.device("cpu"))
    held = torch.ones(50_000_000)
    assert 190e6 < trial._status("VmHWM") - before < 300e6
    assert held.sum() == 5e7


def test_the_length_of_a_run_is_told_in_minutes_or_hours():
    tried = trial.Trial(torch.device("cuda"), 2.0, 0.5, 8, 1_234_567_890, ())
    assert tried.render(1200).splitlines() == [
        "tried on cuda: 2.00 s for the update with the largest batch, 0.50 s on average (8 updates), 1,235 MB at most",
        "so the run takes about 10 min, validations and reading of data not counted",
    ]
    assert "about 13.9 h, valid" in tried.render(100_000)


def test_without_data_nothing_is_tried(run_config):
    with pytest.raises(UserError, match=r"--try needs the data: data\.train 'nowhere' is not there: hours, updates"):
        attempt(plan(run_config("data.train=nowhere")), nothing)
