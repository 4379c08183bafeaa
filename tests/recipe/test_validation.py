from __future__ import annotations

from dataclasses import replace

import torch

from las.data.loader import Loader
from las.data.manifest import Utterance
from las.data.sharding import write_shards
from las.data.shards import read_index
from las.model.las import LAS
from las.recipe.models import open_model
from las.recipe.validation import Validator
from las.text.tokenizer import Tokenizer
from las.transcribe.recognizer import Recognizer


def test_a_trial_takes_the_longest_batch_alone(run_config, monkeypatch):
    config = run_config("data.batch_utterances=3", "data.workers=0")
    tokenizer = Tokenizer.load(config.data.tokenizer)
    rate = config.model.frontend.sample_rate
    loader = Loader(read_index(config.data.valid), tokenizer, rate, config.data, shuffle=False, seed=0)
    longest = max(entry.seconds for entry in loader.entries)
    torch.manual_seed(0)
    validate = Validator(Recognizer(LAS(config.model, tokenizer.size), tokenizer, config.search), loader, config)
    heard = []
    batches = loader.batches

    def listen(*arguments):
        for place, batch in batches(*arguments):
            heard.append(batch)
            yield place, batch

    monkeypatch.setattr(loader, "batches", listen)
    validate(trial=True)
    assert [int(batch.samples.max()) for batch in heard] == [round(longest * rate)]
    validate()
    assert sum(map(len, heard[1:])) == len(loader.entries)


def test_what_the_tokens_cannot_write_is_an_error_and_not_left_out(trained, run_config, tools, tmp_path):
    recognizer, config = open_model(trained / "model", "cpu")
    heard = ("ab", "ba ab")
    paths = [tools.write_wav(tmp_path / f"{n}.wav", tools.sing(text, n)) for n, text in enumerate(heard)]
    texts = ("ab", "ba 한ab")
    write_shards([Utterance(str(n), str(path), texts[n]) for n, path in enumerate(paths)], tmp_path / "valid")
    data = replace(config.data, workers=0)
    index = read_index(tmp_path / "valid")
    loader = Loader(index, recognizer.tokenizer, tools.rate, data, shuffle=False, seed=0, keep_unknown=True)
    found = Validator(recognizer, loader, config)()
    assert found.error_rate == 1 / 3
    assert len(loader.ledger) == 0
