from __future__ import annotations

import os
import pickle
import shutil

import pytest
import torch

from las import checkpoint
from las.checkpoint import average, load_weights, read_model, read_state, write_model, write_state
from las.errors import UserError


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "모델 1"
    weights = {"a": torch.tensor([1.0, 2.0]), "steps": torch.tensor(7)}
    write_model(folder, "style: basic\n", weights, b"tokens", 5, "# card\n")
    return folder


def test_a_model_folder_reads_back(model):
    found = read_model(model)
    assert (found.path, found.config, found.vocabulary, found.tokenizer) == (model, {"style": "basic"}, 5, b"tokens")
    assert found.weights["a"].tolist() == [1.0, 2.0]
    assert found.weights["steps"].item() == 7
    assert sorted(path.name for path in model.iterdir()) == [
        "README.md", "config.yaml", "model.safetensors", "tokenizer.model",
    ]  # fmt: skip


def test_half_precision_is_stored_in_half_the_space_and_read_as_float32(tmp_path):
    weights = {"a": torch.randn(1000), "steps": torch.tensor(7)}
    write_model(tmp_path / "half", "", weights, b"", 1, "", torch.float16)
    write_model(tmp_path / "full", "", weights, b"", 1, "")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.6 * sizes[1]
    found = read_model(tmp_path / "half").weights
    assert found["a"].dtype == torch.float32
    assert torch.allclose(found["a"], weights["a"], atol=2e-3)
    assert found["steps"].dtype == torch.int64


def test_int8_takes_a_quarter_of_the_space_and_each_row_is_right_to_half_a_step_of_its_own(tmp_path):
    rows = torch.randn(40, 30, 3) * torch.logspace(-6, 3, 40).view(-1, 1, 1)
    rows[7] = 0.0
    weights = {"kernel": rows, "bias": torch.tensor([1.0, -2.5]), "steps": torch.tensor(7)}
    sizes = {}
    for store in (torch.int8, torch.float32):
        checkpoint.write_weights(tmp_path / str(store), weights, store)
        sizes[store] = (tmp_path / str(store)).stat().st_size
    assert sizes[torch.int8] < 0.32 * sizes[torch.float32]
    found = checkpoint.read_weights(tmp_path / "torch.int8")
    assert found.keys() == weights.keys()
    step = rows.abs().amax((1, 2), keepdim=True) / 127
    assert bool(((found["kernel"] - rows).abs() <= step * 0.5001).all())
    assert found["bias"].tolist() == [1.0, -2.5]
    assert found["steps"].item() == 7
    again = {name: value.clone() for name, value in found.items()}
    checkpoint.write_weights(tmp_path / "again", again, torch.int8)
    assert torch.allclose(checkpoint.read_weights(tmp_path / "again")["kernel"], found["kernel"], rtol=1e-6)


@pytest.mark.parametrize("scales", [None, torch.ones(3), torch.ones(2, 1), torch.ones(2, dtype=torch.int8)])
def test_int8_rows_without_their_scales_are_refused(tmp_path, scales):
    weights = {"matrix": torch.ones(2, 4, dtype=torch.int8)} | ({} if scales is None else {"matrix.scale": scales})
    checkpoint.write_weights(tmp_path / "bad", weights)
    with pytest.raises(UserError, match=r"bad: 'matrix.scale' must hold 2 scales of int8 rows, found (nothing|torch)"):
        checkpoint.read_weights(tmp_path / "bad")


def test_weights_that_are_one_tensor_by_two_names_are_stored_by_both(tmp_path):
    tied = torch.arange(6.0).view(2, 3)
    checkpoint.write_weights(tmp_path / "tied.safetensors", {"embedding": tied, "output": tied, "turned": tied.t()})
    found = checkpoint.read_weights(tmp_path / "tied.safetensors")
    assert torch.equal(found["embedding"], tied)
    assert torch.equal(found["output"], tied)
    assert torch.equal(found["turned"], tied.t())


def test_writing_again_replaces_the_whole_folder(model):
    (model / "left_over.txt").write_text("old")
    write_model(model, "style: verbatim\n", {"b": torch.zeros(1)}, b"new", 6, "# new\n")
    assert read_model(model).config == {"style": "verbatim"}
    assert not (model / "left_over.txt").exists()
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_a_writing_that_fails_leaves_the_old_folder(model, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_model(model, "style: verbatim\n", {}, b"new", 6, "")
    assert read_model(model).config == {"style": "basic"}
    monkeypatch.undo()
    write_model(model, "style: verbatim\n", {}, b"new", 6, "")  # what the failed one left is no hindrance
    assert read_model(model).tokenizer == b"new"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.yaml", "not a model folder, config.yaml is missing"),
        ("model.safetensors", "model.safetensors: no such file"),
        ("tokenizer.model", "tokenizer.model: cannot be read: No such file"),
    ],
)
def test_a_missing_file_is_named(model, name, message):
    (model / name).unlink()
    with pytest.raises(UserError, match=message):
        read_model(model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: 1\nvocabulary: 5\n", "model format 1, this version of las reads format 2; use the version of las"),
        ("vocabulary: 5\n", "model format None, this version"),
        ("format: 2\n", "vocabulary None must be a whole number above 0"),
        ("format: 2\nvocabulary: many\n", "vocabulary 'many' must be a whole number"),
        ("format: 2\nvocabulary: 0\n", "vocabulary 0 must be a whole number above 0"),
        ("format: [", "not valid YAML"),
        ("nothing", "a config is a mapping"),
    ],
)
def test_a_config_of_another_kind_is_refused(model, text, message):
    (model / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        read_model(model)
    assert str(raised.value).startswith(f"{model / 'config.yaml'}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize("inside", ["model", "language_model"])
def test_a_run_is_not_its_model(model, inside):
    shutil.copytree(model, model.parent / "run" / inside)
    (model.parent / "run/config.yaml").write_text("train: {}\n")
    with pytest.raises(UserError, match=f"run: the folder of a run; its model is .*run/{inside}$"):
        read_model(model.parent / "run")


def test_a_config_that_is_not_text_is_refused(model):
    (model / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"config.yaml: cannot be read"):
        read_model(model)


@pytest.mark.parametrize("kept", [0, 4, 20, -3])
def test_weights_cut_short_are_refused(model, kept):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"model.safetensors: damaged or not safetensors"):
        read_model(model)


@pytest.mark.parametrize("save", ["pickle", "torch"])
def test_a_pickle_in_place_of_the_weights_is_refused_and_not_run(model, tmp_path, save):
    trap = {"a": Trap(tmp_path / "sprung")}
    path = model / "model.safetensors"
    if save == "pickle":
        path.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, path)
    with pytest.raises(UserError, match="damaged or not safetensors"):
        read_model(model)
    assert not (tmp_path / "sprung").exists()


def test_weights_are_put_in_only_where_names_and_shapes_agree():
    layer = torch.nn.Linear(2, 3)
    whole = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    with pytest.raises(UserError, match="here: the weights lack 'bias', which the config asks for"):
        load_weights(layer, {"weight": whole["weight"]}, "here")
    with pytest.raises(UserError, match="here: the weights hold 'more', which the config does not ask for"):
        load_weights(layer, whole | {"more": torch.zeros(1)}, "here")
    with pytest.raises(UserError, match=r"here: 'weight' has shape \(2, 3\), the config asks for \(3, 2\)"):
        load_weights(layer, whole | {"weight": torch.ones(2, 3)}, "here")
    load_weights(layer, whole, "here")
    assert layer(torch.tensor([1.0, 1.0])).tolist() == [2.0, 2.0, 2.0]


def test_the_average_is_the_mean(tmp_path):
    for number, value in enumerate((1.0, 2.0, 6.0)):
        checkpoint.write_weights(tmp_path / f"{number}", {"a": torch.full((2,), value), "steps": torch.tensor(9)})
    mean = average([tmp_path / f"{number}" for number in range(3)])
    assert mean["a"].tolist() == [3.0, 3.0]
    assert average([tmp_path / "2"])["a"].tolist() == [6.0, 6.0]
    with pytest.raises(UserError, match="gone: no such file"):
        average([tmp_path / "gone"])


def test_a_state_reads_back(tmp_path):
    state = {"progress": {"best": [(0.5, 1.5, 3)], "seconds": 1.25}, "chance": torch.get_rng_state(), "cuda": None}
    write_state(tmp_path / "state.pt", state)
    found = read_state(tmp_path / "state.pt")
    assert found["progress"] == state["progress"]
    assert torch.equal(found["chance"], state["chance"])
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    write_state(path, {"update": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_state(path, {"update": 2})
    assert read_state(path) == {"update": 1}


def test_a_state_with_a_trap_is_refused_and_not_run(tmp_path):
    torch.save({"progress": Trap(tmp_path / "sprung")}, tmp_path / "state.pt")
    with pytest.raises(UserError, match=r"state.pt: damaged, cannot be resumed"):
        read_state(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    with pytest.raises(UserError, match=r"state.pt: damaged, cannot be resumed"):
        read_state(tmp_path / "state.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kept", [0, 10, 500, -5])
def test_a_state_cut_short_is_refused(tmp_path, kept):
    path = tmp_path / "state.pt"
    write_state(path, {"a": torch.randn(1000)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"state.pt: damaged, cannot be resumed") as raised:
        read_state(path)
    assert "\n" not in str(raised.value)


def test_other_states_are_refused(tmp_path):
    with pytest.raises(UserError, match="nothing to resume, the run was stopped before its first checkpoint"):
        read_state(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"no state" * 100)
    with pytest.raises(UserError, match="damaged, cannot be resumed"):
        read_state(tmp_path / "state.pt")
    torch.save([1, 2], tmp_path / "state.pt")
    with pytest.raises(UserError, match="not the state of a run, cannot be resumed: it holds a list"):
        read_state(tmp_path / "state.pt")
