"""Sums over two processes."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from las.data.loader import Loader
from las.data.manifest import Utterance
from las.data.sharding import write_shards
from las.data.shards import read_index
from las.errors import UserError
from las.recipe import evaluation, models, training
from las.text.tokenizer import Tokenizer
from las.train.distributed import World, joined
from las.train.loop import Trainer


def test_a_rank_that_is_killed_amid_sharding_leaves_no_index(ranks, tools, tmp_path):
    path = tools.write_wav(tmp_path / "one.wav", torch.zeros(800))
    utterances = [Utterance(str(number), str(path), "text") for number in range(8)]

    def work(world):
        def die(done, total):
            if world.rank == 1 and done == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        return write_shards(utterances, tmp_path / "s", progress=die, ranks=world).root

    found = ranks(work)
    assert list(found) == [0]
    assert "another rank is gone" in found[0]
    assert not list(tmp_path.glob("s*"))


def test_figures_and_states_of_all_ranks(ranks):
    def work(world):
        states = world.gather(torch.tensor([world.rank, 7], dtype=torch.uint8), torch.device("cpu"))
        return world.add([0.5, world.rank], torch.device("cpu")), [state.tolist() for state in states]

    assert ranks(work) == {rank: ([1.0, 1.0], [[0, 7], [1, 7]]) for rank in (0, 1)}


def test_ranks_divide_the_cores_they_share_and_keep_those_they_were_given(ranks, monkeypatch):
    cores = sorted(os.sched_getaffinity(0))
    for size in (2, 3):
        found = ranks(lambda _: sorted(os.sched_getaffinity(0)), size)
        if size <= len(cores):
            assert [core for own in found.values() for core in own] == cores
            assert all(len(one) in (len(cores) // size, len(cores) // size + 1) for one in found.values())
        else:
            assert list(found.values()) == [cores] * size
    for threads in (1, 8):
        found = ranks(lambda _: torch.get_num_threads(), threads=threads)
        assert len(cores) < 2 or found[0] == min(threads, len(cores) // 2)
    given = {0: {0, 1, 2}, 1: {3, 4, 5}, 2: {0, 1, 2}}  # a machine of six cores, two ranks bound to the same three
    kept = {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: given[int(os.environ["RANK"])])
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, chosen: kept.update(cores=sorted(chosen)))
    assert ranks(lambda _: kept, 3) == {0: {"cores": [0]}, 1: {"cores": [3, 4, 5]}, 2: {"cores": [1, 2]}}


def test_where_cores_may_not_be_chosen_ranks_go_on_without(ranks, monkeypatch):
    def forbidden(process, cores):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    assert ranks(lambda world: world.add([1.0], torch.device("cpu"))) == {0: [2.0], 1: [2.0]}


def test_a_lost_rank_ends_the_others_with_a_message(ranks):
    def work(world):
        if world.rank == 1:
            os._exit(1)
        return world.add([1.0], torch.device("cpu"))

    assert "rank 0 of 2: another rank is gone or does not answer" in ranks(work)[0]


def test_alone_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("gloo", 1.0) as world:
        assert world == World(0, 1)
    assert world.add([2.0], torch.device("cpu")) == [2.0]
    assert world.gather(torch.zeros(1), torch.device("cpu")) == [torch.zeros(1)]


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(UserError, match=r"WORLD_SIZE is 2 but RANK, MASTER_ADDR, MASTER_PORT is not set; .* torchrun"),
        joined("gloo", 1.0),
    ):
        pass


def test_texts_of_all_ranks(ranks):
    def work(world):
        return world.gather_text("나\n" * world.rank, torch.device("cpu"))

    assert ranks(work) == {rank: ["", "나\n"] for rank in (0, 1)}


# --------------------------------------------------------------------------------------------------- a whole training

DROPPED = ("model.listener.dropout=0.2", "model.speller.dropout=0.2", "data.workers=1", "train.optimizer.rate=0.003")
STILL = ("model.listener.dropout=0", "model.speller.dropout=0", "model.spec_augment.time_masks=0",
         "model.spec_augment.frequency_masks=0", "data.workers=0", "data.batch_utterances=3")  # fmt: skip


def weights(run):
    return load_file(run / "model" / "model.safetensors")


def test_two_ranks_are_one_process_that_accumulates_two_batches(ranks, run_config, tools, tmp_path):
    """And eight utterances in three batches leave one rank without any in the second update."""
    words = ("train.epochs=1", "data.sorted_first=true", *STILL)  # ranks are given batches in another order else
    config = run_config(*words)
    assert ranks(lambda world: str(training.train(config, tmp_path / "two", False, tools.quiet())), inside=False) == {
        rank: str(tmp_path / "two" / "model") for rank in (0, 1)
    }
    training.train(run_config(*words, "train.accumulate=2"), tmp_path / "one", False, tools.quiet())
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    # it adds the same to all energies, so its gradient is rounding, which AdamW enlarges
    del one["speller.attention.key.bias"]
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    epochs = [[json.loads(line) for line in log if '"epoch"' in line and "utterances" in line] for log in logs]
    assert epochs[0] == epochs[1]
    assert [line["utterances"] for line in epochs[1]] == [8]
    validated = [[json.loads(line) for line in log if '"valid"' in line] for log in logs]
    for ours, theirs in zip(*validated, strict=True):
        assert (ours["update"], ours["wer"]) == (theirs["update"], theirs["wer"])
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_one_rank_splits_its_batches_alone_and_leaves_what_does_not_fit(ranks, run_config, tools, tmp_path):
    """`bac a` and the other texts of five letters fit nowhere on the second rank, batches of more letters there not."""
    words = ("train.epochs=1", "data.leave_out=0.5", *STILL)
    backward = Trainer._backward

    def limited(trainer, batch):
        if trainer.world.rank == 1 and batch.tokens.numel() > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return backward(trainer, batch)

    def work(world):
        Trainer._backward = limited  # of this process alone
        return str(training.train(run_config(*words), tmp_path, False, tools.quiet()))

    assert ranks(work, inside=False) == dict.fromkeys((0, 1), str(tmp_path / "model"))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    [epoch] = [line for line in log if line["kind"] == "epoch"]
    left = (tmp_path / "left_out.jsonl").read_text().splitlines()
    assert epoch["left"] == len(left) == 8 - epoch["utterances"] > 0
    assert {json.loads(line)["cause"] for line in left} == {"does not fit into memory"}
    assert [line["splits"] for line in log if line["kind"] == "memory"] == [1]


def test_only_the_leading_rank_needs_the_folder(ranks, run_config, tools, tmp_path):
    """The others may get there before it is made, or run on a machine with another disk."""
    config = run_config("train.epochs=1", *STILL)

    def work(world):
        return str(training.train(config, tmp_path / str(world.rank), False, tools.quiet()))

    assert ranks(work, inside=False) == {rank: str(tmp_path / str(rank) / "model") for rank in (0, 1)}
    assert not (tmp_path / "1").exists()


def test_two_ranks_resume_to_the_same_weights(ranks, run_config, tools, tmp_path):
    config = run_config("train.epochs=4", "data.batch_utterances=2", *DROPPED)
    ranks(lambda world: str(training.train(config, tmp_path / "whole", False, tools.quiet())), inside=False)

    def stopped(world):
        during = (lambda updates: updates == 3 and os.kill(os.getpid(), signal.SIGTERM)) if world.leads else None
        return str(training.train(config, tmp_path / "cut", False, tools.quiet(during)))

    # the leading rank asks when update 3 is done, all answer in the next
    assert all("interrupted at update 4" in message for message in ranks(stopped, inside=False).values())
    ranks(lambda world: str(training.train(config, tmp_path / "cut", True, tools.quiet())), inside=False)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_one_goes_on_where_two_were_amid_an_epoch(ranks, run_config, tools, tmp_path):
    """By the plan of two: in another order some utterances would be heard twice and others never."""
    config = run_config("train.epochs=3", "data.batch_utterances=1", "data.workers=0")

    def stopped(world):
        during = (lambda updates: updates == 5 and os.kill(os.getpid(), signal.SIGTERM)) if world.leads else None
        return str(training.train(config, tmp_path, False, tools.quiet(during)))

    assert all("interrupted at update 6" in message for message in ranks(stopped, inside=False).values())
    heard, rates = [], {True: [], False: []}
    batches = Loader.batches

    def told(resumed):
        reporter = tools.quiet()
        reporter.training = lambda done, epoch, figures: rates[resumed].append(figures["rate"])
        return reporter

    def watched(loader, number, *rest):
        for place, batch in batches(loader, number, *rest):
            if loader.shuffle:
                heard.append((number, batch.ids[0]))
            yield place, batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "batches", watched)
        training.train(config, tmp_path, True, told(True))
    before = [(1, entry.id) for entry in Loader(
        read_index(config.data.train), Tokenizer.load(config.data.tokenizer), 8000, config.data, shuffle=True,
        seed=config.train.seed,
    ).plan(1, 2)[:4] for entry in entry]  # fmt: skip
    assert sorted(before + heard) == [(epoch, f"train-{number}") for epoch in (1, 2) for number in range(8)]
    training.train(config, tmp_path / "alone", False, told(False))
    assert rates[True] == rates[False][12:]  # the schedule goes by the data


def test_what_each_rank_left_out_is_in_one_ledger(ranks, run_config, tools, tmp_path):
    config = run_config("train.epochs=1", "data.longest=0.5", "data.leave_out=0.9", *STILL)
    ranks(lambda world: str(training.train(config, tmp_path / "run", False, tools.quiet())), inside=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "left_out.jsonl").read_text().splitlines()]
    assert lines
    assert {line["cause"] for line in lines} == {"longer than data.longest"}
    assert len({line["id"] for line in lines}) == len(lines)


def test_a_restart_by_torchrun_resumes(run_config, tools, tmp_path, monkeypatch):
    config = run_config("train.epochs=2")
    with pytest.raises(UserError, match="interrupted at update 2"):
        training.train(
            config, tmp_path, False, tools.quiet(lambda done: done == 2 and os.kill(os.getpid(), signal.SIGTERM))
        )
    with pytest.raises(UserError, match="holds a run"):
        training.train(config, tmp_path, False, tools.quiet())
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    training.train(config, tmp_path, False, tools.quiet())
    assert (tmp_path / "model" / "config.yaml").is_file()


def test_two_ranks_evaluate_a_set_together(ranks, trained, corpus):
    for path in (corpus / "shards" / "valid", corpus / "valid.jsonl"):

        def work(world, path=path):
            recognizer, _ = models.open_model(trained / "model", "cpu")
            result = evaluation.evaluate_set(recognizer, "valid", path, "basic", world=world)
            return list(result.hypotheses.items()), list(result.references.items()), result.audio_seconds

        alone = work(World())
        assert ranks(work) == dict.fromkeys((0, 1), alone)
