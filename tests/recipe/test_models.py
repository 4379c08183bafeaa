from __future__ import annotations

import os
import shutil

import pytest
import torch
import yaml

from las import audio, checkpoint
from las import config as settings
from las.config import parse_yaml
from las.errors import UserError
from las.model.device import choose_device
from las.model.language_model import LanguageModel, LanguageModelConfig
from las.recipe import DEFAULT_MODEL, language_models, models
from las.recipe.models import find_model, open_model, pretrained
from las.text.tokenizer import Tokenizer, train_tokenizer


def test_a_model_is_found_by_name_or_folder(random_model, monkeypatch, tmp_path):
    monkeypatch.setattr(models, "PRETRAINED", tmp_path / "pretrained")
    with pytest.raises(UserError, match=r"no model 'digits': neither a model folder nor one .* ship \(none\)"):
        find_model("digits")
    shutil.copytree(random_model, tmp_path / "pretrained" / "digits")
    assert pretrained() == [tmp_path / "pretrained" / "digits"]
    assert find_model("digits") == tmp_path / "pretrained" / "digits"
    assert find_model(str(random_model)) == random_model
    with pytest.raises(UserError, match=r"no model 'digitz': .* ship \(digits\)"):
        find_model("digitz")


def test_a_model_that_ships_is_not_written_to(random_model):
    models.check_writable(str(random_model))
    shipped = find_model("digits")
    for name in ("digits", str(shipped), os.path.relpath(shipped)):
        with pytest.raises(UserError, match=f"--write: {name} ships with las and is not changed; copy its folder and"):
            models.check_writable(name)


def test_words_change_the_settings_of_a_model(random_model):
    recognizer, config = open_model(random_model, "cpu", ["search.beam=5", "style=verbatim"])
    assert recognizer.search.beam == config.search.beam == 5
    assert config.style == "verbatim"


def test_a_model_whose_tokenizer_is_another_is_refused(random_model):
    train_tokenizer(["abcdefgh"], 30, "char", random_model / "tokenizer.model")
    with pytest.raises(UserError, match="random: the tokenizer has 12 tokens, the config says 8"):
        open_model(random_model)


def test_a_model_whose_config_does_not_fit_its_weights_is_refused(random_model):
    path = random_model / "config.yaml"
    config = parse_yaml(path.read_text(), "here")
    shape = r"model.safetensors: 'speller.* has shape .*, the config asks for"
    # the second would take more memory than there is
    for width, message in ((17, shape), (10**7, shape), (10**10, "asks for a model that cannot be")):
        config["model"]["speller"]["width"] = width
        path.write_text(yaml.safe_dump(config))
        with pytest.raises(UserError, match=message):
            open_model(random_model)


def test_a_model_with_an_unknown_setting_is_refused(random_model):
    path = random_model / "config.yaml"
    path.write_text(path.read_text() + "sytle: basic\n")
    with pytest.raises(UserError, match=r"config.yaml: unknown key 'sytle'; the nearest known key is 'style'"):
        open_model(random_model)


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "meta", "", "cuda:x"):
        with pytest.raises(UserError, match=f"device {name!r}: wanted auto, cpu, cuda or cuda:N"):
            choose_device(name)


@pytest.fixture
def arpa(corpus, tools, tmp_path):
    """An n-gram model of the transcripts, over the recogniser's tokens."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(tools.texts) + "\n")
    path = tmp_path / "tokens.arpa"
    language_models.estimate_ngrams([texts], Tokenizer.load(corpus / "tokenizer.model"), "basic", 2, [0], path)
    return path


def parts(recognizer, corpus):
    """The names of what scored the first hypothesis of a validation recording."""
    wave = audio.load(sorted((corpus / "wav").glob("valid-0*"))[0], recognizer.rate)
    with torch.no_grad():
        [[found, *_]] = recognizer.spell(recognizer.hear([wave], recognizer.search), recognizer.search)
    return set(found.scores)


def test_language_models_join_the_search(trained, corpus, arpa):
    plain, _ = open_model(trained / "model", "cpu")
    assert parts(plain, corpus) == {"speller", "ctc"}
    words = [f"search.language_model={arpa}", f"search.source_model={arpa}"]
    both, _ = open_model(trained / "model", "cpu", words)
    assert parts(both, corpus) == {"speller", "ctc", "language model", "source model"}
    weights = {part.name: part.weight for part in (make(1) for make in both.language_models)}
    assert weights == {"language model": 0.3, "source model": -0.1}
    none, _ = open_model(trained / "model", "cpu", [*words, "search.language_weight=0", "search.source_weight=0"])
    assert parts(none, corpus) == {"speller", "ctc"}


def test_language_models_rank_what_was_found_without_them(trained, corpus, arpa):
    """The best of a search wide enough to hold all that matters; and the scores are those of the search with both."""
    words = [f"search.language_model={arpa}", "search.language_weight=1.5", "search.beam=32"]
    during, _ = open_model(trained / "model", "cpu", words)
    after, _ = open_model(trained / "model", "cpu", [*words, "search.rescore=32"])
    wave = audio.load(sorted((corpus / "wav").glob("valid-0*"))[0], during.rate)
    with torch.no_grad():
        (joint,), (ranked,) = (one.spell(one.hear([wave], one.search), one.search, 3) for one in (during, after))
    assert len(ranked) == 3
    assert ranked[0].tokens == joint[0].tokens
    assert ranked[0].score == pytest.approx(joint[0].score, abs=1e-4)
    assert ranked[0].scores == pytest.approx(joint[0].scores, abs=1e-4)
    assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)


def test_a_language_model_in_the_model_folder_is_used(trained, corpus, tmp_path):
    shutil.copytree(trained / "model", tmp_path / "model")
    tokenizer = Tokenizer.load(corpus / "tokenizer.model")
    config = language_models.LanguageModelRunConfig(model=LanguageModelConfig(embedding=8, width=8))
    weights = LanguageModel(config.model, tokenizer.size).state_dict()
    own = tmp_path / "model" / "language_model"
    checkpoint.write_model(own, settings.to_yaml(config), weights, tokenizer.to_bytes(), tokenizer.size, "")
    recognizer, _ = open_model(tmp_path / "model", "cpu")
    assert parts(recognizer, corpus) == {"speller", "ctc", "language model"}


@pytest.mark.parametrize("folder", pretrained(), ids=lambda folder: folder.name)
def test_what_ships_is_small_and_reads_nothing_in_silence_noise_and_notes(folder):
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 24e6
    recognizer, _ = open_model(folder.name, "cpu")
    time = torch.arange(48000) / 16000
    notes = sum(0.3 * torch.sin(6.2832 * hertz * time) for hertz in (262, 330, 392)) * ((2 * time) % 1 < 0.9)
    noise = 0.1 * torch.randn(48000, generator=torch.Generator().manual_seed(0))
    for wave in (torch.zeros(32000), noise, notes):
        (found,) = recognizer.transcribe([(wave, 16000)])
        assert (found.text, found.segments[0].verdict.name) == ("", "silence")


def test_the_default_model_ships():
    assert DEFAULT_MODEL in [folder.name for folder in pretrained()]
