"""What a column is (`Kind`) and what its name says (`words`).

Kinds are inferred from the arrow type and a sample of training-period values, never from later
rows. What they mean to a cell: `number`, `boolean` and `datetime` travel as values, `category` and
`text` as tokens, `key` as an edge.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
import yaml

Kind: TypeAlias = Literal["number", "boolean", "datetime", "category", "text", "key"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Overrides: TypeAlias = Mapping[str, Mapping[str, Kind]]

MAX_CATEGORIES = 1000
MAX_CATEGORY_CHARS = 40  # mean length
ISO_SHARE = 0.99

_ISO = (
    r"^\s*\d{4}-\d{2}-\d{2}"
    r"([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?\s?(Z|[+-]\d{2}(:?\d{2})?)?)?\s*$"
)
_BOOLEAN_WORDS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"}, {"0", "1"})


def infer_kind(values: pa.ChunkedArray, column: str) -> Kind:
    """The kind of a column that is no key, from training-period values [n] and their arrow type.

    - bool; numbers or texts that are 0/1, texts that are yes/no, t/f, y/n (both of them, because
      one alone could be anything) or true/false: `boolean`
    - other integers, floats, decimals: `number`; timestamps and dates: `datetime`
    - texts of which `ISO_SHARE` are ISO dates or timestamps: `datetime`
    - texts that are short and come back (a value stands for two rows or more on average; at most
      50 of them, or 2 sqrt(n) in a larger table, or 1000): `category`, others: `text`
    - lists, structs and maps (as JSON), times of day, durations, and columns without any
      value: `text`, because a text may hold whatever comes later.

    Raises:
        ValueError: for binary and other types that have no text. Names `column`.
    """
    values = decoded(values)
    kind = values.type
    _check_readable(kind, column)
    if pat.is_boolean(kind):
        return "boolean"
    if pat.is_integer(kind) or pat.is_floating(kind) or pat.is_decimal(kind):
        return "boolean" if _is_zero_one(values) else "number"
    if pat.is_timestamp(kind) or pat.is_date(kind):
        return "datetime"
    if not is_text(kind):
        return "text"
    return _infer_text_kind(pc.drop_null(values))


def to_seconds(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Timestamps, dates or ISO strings [n] as unix seconds [n], rounded down; NaT for null.

    Time zones are converted to UTC; a text that is no ISO date or timestamp becomes NaT too. NaT
    as an integer is the smallest int64.
    """
    values = decoded(values)
    if is_text(values.type):
        texts = values.to_pandas()
        parsed = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
        array = parsed.dt.tz_localize(None).to_numpy()
    elif pat.is_date(values.type):
        array = values.cast(pa.timestamp("s")).to_numpy(zero_copy_only=False)
    elif pat.is_null(values.type):
        array = np.full(len(values), "NaT", dtype="datetime64[s]")
    else:
        assert pat.is_timestamp(values.type), values.type
        array = values.cast(pa.timestamp(values.type.unit)).to_numpy(zero_copy_only=False)
    return np.asarray(array).astype("datetime64[s]").astype("int64")


def shown_time(seconds: int) -> str:
    """Unix seconds as people read them, in UTC; midnight is left out."""
    if seconds == np.iinfo(np.int64).min:  # of a row without a time
        return "the beginning"
    return str(pd.Timestamp(seconds, unit="s")).removesuffix(" 00:00:00")


def is_text(kind: pa.DataType) -> bool:
    """Whether an arrow type holds text."""
    return bool(pat.is_string(kind) or pat.is_large_string(kind) or pat.is_string_view(kind))


def words(name: str) -> str:
    """An identifier in lower-case words: `driverStandingsId` -> `driver standings id`.

    Splits at punctuation, case changes and digits (`HTTPServer2` -> `http server 2`), in any
    script, and keeps ordinals (`w_1stIn` -> `w 1st in`). Never empty: without a letter or digit it
    is the name itself.
    """
    name = unicodedata.normalize("NFC", name)
    shape = "".join(_shape(c) for c in name)
    parts = [name[m.start() : m.end()] for m in re.finditer(r"U+(?![lm])|U?[lm]+|d+", shape)]
    joined = " ".join(parts).lower()
    return re.sub(r"\b(\d+) (st|nd|rd|th)\b", r"\1\2", joined) or name


def read_kinds(path: Path | None) -> Mapping[str, Overrides]:
    """Overrides of several databases: a YAML file of database -> table -> column -> kind.

    Raises:
        ValueError: if it cannot be read as that.
    """
    if path is None:
        return {}
    wanted = f"data.kinds={path}: wanted a YAML file of database -> table -> column -> kind"
    try:
        content = yaml.safe_load(path.read_text()) if path.is_file() else None
    except (yaml.YAMLError, UnicodeError) as error:
        raise ValueError(f"{wanted}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(wanted)
    return content


def read_overrides(kinds: Path | str | Mapping[str, Any] | None) -> Overrides:
    """Kinds given by the user, `{table: {column: kind}}`, as a mapping or in a YAML file.

    Raises:
        ValueError: an unreadable file, another shape, an unknown kind. Table and column names are
            checked by the database.
    """
    if kinds is None:
        return {}
    where = "kinds"
    if isinstance(kinds, str | Path):
        where = str(kinds)
        try:
            kinds = yaml.safe_load(Path(kinds).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeError, yaml.YAMLError) as error:
            raise ValueError(f"cannot read the kinds in {where!r}: {error}") from None
    if not isinstance(kinds, Mapping) or not all(isinstance(v, Mapping) for v in kinds.values()):
        raise ValueError(f"{where}: wanted {{table: {{column: kind}}}}, got {kinds!r}")
    for table, columns in kinds.items():
        for column, kind in columns.items():
            if kind not in KINDS[:-1]:
                hint = suggest(str(kind), KINDS[:-1])
                raise ValueError(f"{where}: {table}.{column}: unknown kind {kind!r}; {hint}")
    return kinds


def check_kind(values: pa.ChunkedArray, kind: Kind, column: str) -> None:
    """Whether training-period values [n] can be read as the kind that a user asks for.

    Raises:
        ValueError: with an example of a value that cannot.
    """
    values = decoded(values)
    _check_readable(values.type, column)
    if kind in ("category", "text") or pat.is_null(values.type):
        return
    if is_text(values.type):
        texts = pc.unique(pc.drop_null(values)).to_pylist()
        if kind == "datetime":
            times = to_seconds(pa.array(texts, pa.string()))
            bad = [t for t, s in zip(texts, times, strict=True) if s == np.iinfo(np.int64).min]
        else:
            fits = _is_number if kind == "number" else _is_boolean_word
            bad = [t for t in texts if not fits(t)]
    elif kind == "datetime":
        bad = (
            [] if pat.is_timestamp(values.type) or pat.is_date(values.type) else [str(values.type)]
        )
    elif pat.is_boolean(values.type):
        bad = []
    elif pat.is_integer(values.type) or pat.is_floating(values.type) or pat.is_decimal(values.type):
        distinct = pc.unique(pc.drop_null(values)).to_pylist() if kind == "boolean" else []
        bad = [v for v in distinct if v not in (0, 1)]
    else:
        bad = [str(values.type)]
    if bad:
        raise ValueError(
            f"{column}: cannot be of kind {kind!r}, it holds {bad[0]!r}; leave the kind out to "
            "have it inferred, or convert the column"
        )


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? there are: ...` for a name that is not among the known."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return (f"did you mean {close[0]!r}? " if close else "") + f"there are: {', '.join(known)}"


def decoded(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Undo dictionary encoding; text views become plain text."""
    if pat.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.cast(pa.large_string()) if pat.is_string_view(values.type) else values


def _check_readable(kind: pa.DataType, column: str) -> None:
    is_binary = pat.is_binary(kind) or pat.is_large_binary(kind) or pat.is_fixed_size_binary(kind)
    if is_binary or pat.is_binary_view(kind) or pat.is_interval(kind):
        raise ValueError(
            f"{column}: columns of type {kind} cannot be read; drop it, or convert it to text or "
            "numbers"
        )


def _is_zero_one(values: pa.ChunkedArray) -> bool:
    distinct = pc.unique(pc.drop_null(values[:1000]))
    if len(distinct) > 4 or not {v for v in distinct.to_pylist() if v == v} <= {0, 1}:
        return False
    return {v for v in pc.unique(pc.drop_null(values)).to_pylist() if v == v} == {0, 1}


def _infer_text_kind(values: pa.ChunkedArray) -> Kind:
    n = len(values)
    if n == 0:
        return "text"
    distinct = pc.unique(values)
    if len(distinct) <= 2:
        lowered = {v.strip().lower() for v in distinct.to_pylist()}
        if lowered in _BOOLEAN_WORDS or lowered <= {"true", "false"}:
            return "boolean"
    iso = pc.sum(pc.match_substring_regex(values, _ISO)).as_py()
    if iso >= ISO_SHARE * n:
        parsed = to_seconds(values)
        if np.count_nonzero(parsed != np.iinfo(np.int64).min) >= ISO_SHARE * n:
            return "datetime"
    most = min(n / 2, max(50.0, 2 * n**0.5), MAX_CATEGORIES)
    if len(distinct) <= most and pc.mean(pc.utf8_length(values)).as_py() <= MAX_CATEGORY_CHARS:
        return "category"
    return "text"


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def _is_boolean_word(text: str) -> bool:
    return any(text.strip().lower() in pair for pair in _BOOLEAN_WORDS)


def _shape(c: str) -> str:
    if c.isdigit():
        return "d"
    if unicodedata.category(c).startswith("M"):
        return "m"
    if not c.isalpha():
        return "-"
    return "U" if c.isupper() or c.istitle() else "l"
