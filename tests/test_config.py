from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from las.config import Key, from_mapping, keys, load, parse_yaml, to_yaml
from las.errors import UserError
from las.recipe.config import RunConfig


@dataclass(frozen=True)
class Engine:
    """Drives."""

    power: int = 40  # kW
    fuel: str = "wind"  # what it burns,
    # or not
    gears: tuple[int, ...] = (1, 2)  # teeth

    def __post_init__(self) -> None:
        if self.power < 0:
            raise UserError(f"engine.power {self.power} kW is below 0")


@dataclass(frozen=True)
class Car:
    """Has an engine."""

    name: str  # painted on it
    engine: Engine = field(default_factory=Engine)
    open: bool = False


def test_defaults_then_file_then_words(tmp_path):
    path = tmp_path / "차.yaml"
    path.write_text("name: 제비\nengine:\n  power: 50\n  gears: [3]\n", encoding="utf-8")
    assert load(Car, path, ["engine.power=60", "open=true"]) == Car("제비", Engine(60, "wind", (3,)), True)


def test_the_last_word_wins():
    assert load(Car, None, ["name=a", "name=b"]).name == "b"


def test_values_may_hold_spaces_equal_signs_and_hangul():
    assert load(Car, None, ["name=한글 폴더/a=b"]).name == "한글 폴더/a=b"


def test_yaml_round_trip():
    car = Car('it\'s: a "car" #1', Engine(7, "물", ()))
    assert from_mapping(Car, parse_yaml(to_yaml(car), "here"), "here") == car


def test_the_whole_run_config_round_trips(tmp_path):
    config = load(RunConfig, None, ["train.optimizer.rate=3e-4", "model.listener.reduce=[1,3]", "data.train=곳/a b"])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load(RunConfig, path) == config
    assert load(RunConfig, path, ["train.optimizer.rate=1e-4"]) != config


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.epoch=3", "'train.epoch=3': unknown key 'train.epoch'; the nearest known key is 'train.epochs'"),
        ("model.listner.width=8", "unknown key 'model.listner'; the nearest known key is 'model.listener'"),
        ("epochs=3", "unknown key 'epochs'; the nearest known key is 'train.epochs'"),
        ("train.optimiser.rat=3", "unknown key 'train.optimiser'; the nearest known key is 'train.optimizer'"),
        ("optimizer.clp=3", "unknown key 'optimizer'; the nearest known key is 'train.optimizer"),
        ("zzzz=1", "unknown key 'zzzz'; `las train --keys` prints all keys"),
        ("train.epochs=many", "train.epochs: Value 'many' of type 'str' could not be converted to Integer"),
        ("train.epochs=3.5", "train.epochs: Value '3.5' of type 'float' could not be converted to Integer"),
        ("train.epochs=", "train.epochs: Incompatible value 'None' for field of type 'int'"),
        ("model.ctc=maybe", "model.ctc: Value 'maybe' is not a valid bool"),
        ("model.listener.reduce=2", "model.listener.reduce: wanted a list, such as [one] or [one,two]"),
        ("model.listener.reduce=[a]", "model.listener.reduce: a value of the wrong type"),
        ("train=3", "train: Merge error: int is not a subclass of TrainConfig"),
        ("data.train=[a]", "data.train: Cannot convert 'ListConfig' to string"),
        ("data.train=${nothing}", "is not looked up in settings"),
        ("train.epochs=[1", "'train.epochs=[1': cannot read the value"),
        ("data.train=\udcff", "cannot read the value: 'utf-8' codec can't encode character"),  # no UTF-8 in a path
        ("train.epochs", "'train.epochs': settings are written key=value"),
        ("=3", "'=3': settings are written key=value"),
        ("train.epochs=0", "train: epochs, accumulate, validate_every and average must be at least 1"),
        ("train.precision=fp8", "train.precision 'fp8': wanted one of fp32, bf16"),
        ("model.frontend.hop=0.1", "frontend.hop 0.1 s exceeds frontend.window 0.025 s"),
        ("search.beam=0", "search.beam 0 must be at least 1"),
        ("data.batch_grid=-1", "data.batch_grid -1 must be 0 or more"),
        ("data.batch_seconds=0", "data: batch_seconds, batch_utterances, longest and neighbours must be above 0"),
        ("data.leave_out=2", "data: workers must be 0 or more, leave_out between 0 and 1"),
        ("train.optimizer.rate=inf", "optimizer: rate and epsilon must be above 0, rate finite"),
        ("model.frontend.floor=nan", "'model.frontend.floor=nan': model.frontend.floor: nan is not a number"),
        ("data.workers=-1", "data: workers must be 0 or more, leave_out between 0 and 1"),
        ("model.speller.attention.heads=2", "'model.speller.attention.heads' of model.speller.attention.kind content"),
        ("model.speller.attention.heads=2", "(one of multi_head); the nearest known key is 'model.speller.attention."),
        ("model.speller.attention.kind=loction", "did you mean 'location'?"),
        ("model.speller.attention={kind: windowed, window: 0}", "attention.window 0 must be at least 1"),
        ("model.speller.attention={kind: multi_head, heads: 3}", "attention.heads 3 do not divide attention.width 256"),
        ("style=basics", "unknown text style 'basics'; did you mean 'basic'?"),
    ],
)
def test_a_wrong_word_is_named(word, message):
    with pytest.raises(UserError) as raised:
        load(RunConfig, None, [word])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  epoch: 3\n", "unknown key 'train.epoch'; the nearest known key is 'train.epochs'"),
        ("model:\n  listener:\n    reduce: [x]\n", "model.listener.reduce: a value of the wrong type"),
        ("train:\n", "train: field 'train' is not Optional"),
        ("train: [\n", "not valid YAML"),
        ("train: {epochs: 7}\nstyle: basic\ntrain: {accumulate: 2}\n", "not valid YAML: 'train' is there twice in"),
        ("train:\n  epochs: 7\n  epochs: 8\n", "'epochs' is there twice"),
        ("- 1\n", "a config is a mapping of keys to values, this is a list"),
        ("just text", "a config is a mapping of keys to values, this is a str"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    path = tmp_path / "conf.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        load(RunConfig, path)
    assert str(raised.value).startswith(f"{path}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_empty_file_is_the_defaults(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text("# nothing\n", encoding="utf-8")
    assert load(RunConfig, path) == RunConfig()


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.yaml: no such config file"):
        load(Car, tmp_path / "nowhere.yaml")
    with pytest.raises(UserError, match=r"cannot be read as a config: .*Is a directory"):
        load(Car, tmp_path)
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(UserError, match=r"latin.yaml: cannot be read as a config"):
        load(Car, path)


def test_a_missing_value_is_named():
    with pytest.raises(UserError, match=r"Car: name: .*missing"):
        load(Car)


def test_a_rule_between_fields_is_checked():
    with pytest.raises(UserError, match=r"engine.power -1 kW is below 0"):
        load(Car, None, ["name=a", "engine.power=-1"])


@dataclass(frozen=True)
class Wheels:
    """What a cart rolls on."""

    kind: str  # what it rolls on


@dataclass(frozen=True)
class Wooden(Wheels):
    """Of wood."""

    kind: str = "wooden"
    spokes: int = 8  # pieces
    size: float = 0.5  # m


@dataclass(frozen=True)
class Rubber(Wheels):
    """With air."""

    kind: str = "rubber"
    pressure: float = 2.0  # bar
    size: float = 0.5  # m


@dataclass(frozen=True)
class Cart:
    """Rolls on wheels of one of two kinds."""

    wheels: Wheels = field(default_factory=Wooden, metadata={"kinds": {"wooden": Wooden, "rubber": Rubber}})


@dataclass(frozen=True)
class Yard:
    """Holds a cart."""

    cart: Cart = field(default_factory=Cart)


def test_a_kind_picks_its_dataclass_whatever_the_order_of_words():
    assert load(Yard) == Yard(Cart(Wooden()))
    words = ["cart.wheels.pressure=3", "cart.wheels.kind=rubber"]
    assert load(Yard, None, words) == load(Yard, None, words[::-1]) == Yard(Cart(Rubber(pressure=3.0)))


def test_a_word_that_changes_the_kind_keeps_what_the_kinds_share(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text("cart: {wheels: {kind: wooden, spokes: 12, size: 0.7}}\n", encoding="utf-8")
    assert load(Yard, path) == Yard(Cart(Wooden(spokes=12, size=0.7)))
    assert load(Yard, path, ["cart.wheels.kind=rubber"]) == Yard(Cart(Rubber(size=0.7)))
    assert load(Yard, path, ["cart.wheels.kind=wooden"]) == load(Yard, path)


@pytest.mark.parametrize("wheels", [Wooden(spokes=3), Rubber(pressure=9.0)])
def test_a_choice_round_trips(wheels):
    assert from_mapping(Yard, parse_yaml(to_yaml(Yard(Cart(wheels))), "here"), "here") == Yard(Cart(wheels))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cart.wheels.kind=ruber"], "cart.wheels.kind 'ruber': wanted one of wooden, rubber; did you mean 'rubber'?"),
        (["cart.wheels.kind=3"], "cart.wheels.kind '3': wanted one of wooden, rubber"),
        (
            ["cart.wheels.kind=rubber", "cart.wheels.spokes=3"],
            "unknown key 'cart.wheels.spokes' of cart.wheels.kind rubber (one of wooden); "
            "the nearest known key is 'cart.wheels.pressure'",
        ),
        (
            ["cart.wheels.sise=3"],
            "unknown key 'cart.wheels.sise' of cart.wheels.kind wooden; the nearest known key is 'cart.wheels.size'",
        ),
        (["cart.wheels.kind=rubber", "cart.wheels.pressure=a"], "cart.wheels.pressure: Value 'a' of type 'str'"),
        (["cart.wheel.size=1"], "unknown key 'cart.wheel'; the nearest known key is 'cart.wheels'"),
        (["cart.wheels=rubber"], "cart.wheels: Merge error"),
        (["cart.wheels.kind="], "cart.wheels.kind 'None': wanted one of wooden, rubber"),
    ],
)
def test_a_wrong_word_in_a_choice_is_named(words, message):
    with pytest.raises(UserError) as raised:
        load(Yard, None, words)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_keys_of_a_choice_are_those_of_all_its_kinds():
    assert list(keys(Yard)) == [
        Key("cart.wheels.kind", "wooden", "str", "what it rolls on: wooden, rubber"),
        Key("cart.wheels.spokes", 8, "int", "wooden: pieces", ("wooden",)),
        Key("cart.wheels.size", 0.5, "float", "m"),
        Key("cart.wheels.pressure", 2.0, "float", "rubber: bar", ("rubber",)),
    ]


def test_keys_tell_name_default_type_and_meaning():
    assert list(keys(Car)) == [
        Key("name", "(required)", "str", "painted on it"),
        Key("engine.power", 40, "int", "kW"),
        Key("engine.fuel", "wind", "str", "what it burns, or not"),
        Key("engine.gears", (1, 2), "tuple[int, ...]", "teeth"),
        Key("open", False, "bool", ""),
    ]


def test_every_key_of_a_run_has_a_meaning():
    found = list(keys(RunConfig))
    assert [key.name for key in found if not key.meaning] == []
    assert [key.name for key in found if not key.kind] == []
    assert len({(key.name, key.of) for key in found}) == len(found) > 50


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a/${style}"])
def test_nothing_is_looked_up(value, tmp_path):
    (tmp_path / "conf.yaml").write_text(f"data:\n  train: '{value}'\n")
    with pytest.raises(UserError, match=r"conf\.yaml: .* is not looked up in settings; write the value itself"):
        load(RunConfig, tmp_path / "conf.yaml")
    with pytest.raises(UserError, match=r"is not looked up in settings"):
        load(RunConfig, None, [f"data.train={value}"])
