"""What names of tables and columns say about keys.

Everything here works on the words of a name (`rfm.data.schema.words`), in the singular.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from rfm.data.schema import words

ID_WORDS = {
    "id",
    "key",
    "code",
    "no",
    "nr",
    "num",
    "number",
    "ref",
    "fk",
    "sk",
    "pk",
    "uuid",
    "guid",
}
STRONG_ID_WORDS = {"id", "key", "fk", "sk", "uuid", "guid"}
# what may follow the noun in a role: player_out_id, station_from_id
_PARTICLES = {"in", "out", "on", "off", "from", "to", "by", "via", "a", "b", "x", "y", "old", "new"}
_PARTICLES |= {"first", "second", "start", "end", "source", "target", "origin", "destination"}
_IRREGULAR = {"people": "person", "children": "child", "men": "man", "women": "woman"}
_IRREGULAR |= {"mice": "mouse", "series": "series", "species": "species", "news": "news"}
_IRREGULAR |= {"indices": "index", "matrices": "matrix", "movies": "movie", "cookies": "cookie"}
_NOISE = {"tbl", "tb", "t", "dim", "fact", "fct", "stg", "raw", "src", "table", "dataset", "data"}


def singular(word: str) -> str:
    """The singular of an English word, as far as its ending tells."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if re.search(r"(ss|sh|ch|x|z)es$", word):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


@lru_cache(maxsize=4096)  # names are compared with one another, again and again
def stem(name: str) -> tuple[str, ...]:
    """The words of a name in the singular."""
    return tuple(singular(word) for word in words(name).split())


def table_stems(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Per table its words, without those that say "table" and those that all tables begin or end
    with (the name of the application, mostly)."""
    stems = {name: stem(name) for name in names}
    if len(names) >= 3:
        for end in (0, -1):
            while True:
                found = {s[end] for s in stems.values()}
                if len(found) > 1 or any(len(s) < 2 for s in stems.values()):
                    break
                stems = {n: s[1:] if end == 0 else s[:-1] for n, s in stems.items()}
    return {name: _without_noise(s) for name, s in stems.items()}


def split_id(name: str, tables: Sequence[tuple[str, ...]] = ()) -> tuple[tuple[str, ...], str]:
    """A column's words without the word that says that it is a key, and that word (or nothing).

    `orderid`, written together, is taken apart where there is a table `orders`.
    """
    parts = stem(name)
    if len(parts) > 1 and parts[-1] in ID_WORDS:
        return parts[:-1], parts[-1]
    if len(parts) > 1 and parts[0] in ("id", "fk"):  # id_customer
        return parts[1:], "id"
    if parts[0] in ID_WORDS and len(parts) == 1:
        return (), parts[0]
    if len(parts) == 1:
        joined = {"".join(t) for t in tables}
        for ending in ("id", "key", "code", "no", "fk", "sk"):
            before = parts[0].removesuffix(ending)
            if before == parts[0]:
                continue
            short = len(before) >= 4 and any(abbreviates(before, table) for table in joined)
            if before in joined or singular(before) in joined or short:
                return (singular(before),), ending
    return parts, ""


def unmarked(columns: Sequence[str]) -> dict[str, str]:
    """Per column its name without a short prefix that all of them have: `l_orderkey` in a table
    of lines says `orderkey`, and `l` whose it is."""
    prefix = columns[0].partition("_")[0] + "_" if columns else ""
    marked = all(column.startswith(prefix) and column != prefix for column in columns)
    if len(columns) < 3 or not 2 <= len(prefix) <= 5 or not marked:
        return {column: column for column in columns}
    return {column: column.removeprefix(prefix) for column in columns}


def head(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The noun that a role is about: `player` of `player of match`, `team` of `team 1`."""
    if "of" in parts[1:]:
        parts = parts[: parts.index("of", 1)]
    while len(parts) > 1 and (parts[-1] in _PARTICLES or parts[-1].isdigit()):
        parts = parts[:-1]
    return parts


def ends_with(parts: tuple[str, ...], tail: tuple[str, ...]) -> bool:
    """Whether words end with others, written apart or together."""
    if not tail or not parts:
        return False
    if parts[-len(tail) :] == tail:
        return True
    joined = "".join(tail)
    return any("".join(parts[i:]) == joined for i in range(len(parts)))


def abbreviates(short: str, word: str) -> bool:
    """Whether a word is shortened to another: `cust` for customer, `dept` for department.

    Three letters at least, the same first one, all in order, and the beginning or the consonants
    of the word: fewer would fit almost anything.
    """
    if len(short) < 3 or len(short) >= len(word) or short[0] != word[0]:
        return False
    if word.startswith(short):
        return True
    letters = iter(word)
    return all(c in letters for c in short) and not set(short[1:]) & set("aeiou") - {word[1]}


def _without_noise(parts: tuple[str, ...]) -> tuple[str, ...]:
    kept = tuple(p for p in parts if p not in _NOISE)
    return kept or parts
