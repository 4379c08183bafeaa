"""What a config will need: counted by hand, against what is there in the end, and by the law of its four numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from las import config as settings
from las.errors import UserError
from las.model.las import LAS
from las.recipe import plan as planning
from las.recipe.config import RunConfig
from las.recipe.plan import Activations, Plan, measure, parameters_of, plan, render, saved_bytes
from las.train.averaging import MovingAverage
from las.train.optim import build_optimizer

ROOT = Path(__file__).parents[2]
NOTHING = Activations(0.0, 0.0, 0.0, 0.0)


def test_parameters_by_part(run_config):
    with torch.device("meta"):
        found = parameters_of(LAS(run_config().model, 9))
        larger = parameters_of(LAS(run_config().model, 10))
        plain = parameters_of(LAS(run_config("model.ctc=false", "model.speller.context=initial").model, 9))
    lower, upper = (2 * (4 * 16 * (read + 16) + 2 * 4 * 16) for read in (16, 2 * 32))  # both ways; four gates
    assert found["listener"] == lower + upper
    assert found["attention"] == 8 * (16 + 1) + 8 * (32 + 1)
    assert found["ctc"] == 9 * (32 + 1)
    assert larger["speller"] - found["speller"] == 8 + 16 + 1  # an embedding, a row of the output
    assert plain.keys() == {"listener", "speller"}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("model.speller.attention.kind=location",),
        ("model.speller.attention.kind=additive", "model.ctc=false", "train.sampling.share=0.3"),
        ("train.precision=bf16", "model.listener.convolutions=4", "model.speller.layers=2"),
    ],
)
def test_four_batches_tell_what_others_keep(run_config, words):
    config = run_config(*words)
    with torch.device("meta"):
        model = LAS(config.model, 9)
    found = measure(model, config)
    assert min(found.frame, found.step, found.glance) > 0
    for shape in ((2, 30, 8), (5, 60, 25), (3, 100, 6)):
        assert found.of(*shape) == pytest.approx(saved_bytes(model, config, *shape), rel=0.1), shape


@pytest.mark.parametrize("kind", ["adamw", "adadelta"])
def test_what_lasts_is_what_is_there_after_an_update(run_config, kind):
    config = run_config("train.moving_average=0.9", f"train.optimizer.kind={kind}", "train.accumulate=2")
    model = LAS(config.model, 9)
    kept = Plan(config, 9, parameters_of(model), 0, NOTHING, None, ()).kept
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    optimizer = build_optimizer(model, config.train.optimizer)
    optimizer.step()
    moving = MovingAverage(model, config.train.moving_average)
    moving.take_in(model)

    def size(values):
        return sum(value.numel() * 4 for value in values if value.dim())  # but for the number of the step

    weights = size(model.parameters())
    state = [value for one in optimizer.state.values() for value in one.values()]
    assert kept == {"weights": weights, "gradients": 2 * weights, "optimizer": size(state), "moving average": weights}
    assert sum(moving.weights[name].numel() * 4 for name, _ in model.named_parameters()) == weights
    noisy = run_config("train.weight_noise=0.1")
    assert Plan(noisy, 9, {"speller": 5}, 0, NOTHING, None, ()).kept == {
        "weights": 20, "gradients": 20, "optimizer": 40, "weights without noise": 20
    }  # fmt: skip


def test_a_plan_of_data_that_is_there(run_config):
    config = run_config("train.epochs=3", "train.accumulate=2", "data.batch_seconds=1.3")
    found = plan(config)
    assert found.missing == ()
    assert found.data is not None
    assert found.data.utterances == sum(map(len, found.data.plan)) == 8
    assert found.data.seconds == pytest.approx(
        0.12 * sum(map(len, ("ab", "ba ab", "cab", "bac a", "cc b", "a b c", "abc", "bb")))
    )
    assert found.updates == -(-len(found.data.plan) // 2)
    assert all(len(batch) * max(entry.seconds for entry in batch) <= 1.3 for batch in found.data.plan)
    assert found.data.tokens == max(entry.characters for entry in found.data.largest)  # a token is a character here
    frames = config.model.listener_frames(round(8000 * max(entry.seconds for entry in found.data.largest)))
    assert found.data.bytes == found.activations.of(len(found.data.largest), frames, found.data.tokens + 1)
    rows = {line[:18].strip(): line[18:] for line in render(found).splitlines()}
    assert rows["listener frames"] == "50 a second, from 100"
    assert rows["data"] == "0.00 h, 8 utterances"
    assert rows["updates"] == f"about {found.updates} an epoch, {3 * found.updates} in all"
    assert rows["lasting memory"].startswith(f"{16e-6 * found.size * 1.25:.3g} MB: weights ")
    assert rows["largest batch"].startswith(f"{len(found.data.largest)} utterances of up to 0.6 s and about 5 tokens: ")
    assert "left out" not in rows


def test_what_is_not_there_is_left_out_and_named(run_config):
    found = plan(run_config("data.tokenizer=nowhere.model"))
    assert found.data is None
    assert found.missing == ("data.tokenizer 'nowhere.model' is not there: counted with 1000 tokens",
                             "without a tokenizer: hours, updates and the largest batch")  # fmt: skip
    other = plan(run_config("data.train=nowhere"))
    assert other.missing == ("data.train 'nowhere' is not there: hours, updates and the largest batch",)
    assert other.vocabulary < 20
    text = render(found)
    assert "a full batch      1.5 padded seconds: " in text
    assert text.splitlines()[-2:] == [f"left out          {line}" for line in found.missing]


def test_what_is_only_measured_is_named(run_config):
    words = ("train.mwer.hypotheses=2", "init=digits")
    assert plan(run_config(*words)).missing == ("train.mwer: what hypotheses take is not counted, but by --try",)


def test_data_that_is_there_but_damaged_is_refused(run_config, tmp_path):
    (tmp_path / "index.json").write_text("{")
    config = run_config(f"data.train={tmp_path}")
    with pytest.raises(UserError, match=r"index\.json: not JSON"):
        plan(config)


CONFS = sorted(path for path in ROOT.glob("egs/*/conf/*.yaml") if path.stem != "lm")


@pytest.mark.parametrize("path", CONFS, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_every_published_config_is_planned_without_its_data(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "measure", lambda model, config: Activations(1e6, 1e5, 1e4, 1e3))
    found = plan(settings.load(RunConfig, path))
    assert found.size > 1e5
    assert "a full batch" in render(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "las_4_1024", "las_6_1280"])
def test_large_configs_are_measured(name):
    config = settings.load(RunConfig, ROOT / f"egs/librispeech/conf/{name}.yaml")
    found = plan(replace(config, data=replace(config.data, train="", tokenizer="")))
    assert found.activations.frame > 1e5
