"""Weights chosen from hand-made lists, where the best is seen by eye, and from a trained model's lists."""

import shutil

import numpy as np
import pytest
import yaml

from las import checkpoint
from las.data.shards import read_index
from las.errors import UserError
from las.recipe import evaluation, models, tuning
from las.recipe.tuning import Lists, decode, search_for_lists, summary, surface, tune, tune_model
from las.search.beam import SearchConfig

PLAIN = SearchConfig(ctc_weight=0.3, length_exponent=0.0, language_weight=0.0, token_reward=0.0)


def lists(errors, **scores):
    """Lists of two utterances of ten words together, two hypotheses each, all of one token unless `lengths` say."""
    lengths = np.array(scores.pop("lengths", [[1.0, 1.0], [1.0, 1.0]]))
    return Lists({name.replace("_", " "): np.array(one) for name, one in scores.items()}, lengths, np.array(errors), 10)


def test_the_weight_that_ranks_the_right_one_first_is_found():
    """The speller likes the wrong one by 1 in both; CTC likes the right one by 4, the language model by .5."""
    made = lists(
        [[2.0, 0.0], [3.0, 1.0]],
        speller=[[-1.0, -2.0], [-1.0, -2.0]],
        ctc=[[-5.0, -1.0], [-5.0, -1.0]],
        language_model=[[-1.0, -0.5], [-1.0, -0.5]],
    )
    assert made.oracle == 0.1
    assert made.wer(SearchConfig(ctc_weight=0.1, length_exponent=0)) == 0.5  # -.9 - .5 against -1.8 - .1
    assert made.wer(SearchConfig(ctc_weight=0.3, length_exponent=0)) == 0.1  # -.7 - 1.5 against -1.4 - .3
    assert made.wer(SearchConfig(ctc_weight=0.1, length_exponent=0, language_weight=1.1)) == 0.1
    found = tune(made, SearchConfig(ctc_weight=0.1, length_exponent=0, language_weight=0.0), ["ctc_weight"])
    assert (found.before, found.best.ctc_weight, found.tried[0][0]) == (0.5, 0.3, 0.1)  # at .2 both are equal
    assert found.names == ["ctc_weight"]


def test_a_reward_for_tokens_and_the_length_exponent():
    made = lists([[1.0, 0.0], [1.0, 0.0]], speller=[[-1.0, -1.4], [-1.0, -1.4]], lengths=[[1.0, 2.0], [1.0, 2.0]])
    assert made.wer(PLAIN) == 0.2
    assert tune(made, PLAIN, ["token_reward"]).best.token_reward == 0.5
    assert tune(made, PLAIN, ["length_exponent"]).best.length_exponent == 1.0  # -1 / 2 against -1.4 / 3


def test_what_the_lists_do_not_hold_is_not_varied():
    made = lists([[1.0, 0.0], [1.0, 0.0]], speller=[[-1.0, -2.0], [-1.0, -2.0]])
    found = tune(made, PLAIN, ["ctc_weight", "language_weight", "source_weight", "internal_weight", "length_exponent"])
    assert found.names == ["length_exponent"]
    assert len(found.tried) == len(tuning.GRIDS["length_exponent"])


def test_coverage_counts_as_in_search():
    made = lists([[1.0, 0.0], [1.0, 0.0]], speller=[[-1.0, -2.0], [-1.0, -2.0]], coverage=[[-9.0, 0.0], [-9.0, 0.0]])
    assert made.wer(SearchConfig(coverage=0.0, length_exponent=0)) == 0.2
    assert made.wer(SearchConfig(coverage=0.2, length_exponent=0)) == 0.0


def test_lists_of_different_lengths():
    made = tuning._lists([([], [0], [4]), ([{"speller": -1.0}, {"speller": -2.0}], [3, 2], [1, 0])], 8)
    assert made.wer(PLAIN) == 5 / 8
    assert made.oracle == 0.5


def test_the_surface_is_a_table_of_the_first_two_settings():
    made = lists([[2.0, 0.0], [3.0, 1.0]], speller=[[-1.0, -2.0], [-1.0, -2.0]], ctc=[[-5.0, -1.0], [-5.0, -1.0]])
    head, *rows = surface(tune(made, PLAIN, ["ctc_weight", "token_reward"])).splitlines()
    assert head.split()[:3] == ["token_reward", "\\", "ctc_weight"]
    assert len(rows) == len(tuning.GRIDS["token_reward"])
    assert rows[0].split() == ["0", *["50.00%"] * 3, *["10.00%"] * 7]
    alone = surface(tune(made, PLAIN, ["ctc_weight"])).splitlines()
    assert len(alone) == 1 + len(tuning.GRIDS["ctc_weight"])


def test_parts_without_weight_get_one_for_the_lists():
    found = search_for_lists(SearchConfig(ctc_weight=0.0, language_weight=0.7), ["ctc_weight", "language_weight"])
    assert (found.ctc_weight, found.language_weight, found.internal_weight) == (0.3, 0.7, 0.0)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.7])
def test_lists_rank_as_search_does(trained, corpus, weight):
    """The first of a list under the weights it was searched with is the first of the list."""
    words = [f"search.ctc_weight={weight}", "search.internal_weight=0.1", "search.coverage=0.05"]
    words += ["search.token_reward=0.3", "search.beam=4"]  # a search for 4 has at least 4 beams
    recognizer, config = models.open_model(trained / "model", "cpu", words)
    index = read_index(corpus / "shards" / "valid")
    calls = []
    found = decode(recognizer, index, config.style, 4, lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == pytest.approx(calls[-1][1])
    result = evaluation.evaluate_set(recognizer, "valid", corpus / "shards" / "valid", config.style)
    assert found.wer(recognizer.search) == pytest.approx(result.score.counts.rate)
    total = (1 - weight) * found.scores["speller"] - 0.1 * found.scores["internal"] + 0.3 * found.lengths
    total = total + (weight * found.scores["ctc"] if weight else 0)
    ranked = total / (found.lengths + 1) ** 0.6 + 0.05 * found.scores["coverage"]
    assert (np.diff(ranked, axis=1)[np.isfinite(found.errors[:, 1:])] <= 1e-9).all()


def test_a_model_is_tuned_and_its_config_written(trained, corpus, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained / "model", model)
    before = yaml.safe_load((model / "config.yaml").read_text())
    names = ["ctc_weight", "internal_weight", "length_exponent"]
    tuned = tune_model(str(model), corpus / "shards" / "valid", names, 4, "cpu", [], lambda *_: None)
    assert tuned.names == names
    assert "settings tried on lists whose best choice would be" in summary(tuned)
    tuning.write_search(str(model), tuned, ["search.beam=3"])
    after = yaml.safe_load((model / "config.yaml").read_text())
    changed = {name for name in before["search"] if before["search"][name] != after["search"][name]}
    assert changed <= {*names, "beam"}
    assert after["search"]["beam"] == 3
    assert {**before, "search": None} == {**after, "search": None}
    assert {name: after["search"][name] for name in names} == {name: getattr(tuned.best, name) for name in names}
    assert checkpoint.read_model(model).vocabulary == before["vocabulary"]


def test_what_cannot_be_tuned(trained, corpus):
    def run(path, names):
        tune_model(str(trained / "model"), path, names, 4, "cpu", [], lambda *_: None)

    with pytest.raises(UserError, match="--vary beam: wanted some of ctc_weight, language_weight, "):
        run(corpus / "shards" / "valid", ["beam"])
    with pytest.raises(UserError, match="--vary source_weight: nothing to choose, this search has none of these parts"):
        run(corpus / "shards" / "valid", ["source_weight"])
    with pytest.raises(UserError, match=r"valid\.jsonl: wanted a folder of shards; `las shard`"):
        run(corpus / "valid.jsonl", ["ctc_weight"])


def test_recordings_that_are_read_in_pieces_are_left_out_and_counted(trained, corpus):
    entries = sorted(read_index(corpus / "shards/valid").entries, key=lambda entry: entry.seconds)
    middle = (entries[0].seconds + entries[-1].seconds) / 2

    def tuned(whole):
        words = [f"search.whole={whole}", f"search.piece={whole}"]
        return tune_model(
            str(trained / "model"), corpus / "shards/valid", ["ctc_weight"], 4, "cpu", words, lambda *_: 0
        )

    found = tuned(middle)
    assert set(found.left_out) == {entry.id for entry in entries if entry.seconds > middle}
    assert f"left out: {len(found.left_out)} recordings that are read in pieces (first: valid-" in summary(found)
    assert "left out" not in summary(tuned(entries[-1].seconds))
    with pytest.raises(UserError, match=r"all recordings are longer than 0\.1 s, .*; tune on shorter"):
        tuned(0.1)


def test_a_language_model_is_found_from_any_folder(trained, corpus, tmp_path, monkeypatch):
    shutil.copytree(trained / "model", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    found = tuning.Tuned([(0.5, SearchConfig())], 0.5, 0.5, ["ctc_weight"])
    tuning.write_search("model", found, ["search.language_model=lm.arpa"])
    after = yaml.safe_load((tmp_path / "model/config.yaml").read_text())["search"]
    assert (after["language_model"], after["source_model"]) == (str(tmp_path / "lm.arpa"), "")
