r"""YAML with one reading, for recipes and policies: untrusted text becomes a mapping, or one reason why not.

    parse_mapping(b"a: 1")                      # {"a": 1}
    parse_mapping(b"a: &x [1]\nb: *x")          # ValueError: aliases (*name) are not allowed

Callers bound the size before. Knows nothing about what the keys mean.
"""

from __future__ import annotations

import json
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """No aliases (a small file can mean a huge one), no key twice, only text as keys."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        found: yaml.Node | None = super().compose_node(parent, index)
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice or is not text."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if not isinstance(key, str):
                raise yaml.YAMLError(f"the key {key!r} is not text")
            if key in keys[:position]:
                raise yaml.YAMLError(f"the key {key!r} is there twice")
        return super().construct_mapping(node, deep=deep)


def parse_mapping(data: bytes) -> dict[str, Any]:
    """The mapping that a YAML document is (errors as :func:`parse_value`, and what is no mapping)."""
    found = parse_value(data)
    if not isinstance(found, dict):
        raise ValueError("not a mapping of keys")
    return found


def parse_value(data: bytes) -> Any:
    """What a YAML document says, made of what JSON can say.

    Raises:
        ValueError: not UTF-8, not YAML, an alias, a key twice or not text, a value that JSON has not
            (a date, a set). The text is the reason, on one line.
    """
    try:
        found = yaml.load(data.decode("utf-8"), Loader=_Loader)  # noqa: S506 - a stricter SafeLoader
        json.dumps(found, ensure_ascii=False).encode()  # a date, a set or a lone surrogate has no place in JSON
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        # PyYAML lets any of these out: `!!bool x` is a KeyError, `!!timestamp x` an AttributeError.
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    return found
