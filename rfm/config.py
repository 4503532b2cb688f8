"""One grammar for every command: dataclass defaults < YAML file < command line.

    python -m <package> [config=<yaml>] [key=value ...] [--help] [--print-config]

A config is a (nested, frozen) dataclass that stands next to the code it configures. Its fields
are `bool`, `int`, `float`, `str`, `Path`, `Literal`, `X | None`, `list`, `tuple`, `dict` and other
dataclasses; `setting` adds a help line and a range to a field, `__post_init__` may raise
`ValueError` for what a range cannot say. A mapping field that is given whole replaces its default;
a dotted key (`weights.rel-f1=2`) sets one entry of it. There is no interpolation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import re
import sys
import textwrap
import traceback
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rfm.config_types import (
    InvalidValue,
    build,
    dataclass_of,
    default_of,
    fields_of,
    hint_at,
    mapping_values,
    put_value,
    range_text,
    union_arms,
    wanted_text,
)
from rfm.files import publish
from rfm.secrets import without_secrets

C = TypeVar("C")
_WIDTH = 80  # of help
_REQUIRED = "(required)"
_FOLDERS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


def setting(
    default: Any = dataclasses.MISSING,
    *,
    factory: Callable[[], Any] | None = None,
    help: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A dataclass field with a help line and a range, both shown by `--help`.

    The range holds for the number, or for every number of a list, tuple or mapping; NaN never
    lies within a range. Without `default` and `factory` the key is required.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {"help": help, **{name: b for name, b in bounds.items() if b is not None}}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def load_config(
    cls: type[C], argv: Sequence[str], *, prog: str, doc: str | None, first: str = ""
) -> C:
    """The config that a command line asks for.

    Args:
        cls: a dataclass; see the module text for the field types.
        argv: the words after the command, e.g. `sys.argv[1:]`.
        prog: the command as typed, e.g. `"python -m pretrain"`, for messages and `--help`.
        doc: what the command does, for `--help`.
        first: the key that a word without one belongs to, for `--help`.

    Raises:
        ValueError: an unknown key, a value of the wrong type or out of range, an unreadable YAML
            file, a word that is not `key=value`, a key given twice. Names the key and the fix.
        SystemExit: code 0 after `--help` or `--print-config` wrote to standard output.
    """
    flags, words = _split_words(argv, prog)
    if "--help" in flags:
        print(_help_text(cls, f"{prog} <{first}>" if first else prog, doc))
        raise SystemExit(0)
    values: dict[str, Any] = {}
    source: dict[str, str] = {}
    try:
        if "config" in words:
            path = Path(words.pop("config"))
            for name, value in _read_yaml(path).items():
                put_value(values, cls, [name], value)
                source[name] = str(path)
        for key, text in words.items():
            source[key] = "the command line"
            parts = key.split(".")
            put_value(values, cls, parts, _parse_text(text, hint_at(cls, parts), key))
        config = build(cls, values, "", None)
    except InvalidValue as error:
        raise ValueError(_located(error, source, prog)) from error
    if "--print-config" in flags:
        print(config_yaml(config), end="")
        raise SystemExit(0)
    return config


def config_yaml(config: Any) -> str:
    """The config as YAML; `load_config` reads it back to an equal config, but for the secrets of
    URLs, which are not in it."""
    return OmegaConf.to_yaml(OmegaConf.create(_shown(_plain(config))))


def save_config(config: Any, path: Path) -> None:
    """Write `config_yaml` to `path` in one step, so that no reader ever sees half a file."""
    with publish(path) as unfinished:
        unfinished.write_text(config_yaml(config), encoding="utf-8")


def run_command(
    cls: type[C],
    main: Callable[[C], Mapping[str, Any]],
    *,
    prog: str,
    doc: str | None,
    argv: Sequence[str] | None = None,
    first: str = "",
) -> None:
    """Run `main` as a command: config in, one JSON object as the last line of standard output.

    While `main` runs, what it prints goes to standard error. A `ValueError`, or a file or folder
    that may not be there or not be touched, becomes `error: ...`
    on standard error and exit code 2; `RFM_TRACEBACK=1` shows the traceback instead. Numbers that
    are not finite become null. In a distributed run only rank 0 prints the object.
    """
    try:
        words = sys.argv[1:] if argv is None else argv
        config = load_config(cls, words, prog=prog, doc=doc, first=first)
        with contextlib.redirect_stdout(sys.stderr):
            result = main(config)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _FOLDERS:
            raise
        if os.environ.get("RFM_TRACEBACK") == "1":
            print(without_secrets(traceback.format_exc()), file=sys.stderr)
        else:
            failed = without_secrets(_what_failed(error))
            print(f"error: {failed}\n(RFM_TRACEBACK=1 shows where)", file=sys.stderr)
        raise SystemExit(2) from None
    if is_first_process():
        sys.stderr.flush()
        print(json.dumps(_plain(result, finite=True), ensure_ascii=False), flush=True)


def _what_failed(error: ValueError | OSError) -> str:
    if isinstance(error, OSError):
        return (
            f"{error.filename}: {error.strerror}; choose another folder (run_dir=, data.cache= or "
            "out=), or make this one readable and writable"
        )
    return str(error)


def is_first_process() -> bool:
    """Whether this is rank 0, as torchrun, SLURM or Lightning's own launcher say; alone, it is."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name):
            return os.environ[name] == "0"
    return True


# Reading: words, YAML, text of one value.


def _split_words(argv: Sequence[str], prog: str) -> tuple[set[str], dict[str, str]]:
    flags: set[str] = set()
    words: dict[str, str] = {}
    for word in argv:
        key, equals, text = word.partition("=")
        if word in ("--help", "-h"):
            flags.add("--help")
        elif word == "--print-config":
            flags.add(word)
        elif word.startswith("-"):
            hint = f"; write {key.lstrip('-')}={text or '<value>'}" if key.lstrip("-") else ""
            raise ValueError(f"{prog}: unknown flag {word!r}{hint}; see --help")
        elif not equals or not key:
            hint = f"config={word}" if word.endswith((".yaml", ".yml")) else "key=value"
            raise ValueError(f"{prog}: {word!r} is not {hint}; see --help")
        elif any(key == k or key.startswith(k + ".") or k.startswith(key + ".") for k in words):
            clash = next(k for k in words if key.startswith(k) or k.startswith(key))
            raise ValueError(f"{prog}: {word!r} sets {clash!r} a second time; give each key once")
        else:
            words[key] = text
    return flags, words


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = sorted(
            str(p) for p in [*path.parent.glob("*.yaml"), *Path("configs").rglob("*.yaml")]
        )
        found = f"; there are {', '.join(dict.fromkeys(near))}" if near else ""
        raise InvalidValue("config", f"no file {str(path)!r}{found}")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, UnicodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise InvalidValue("config", f"cannot read {str(path)!r} as YAML: {error}") from None
    if not isinstance(content, dict):
        raise InvalidValue("config", f"{str(path)!r} must hold `key: value` lines, not a list")
    return {str(name): value for name, value in content.items()}


def _parse_text(text: str, hint: Any, key: str) -> Any:
    """A value as typed: text stays as it is where text is wanted, else it is read as YAML."""
    arms = union_arms(hint)
    choices = [c for arm in arms if typing.get_origin(arm) is Literal for c in typing.get_args(arm)]
    for choice in choices:
        if str(choice) == text:
            return choice
    if type(None) in arms and text in ("null", "~", ""):
        return None
    wants_text = any(arm in (str, Path) for arm in arms) or any(isinstance(c, str) for c in choices)
    if wants_text and len([arm for arm in arms if arm is not type(None)]) == 1:
        return text
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"v={text}"]), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException):
        if wants_text:
            return text
        raise InvalidValue(key, f"cannot read {text!r}; wanted {wanted_text(hint)}") from None
    assert isinstance(value, dict)
    parsed = value["v"]
    fits = any(type(parsed) is (typing.get_origin(arm) or arm) for arm in arms)
    return text if wants_text and not fits else parsed


# Words for people.


def _located(error: InvalidValue, source: Mapping[str, str], prog: str) -> str:
    key = error.key
    name = key.replace("[", ".[")
    where = [s for s in source if name == s or name.startswith(s + ".") or s.startswith(name + ".")]
    origin = f" (set by {source[max(where, key=len)]})" if where else ""
    return f"{prog}: {key + ': ' if key else ''}{error}{origin}"


def _help_text(cls: type[Any], usage: str, doc: str | None) -> str:
    rows = sorted(_help_rows(cls, "", None), key=lambda row: not row[1].endswith(_REQUIRED))
    wide = min(max((len(key) for key, _, _ in rows), default=0), 34)
    usage = f"usage: {usage} [config=<yaml>] [key=value ...] [--help] [--print-config]"
    lines = [textwrap.fill(usage, _WIDTH, subsequent_indent=" " * 7), ""]
    for paragraph in doc.strip().split("\n\n") if doc else ():
        is_prose = re.match("[A-Z`]", paragraph)  # not commands, which break lines as they must
        lines += [_wrapped(" ".join(paragraph.split()), 0) if is_prose else paragraph, ""]
    lines += ["Keys, as `key=value` or in the YAML file:"]
    for key, kind, text in rows:
        lines.append(f"  {key:<{wide}}  {kind}")
        if text:
            lines.append(_wrapped(text, wide + 6))
    return "\n".join(lines)


def _wrapped(text: str, indent: int) -> str:
    space = " " * indent
    return textwrap.fill(
        text, _WIDTH, initial_indent=space, subsequent_indent=space, break_on_hyphens=False
    )


def _help_rows(cls: type[Any], at: str, default: Any) -> Iterable[tuple[str, str, str]]:
    """Per key: the dotted key, `type = default`, and the help line with the range."""
    for name, (field, hint) in fields_of(cls).items():
        current = default_of(field) if default is None else getattr(default, name)
        inner = dataclass_of(hint)
        if inner is not None and current is not None:
            is_instance = isinstance(current, inner)
            yield from _help_rows(inner, f"{at}{name}.", current if is_instance else None)
            continue
        shown = _REQUIRED
        if current is not dataclasses.MISSING:
            shown = "= " + json.dumps(_plain(current), ensure_ascii=False)
        limits = range_text(field.metadata)
        text = str(field.metadata.get("help", "")) + (f"  [{limits}]" if limits else "")
        yield f"{at}{name}", f"{wanted_text(hint)} {shown}", text.strip()
        item = dataclass_of(mapping_values(hint)) or next(
            filter(None, map(dataclass_of, typing.get_args(hint))), None
        )
        if item is not None:
            dots = "." if inner is not None else ".<name>." if mapping_values(hint) else "[]."
            yield from _help_rows(item, f"{at}{name}{dots}", None)


def _shown(value: Any) -> Any:
    """What `_plain` gave without the secrets of URLs."""
    if isinstance(value, dict):
        return {name: _shown(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_shown(v) for v in value]
    return without_secrets(value) if isinstance(value, str) and "://" in value else value


def _plain(value: Any, finite: bool = False) -> Any:
    """Dataclasses, tuples, paths and numpy scalars as dicts, lists and plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value) if f.init]
        return {name: _plain(getattr(value, name), finite) for name in names}
    if isinstance(value, Mapping):
        return {str(name): _plain(v, finite) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, finite) for v in value]
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, bool | int | float | str | None) and hasattr(value, "item"):
        value = value.item()
    if finite and isinstance(value, float) and not math.isfinite(value):
        return None
    return value
