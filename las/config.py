"""Settings: YAML files and `key=value` words -> frozen dataclasses.

Each part of the program keeps its own dataclass beside the code it drives; `las/recipe.py` joins them. OmegaConf's
structured configs check names and types; here its errors get the nearest known key and the comments behind the fields
become the help that `las train --keys` prints.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from las.errors import UserError

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Key:
    """One setting: its dotted name, default and meaning."""

    name: str
    default: Any
    kind: str
    meaning: str


def load(kind: type[Config], path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """A config of dataclass `kind`: its defaults, then the YAML file, then `key=value` words.

    Raises `UserError` for an unknown key (the nearest known one is named), a wrong type, a broken rule between fields.
    """
    layers: list[tuple[str, Any]] = []
    if path is not None:
        layers.append((str(path), _read_yaml(Path(path))))
    layers += _words(overrides)
    return _merge(kind, layers)


def from_mapping(kind: type[Config], content: dict[str, Any], where: str, overrides: Sequence[str] = ()) -> Config:
    """The same from nested dicts and `key=value` words; `where` names the source of the dicts in errors."""
    return _merge(kind, [(where, content), *_words(overrides)])


def to_yaml(config: Any) -> str:
    """The config in full as YAML; `load` reads it back to an equal value."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def keys(kind: type, prefix: str = "") -> Iterator[Key]:
    """Every setting below the dataclass `kind`, in order of definition."""
    hints = typing.get_type_hints(kind)
    meanings = _field_comments(kind)
    for field in dataclasses.fields(kind):
        name = prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            yield from keys(hints[field.name], name + ".")
            continue
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        else:
            default = "(required)"
        kind_name = getattr(hints[field.name], "__name__", "") if not typing.get_args(hints[field.name]) else ""
        yield Key(
            name, default, kind_name or str(hints[field.name]).replace("typing.", ""), meanings.get(field.name, "")
        )


def _words(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    layers = []
    for word in overrides:
        if not re.match(r"^[\w.]+=", word):
            raise UserError(f"{word!r}: settings are written key=value, such as train.optimizer.rate=0.001")
        try:
            layers.append((repr(word), OmegaConf.from_dotlist([word])))
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"{word!r}: cannot read the value: {_one_line(error)}") from None
    return layers


def _merge(kind: type[Config], layers: list[tuple[str, Any]]) -> Config:
    merged = OmegaConf.structured(kind)
    for where, layer in layers:
        try:
            merged = OmegaConf.merge(merged, layer)
        except ConfigKeyError as error:
            key = str(error.full_key or error.key)
            raise UserError(f"{where}: unknown key {key!r}{_nearest(key, kind)}") from None
        except (ValidationError, OmegaConfBaseException) as error:
            raise UserError(f"{where}: {error.full_key or _culprit(merged, layer)}: {_one_line(error)}") from None
    try:
        return typing.cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise UserError(f"{layers[-1][0] if layers else kind.__name__}: {error.full_key}: {_one_line(error)}") from None


def _nearest(key: str, kind: type) -> str:
    names = [known.name for known in keys(kind)]
    groups = sorted({".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 1)})
    same_name = [name for name in names if name.split(".")[-1] == key.split(".")[-1]]
    found = same_name or difflib.get_close_matches(key, names + groups, n=1, cutoff=0.5)
    if not found:
        tails = {name.split(".")[-1]: name for name in names}
        found = [tails[tail] for tail in difflib.get_close_matches(key.split(".")[-1], tails, n=1, cutoff=0.6)]
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
    return "a value of the wrong type" if "$VALUE" in first else first  # OmegaConf leaves its template in lists


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
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{where}: a config is a mapping of keys to values, this is a {type(content).__name__}")
    return content


def _field_comments(kind: type) -> dict[str, str]:
    """Meanings of fields, from the comments behind them in the source."""
    pattern = re.compile(r"^    (\w+)\s*:.*?(?:\s#\s*(.*))?$")
    meanings: dict[str, str] = {}
    last = None
    for line in inspect.getsource(kind).splitlines():
        if match := pattern.match(line):
            last = match.group(1)
            meanings[last] = (match.group(2) or "").strip()
        elif last and (more := re.match(r"^ {4,}(?: {4,}\S.*\s)?#\s+(.*)$", line)):  # also inside brackets
            meanings[last] = f"{meanings[last]} {more.group(1)}".strip()
        elif line.strip():
            last = None
    return meanings
