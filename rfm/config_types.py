"""A dataclass as a tree of typed keys: find a key, set it, build the typed config.

What `rfm.config` says about types is decided here: the type at a dotted key, what a value may be,
and the words for what was wanted.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

C = TypeVar("C")

_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}
_PLAIN_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}


class InvalidValue(ValueError):
    """A value that does not fit, at a dotted key; `load_config` adds where it was set."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


# The dataclass as a tree of keys.


def union_arms(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def dataclass_of(hint: Any) -> type[Any] | None:
    for arm in union_arms(hint):
        if isinstance(arm, type) and dataclasses.is_dataclass(arm):
            return arm
    return None


def fields_of(cls: type[Any]) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(cls)
    return {f.name: (f, hints[f.name]) for f in dataclasses.fields(cls) if f.init}


def mapping_values(hint: Any) -> Any:
    """The type of a mapping's values, or None where `hint` is no mapping."""
    for arm in union_arms(hint):
        if arm is dict or (typing.get_origin(arm) or arm) in (dict, Mapping):
            return (typing.get_args(arm) or (str, Any))[1]
    return None


def _unknown(key: str, name: str, cls: type[Any]) -> InvalidValue:
    names = list(fields_of(cls))
    close = _deeper(cls, name) or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    prefix = key[: len(key) - len(name)]
    hint = f"did you mean {' or '.join(repr(prefix + one) for one in close)}? " if close else ""
    level = f"keys of {prefix.rstrip('.')}" if prefix else "keys"
    return InvalidValue(key, f"unknown key; {hint}{level}: {', '.join(names)}")


def _deeper(cls: type[Any], name: str) -> list[str]:
    """The dotted keys below the first level that end in a name."""
    found = []
    for above, (_, hint) in fields_of(cls).items():
        inner = dataclass_of(hint)
        if inner is not None:
            own = [name] if name in fields_of(inner) else []
            found += [f"{above}.{below}" for below in (*own, *_deeper(inner, name))]
    return found


def hint_at(hint: Any, parts: list[str]) -> Any:
    """The type at a dotted key, or an error that names the first part which is not there."""
    for i, name in enumerate(parts):
        key, above = ".".join(parts[: i + 1]), ".".join(parts[:i])
        inner = dataclass_of(hint)
        if inner is not None:
            fields = fields_of(inner)
            if name not in fields:
                raise _unknown(key, name, inner)
            hint = fields[name][1]
        elif mapping_values(hint) is not None:
            hint = mapping_values(hint)
        else:
            raise InvalidValue(
                key, f"{above} has no keys of its own; give {above}=<{wanted_text(hint)}>"
            )
    return hint


def put_value(values: dict[str, Any], hint: Any, parts: list[str], value: Any) -> None:
    """Set one key in the nested values; a mapping given for a dataclass is merged key by key."""
    inner, name = dataclass_of(hint), parts[0]
    if inner is None:
        below = mapping_values(hint)
    else:
        below = fields_of(inner)[name][1] if name in fields_of(inner) else Any
    merged = len(parts) == 1 and isinstance(value, dict) and dataclass_of(below) is not None
    if len(parts) == 1 and not merged:
        values[name] = value
        return
    if not isinstance(values.get(name), dict):
        values[name] = {} if dataclass_of(below) else _SetEntries()
    rest = [(parts[1:], value)] if len(parts) > 1 else [([str(k)], v) for k, v in value.items()]
    for path, v in rest:
        put_value(values[name], below, path, v)


class _SetEntries(dict[str, Any]):
    """Entries to set in a mapping's default, where a plain dict would replace it."""


# From values to the typed config.


def build(cls: type[C], values: Mapping[Any, Any], at: str, default: C | None) -> C:
    """An instance of `cls`: the given values over `default` (or the fields' own defaults)."""
    fields = fields_of(cls)
    prefix = f"{at}." if at else ""
    for name in values:
        if name not in fields:
            raise _unknown(f"{prefix}{name}", str(name), cls)
    arguments = {}
    for name, (field, hint) in fields.items():
        key = prefix + name
        current = default_of(field) if default is None else getattr(default, name)
        if name in values:
            arguments[name] = _convert(values[name], hint, key, current)
            _check_range(arguments[name], field.metadata, key)
        elif current is dataclasses.MISSING:
            raise InvalidValue(key, f"required; give {key}=<{wanted_text(hint)}>")
        else:
            arguments[name] = current
    try:
        return cls(**arguments)
    except ValueError as error:
        raise InvalidValue(at, str(error)) from error


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _convert(value: Any, hint: Any, key: str, default: Any = None) -> Any:
    """`value` as the type `hint`, or `InvalidValue` with what was wanted."""
    if hint is Any:
        return value
    arms = union_arms(hint)
    if len(arms) > 1:
        return _convert_union(value, hint, key, default)
    inner, origin = dataclass_of(hint), typing.get_origin(hint) or hint
    if inner is not None and isinstance(value, dict):
        return build(inner, value, key, default if isinstance(default, inner) else None)
    if origin is Literal:
        for choice in typing.get_args(hint):
            if type(choice) is type(value) and choice == value:
                return choice
    elif origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
        return _convert_items(value, hint, key)
    elif mapping_values(hint) is not None and isinstance(value, dict):
        base = dict(default or {}) if isinstance(value, _SetEntries) else {}
        below = mapping_values(hint)
        for name, v in value.items():
            base[str(name)] = _convert(v, below, f"{key}.{name}", base.get(str(name)))
        return base
    elif hint is type(None) and value is None:
        return None
    elif hint in _PLAIN_NAMES:
        return _convert_plain(value, hint, key)
    raise _wrong(value, hint, key)


def _convert_plain(value: Any, hint: Any, key: str) -> Any:
    if isinstance(value, str) and "${" in value:
        raise InvalidValue(key, f"got {value!r}; there is no interpolation, write the value itself")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and is_number and _is_finite(value) and int(value) == value:
        return int(value)
    if hint is float and is_number:
        return float(value)
    if hint is str and isinstance(value, str):
        return value
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    raise _wrong(value, hint, key)


def _convert_union(value: Any, hint: Any, key: str, default: Any) -> Any:
    arms = union_arms(hint)
    if value is None and type(None) in arms:
        return None
    arms = tuple(arm for arm in arms if arm is not type(None))
    errors = []
    for arm in sorted(arms, key=lambda arm: type(value) is not arm):
        try:
            return _convert(value, arm, key, default)
        except InvalidValue as error:
            errors.append(error)
    raise errors[0] if len(arms) == 1 and errors[0].key != key else _wrong(value, hint, key)


def _convert_items(value: Sequence[Any], hint: Any, key: str) -> Any:
    kind, args = typing.get_origin(hint) or hint, typing.get_args(hint) or (Any,)
    if kind is tuple and args[-1] is not Ellipsis:
        if len(value) != len(args):
            raise _wrong(value, hint, key)
        types_ = args
    else:
        types_ = args[:1] * len(value)
    items = [
        _convert(v, t, f"{key}[{i}]") for i, (v, t) in enumerate(zip(value, types_, strict=True))
    ]
    return tuple(items) if kind is tuple else items


def _check_range(value: Any, metadata: Mapping[str, Any], key: str) -> None:
    bounds = [name for name in _BOUNDS if name in metadata]
    if not bounds or value is None or isinstance(value, str | bool):
        return
    if isinstance(value, Mapping):
        for name, v in value.items():
            _check_range(v, metadata, f"{key}.{name}")
    elif isinstance(value, Sequence):
        for i, v in enumerate(value):
            _check_range(v, metadata, f"{key}[{i}]")
    elif not _is_finite(value) or not all(
        _BOUNDS[name][1](value, metadata[name]) for name in bounds
    ):
        raise InvalidValue(key, f"got {value!r}, wanted a number {range_text(metadata)}")


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)  # an integer may be too large for a float


# Words for what is wrong.


def _wrong(value: Any, hint: Any, key: str) -> InvalidValue:
    message = f"got {value!r}, wanted {wanted_text(hint)}"
    choices = [c for arm in union_arms(hint) if typing.get_origin(arm) is Literal
               for c in map(str, typing.get_args(arm))]  # fmt: skip
    close = difflib.get_close_matches(str(value), choices, n=1)
    if close:
        message += f"; did you mean {close[0]!r}?"
    elif any((typing.get_origin(arm) or arm) in (list, tuple) for arm in union_arms(hint)):
        message += f"; write it in brackets: {key}=[a,b]"
    elif str in union_arms(hint) and isinstance(value, int | float):
        message += "; put it in quotes"
    return InvalidValue(key, message)


def wanted_text(hint: Any) -> str:
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if len(union_arms(hint)) > 1:
        names = [wanted_text(arm) for arm in union_arms(hint) if arm is not type(None)]
        return " or ".join(names + ["null"] * (type(None) in union_arms(hint)))
    if hint in _PLAIN_NAMES:
        return _PLAIN_NAMES[hint]
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"[{', '.join(map(wanted_text, args))}]"
    if origin in (list, tuple, Sequence):
        return f"a list of {wanted_text(args[0])}" if args else "a list"
    if mapping_values(hint) is not None:
        return f"a mapping to {wanted_text(mapping_values(hint))}"
    if dataclass_of(hint) is not None:
        return f"keys {', '.join(fields_of(origin))}"
    return str(getattr(hint, "__name__", hint))


def range_text(metadata: Mapping[str, Any]) -> str:
    texts = [f"{_BOUNDS[name][0]} {metadata[name]}" for name in _BOUNDS if name in metadata]
    return " and ".join(texts)
