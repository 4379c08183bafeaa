"""Settings: YAML files and `key=value` words -> frozen dataclasses.

Each part of the program keeps its own dataclass beside the code it drives; `las/recipe/config.py` joins them.
OmegaConf's structured configs check names and types; here its errors get the nearest known key and the comments behind
the fields become the help that `las train --keys` prints.

A field whose metadata holds `kinds`, a dict from name to dataclass, is a choice: its `kind` key picks the dataclass,
and keys of other kinds are unknown. All kinds are subclasses of the field's type and have a field `kind: str`.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from las.errors import UserError

Config = TypeVar("Config")
Layer = tuple[str, Any]  # where settings come from, and nested mappings of them


@dataclasses.dataclass(frozen=True)
class Key:
    """One setting: its dotted name, default and meaning."""

    name: str
    default: Any
    kind: str
    meaning: str
    of: tuple[str, ...] = ()  # where the group is a choice: the kinds of the group that have this key


def load(kind: type[Config], path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """A config of dataclass `kind`: its defaults, then the YAML file, then `key=value` words.

    Raises `UserError` for an unknown key (the nearest known one is named), a wrong type, a broken rule between fields.
    """
    file = [] if path is None else [(str(path), _read_yaml(Path(path)))]
    return _merge(kind, [file, _words(overrides)])


def from_mapping(kind: type[Config], content: dict[str, Any], where: str, overrides: Sequence[str] = ()) -> Config:
    """The same from nested dicts and `key=value` words; `where` names the source of the dicts in errors."""
    return _merge(kind, [[(where, content)], _words(overrides)])


def to_yaml(config: Any) -> str:
    """The config in full as YAML; `load` reads it back to an equal value."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def keys(kind: type, prefix: str = "") -> Iterator[Key]:
    """Every setting below the dataclass `kind`, in order of definition; of a choice, those of all its kinds."""
    hints = typing.get_type_hints(kind)
    meanings = _field_comments(kind)
    for field in dataclasses.fields(kind):
        name = prefix + field.name
        if kinds := field.metadata.get("kinds"):
            yield from _keys_of_choice(kinds, _default(field).kind, name + ".")
            continue
        if dataclasses.is_dataclass(hints[field.name]):
            yield from keys(typing.cast(type, hints[field.name]), name + ".")
            continue
        kind_name = getattr(hints[field.name], "__name__", "") if not typing.get_args(hints[field.name]) else ""
        kind_name = kind_name or str(hints[field.name]).replace("typing.", "")
        yield Key(name, _default(field), kind_name, meanings.get(field.name, ""))


def _keys_of_choice(kinds: Mapping[str, type], chosen: str, prefix: str) -> Iterator[Key]:
    """The key that chooses, then those of every kind; a key that several kinds have alike comes once."""
    found: dict[Key, list[str]] = {}
    for name, kind in kinds.items():
        for key in keys(kind, prefix):
            if key.name == prefix + "kind":
                key = dataclasses.replace(key, default=chosen, meaning=f"{key.meaning}: {', '.join(kinds)}")
            found.setdefault(key, []).append(name)
    for key, names in found.items():
        of = () if len(names) == len(kinds) else tuple(names)
        yield dataclasses.replace(key, meaning=f"{', '.join(of)}: {key.meaning}" if of else key.meaning, of=of)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else "(required)"


def _words(overrides: Sequence[str]) -> list[Layer]:
    layers = []
    for word in overrides:
        if not re.match(r"^[\w.]+=", word):
            raise UserError(f"{word!r}: settings are written key=value, such as train.optimizer.rate=0.001")
        try:
            layers.append((repr(word), OmegaConf.to_container(OmegaConf.from_dotlist([word]))))
        except (yaml.YAMLError, OmegaConfBaseException, UnicodeEncodeError) as error:
            raise UserError(f"{word!r}: cannot read the value: {_one_line(error)}") from None
    return layers


def _merge(kind: type[Config], sources: Sequence[Sequence[Layer]]) -> Config:
    """Layers over the defaults. Those of one source choose their kinds together: the order of words is free."""
    merged = OmegaConf.structured(kind)
    for layers in sources:
        _choose(merged, kind, layers)
        for where, layer in layers:
            _refuse_interpolations(layer, where)
            try:
                merged = OmegaConf.merge(merged, layer)
            except ConfigKeyError as error:
                key = str(error.full_key or error.key)
                raise UserError(f"{where}: unknown key {key!r}{_nearest(key, kind, merged)}") from None
            except (ValidationError, OmegaConfBaseException) as error:
                culprit = error.full_key or _culprit(merged, layer)
                raise UserError(f"{where}: {culprit}: {_one_line(error)}") from None
    last = [where for layers in sources for where, _ in layers][-1:]
    try:
        made = typing.cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise UserError(f"{last[0] if last else kind.__name__}: {error.full_key}: {_one_line(error)}") from None
    if name := _not_a_number(made):
        raise UserError(f"{last[0] if last else kind.__name__}: {name}: nan is not a number")
    return made


def _not_a_number(config: Any) -> str:
    """The dotted name of the first setting that is NaN, which passes every comparison; empty if there is none."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and (deeper := _not_a_number(value)):
            return f"{field.name}.{deeper}"
        if isinstance(value, float) and math.isnan(value):
            return field.name
    return ""


def _refuse_interpolations(value: Any, where: str) -> None:
    """OmegaConf would look `${...}` up, in the environment too: a model's config is not to say what is read."""
    if isinstance(value, str) and "${" in value:
        raise UserError(f"{where}: {value!r}: ${{...}} is not looked up in settings; write the value itself")
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for one in inner:
        _refuse_interpolations(one, where)


def _choose(merged: DictConfig, kind: type, layers: Sequence[Layer], prefix: str = "") -> None:
    """Give each choice in `merged` the dataclass of the kind that the layers name; values of shared keys stay."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        below = [
            (where, layer[field.name])
            for where, layer in layers
            if isinstance(layer, Mapping) and field.name in layer and isinstance(layer[field.name], Mapping)
        ]
        if kinds := field.metadata.get("kinds"):
            for where, layer in below:
                if "kind" in layer:
                    _take_kind(merged, field.name, kinds, layer["kind"], f"{where}: {prefix}{field.name}.kind")
        elif below and dataclasses.is_dataclass(hints[field.name]):
            _choose(merged[field.name], typing.cast(type, hints[field.name]), below, f"{prefix}{field.name}.")


def _take_kind(parent: DictConfig, name: str, kinds: Mapping[str, type], chosen: Any, where: str) -> None:
    if not isinstance(chosen, str) or chosen not in kinds:
        near = difflib.get_close_matches(str(chosen), kinds, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{where} {str(chosen)!r}: wanted one of {', '.join(kinds)}{guess}")
    if chosen == parent[name].kind:
        return
    fresh = OmegaConf.structured(kinds[chosen])
    shared = {key: value for key, value in parent[name].items() if key in fresh and key != "kind"}
    with read_write(parent):
        parent[name] = OmegaConf.merge(fresh, shared)


def _nearest(key: str, kind: type, merged: DictConfig) -> str:
    known: list[Key] = []
    elsewhere: list[Key] = []
    for one in keys(kind):
        chosen = OmegaConf.select(merged, one.name.rpartition(".")[0] + ".kind") if one.of else None
        (known if chosen is None or chosen in one.of else elsewhere).append(one)
    names = list(dict.fromkeys(one.name for one in known))
    group, _, tail = key.rpartition(".")
    if f"{group}.kind" in names and (chosen := OmegaConf.select(merged, f"{group}.kind")):
        others = [other for one in elsewhere if one.name == key for other in one.of]
        of = f" of {group}.kind {chosen}" + (f" (one of {', '.join(others)})" if others else "")
        tails = [name.split(".")[-1] for name in names if name.rpartition(".")[0] == group]
        near = difflib.get_close_matches(tail, tails, n=1, cutoff=0.0)[0]
        return f"{of}; the nearest known key is {f'{group}.{near}'!r}"
    groups = sorted({".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 1)})
    found = [name for name in names if name.split(".")[-1] == tail]
    found = found or difflib.get_close_matches(key, names + groups, n=1, cutoff=0.5)
    if not found:
        tails_to_names = {name.split(".")[-1]: name for name in names}
        near_tails = difflib.get_close_matches(tail, tails_to_names, n=1, cutoff=0.6)
        found = [tails_to_names[one] for one in near_tails]
    return f"; the nearest known key is {found[0]!r}" if found else "; `las train --keys` prints all keys"


def _culprit(merged: Any, layer: Any, prefix: str = "") -> str:
    """The dotted name of the first value that cannot be merged, where OmegaConf does not tell."""
    for name, value in layer.items():
        if isinstance(value, Mapping) and (deeper := _culprit(merged, value, f"{prefix}{name}.")):
            return deeper
        alone = value
        for part in reversed(f"{prefix}{name}".split(".")):
            alone = {part: alone}
        try:
            OmegaConf.merge(merged, alone)
        except OmegaConfBaseException:
            return f"{prefix}{name}"
    return ""


def _one_line(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "is not a TupleConfig" in first or "is not a ListConfig" in first:
        return "wanted a list, such as [one] or [one,two]"
    return "a value of the wrong type" if "$VALUE" in first else first  # OmegaConf leaves its template in lists


class _Loader(yaml.SafeLoader):
    """PyYAML's, but of a key that is there twice it does not drop the first value in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in names:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a config: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """YAML text that holds a mapping, as nested dicts; `where` names its source in errors."""
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{where}: a config is a mapping of keys to values, this is a {type(content).__name__}")
    return content


def _field_comments(kind: type) -> dict[str, str]:
    """Meanings of fields, from the comments behind them in the source; a field without one inherits its meaning."""
    pattern = re.compile(r"^    (\w+)\s*:.*?(?:\s#\s*(.*))?$")
    meanings: dict[str, str] = {}
    for parent in kind.__bases__:
        if dataclasses.is_dataclass(parent):
            meanings |= _field_comments(parent)
    last = None
    for line in inspect.getsource(kind).splitlines():
        if match := pattern.match(line):
            last = match.group(1)
            meanings[last] = (match.group(2) or meanings.get(last, "")).strip()
        elif last and (more := re.match(r"^ {4,}(?: {4,}\S.*\s)?#\s+(.*)$", line)):  # also inside brackets
            meanings[last] = f"{meanings[last]} {more.group(1)}".strip()
        elif line.strip():
            last = None
    return meanings
