"""Configuration files: YAML and JSON text into plain data."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path as FilePath
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from agent_rate_limiter.errors import ConfigError

_TAG = "tag:yaml.org,2002:"


def read_file(source: str | os.PathLike[str]) -> object:
    """Read a .yaml, .yml or .json file.

    Raises:
        ConfigError: it cannot be read, or its text is broken; with the line and column.
    """
    readers = {".yaml": _from_yaml, ".yml": _from_yaml, ".json": _from_json}
    reader = readers.get(FilePath(source).suffix.lower())
    if reader is None:
        raise ConfigError(f"{source}: give a file that ends in .yaml, .yml or .json, or a mapping.")
    try:
        return reader(str(source), _text_of(source))
    except RecursionError:
        raise ConfigError(f"{source}: it is nested too deeply.") from None


def _text_of(source: str | os.PathLike[str]) -> str:
    try:
        content = FilePath(source).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{source}: cannot be read: {reason}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        readable = content[: error.start].decode("utf-8-sig")
        raise _text_error(str(source), readable, len(readable), "it is not UTF-8 text") from None


def _text_error(source: str, text: str, position: int, what: str) -> ConfigError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return ConfigError(f"{source}: line {line}, column {column}: {what}.")


def _from_json(source: str, text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise _text_error(source, text, error.pos, error.msg) from None
    except ValueError as error:
        raise ConfigError(f"{source}: {error}.") from None


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice in one object; remove one")
        found[key] = value
    return found


def _from_yaml(source: str, text: str) -> object:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = error.problem or "it is not YAML"
        if what.startswith("but "):  # the sentence begins in the context
            what = f"{error.context} {what}"
        raise ConfigError(f"{source}: line {line}, column {column}: {what}.") from None
    except ReaderError as error:
        raise _text_error(source, text, error.position, "a character that YAML does not allow") from None


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values, since 1.1's are traps: `on`, `1:30`, `010` and `2026-01-01` stay what they seem.

    Keys are text, whatever they look like, and none may be given twice.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as in its base

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - as in its base
        try:
            return super().construct_object(node, deep)  # pyright: ignore  # noqa: PGH003 - untyped base
        except (KeyError, IndexError, ValueError):  # an explicit tag, as in `!!int many`
            raise ConstructorError(None, None, f"this is not a {node.tag}", node.start_mark) from None

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}merge":
                continue
            key.tag = f"{_TAG}str"
            if key.value in seen:
                problem = f"the key {key.value!r} is given twice; remove one"
                raise ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return node


def _plain_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in {"null", "bool", "float", "str", "seq", "map"}
}
_Loader.add_constructor(f"{_TAG}int", _plain_int)
for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,300}", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
        f"{_TAG}{_kind}", re.compile(f"^(?:{_pattern})$"), _first
    )
