"""The vocabulary: BART's own where its files are given, else a byte-level BPE trained here.

Both speak the same special tokens (BART's, plus ``<value>``, the place of a number, boolean or
datetime whose content arrives through the value channel instead of as digits).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from rfm.data.cells import as_texts
from rfm.data.database import Database
from rfm.data.schema import words
from rfm.files import alone, content_hash, publish

BOS, PAD, EOS, UNK, MASK, VALUE = "<s>", "<pad>", "</s>", "<unk>", "<mask>", "<value>"
SPECIAL = (BOS, PAD, EOS, UNK, MASK, VALUE)
FILE = "tokenizer.json"
_TEXTS_PER_COLUMN = 20_000
_CHARS_PER_TEXT = 512
_NAME_REPEATS = 50


@dataclass(frozen=True)
class Tokenizer:
    """A fixed map from text to token ids; ``fingerprint`` names it."""

    backend: tokenizers.Tokenizer

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read ``tokenizer.json``, or BART's ``vocab.json`` + ``merges.txt``, of a local folder.

        Raises:
            ValueError: if the folder holds neither, if it cannot be read, or if the vocabulary
                lacks BART's special tokens.
        """
        files = (folder / "vocab.json", folder / "merges.txt")
        if not (folder / FILE).is_file() and not all(file.is_file() for file in files):
            raise ValueError(
                f"{folder} holds no tokenizer: wanted {FILE}, or vocab.json and merges.txt"
            )
        try:
            if (folder / FILE).is_file():
                backend = tokenizers.Tokenizer.from_file(str(folder / FILE))
            else:
                backend = _byte_level(models.BPE.from_file(*map(str, files)))
        except Exception as error:  # the library has no exception of its own
            path = folder / FILE if (folder / FILE).is_file() else f"{files[0]} or {files[1]}"
            raise ValueError(
                f"{path} cannot be read ({error}): get it again; in a cache, delete its folder, "
                "and it is built again"
            ) from error
        return cls._complete(backend, f"the tokenizer in {folder}")

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """What ``tokenizer.json`` holds, such as a model's."""
        return cls._complete(tokenizers.Tokenizer.from_str(text), "the model's tokenizer")

    @classmethod
    def _complete(cls, backend: tokenizers.Tokenizer, what: str) -> Tokenizer:
        missing = [t for t in (BOS, PAD, EOS, UNK, MASK) if backend.token_to_id(t) is None]
        if missing:
            raise ValueError(f"{what} lacks {missing}: wanted BART's special tokens")
        backend.encode_special_tokens = True  # a cell that spells "<mask>" is text, not a mask
        backend.no_padding()
        backend.no_truncation()
        if backend.token_to_id(VALUE) is None:
            backend.add_special_tokens([AddedToken(VALUE, normalized=False)])
        return cls(backend)

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.blake2b(self.backend.to_str().encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def id(self, token: str) -> int:
        """Id of a special token."""
        number = self.backend.token_to_id(token)
        assert number is not None, token
        return int(number)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, as it stands inside a row: after a space, specials never read."""
        spaced = [" " + text for text in texts]
        encodings = self.backend.encode_batch_fast(spaced, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.backend.decode(list(ids), skip_special_tokens=True)).strip()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with publish(folder / FILE) as temporary:
            temporary.write_text(self.backend.to_str())


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def normalise_texts(texts: pa.Array, max_chars: int) -> list[str | None]:
    """Cell texts cut to ``max_chars`` and with each run of white space made one space.

    The cut comes first, so that a megabyte in one cell costs no more than its beginning.
    """
    cut = pc.utf8_slice_codeunits(texts, 0, max_chars)
    return [None if t is None else " ".join(t.split()) for t in cut.to_pylist()]


def training_texts(database: Database) -> Iterator[str]:
    """Distinct training-period texts of a database, bounded per column, and its names in words."""
    for table in database.tables.values():
        kinds = database.kinds[table.name]
        columns = [c for c in table.columns if kinds[c] in ("category", "text")]
        cells = [c for c in table.columns if kinds[c] != "key"]
        for name in [table.name, *cells]:
            yield from [" " + words(name)] * _NAME_REPEATS
        if not columns:
            continue
        visible = database.times(table.name) <= database.val_timestamp
        seen: dict[str, set[str]] = {column: set() for column in columns}
        start = 0
        for batch in database.batches(table.name, columns):
            mask = pa.array(visible[start : start + batch.num_rows])
            start += batch.num_rows
            for column in columns:
                distinct = as_texts(batch.column(column).filter(mask), kinds[column]).unique()
                room = _TEXTS_PER_COLUMN - len(seen[column])
                fresh = normalise_texts(distinct.slice(0, max(room, 0)), _CHARS_PER_TEXT)
                seen[column].update(text for text in fresh if text)
        for column in columns:
            yield from (" " + text for text in sorted(seen[column]))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of at most ``vocab_size`` tokens; equal texts give an equal vocabulary."""
    backend = _byte_level(models.BPE(unk_token=UNK))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.encode_special_tokens = True
    return Tokenizer(backend)


def mixture_tokenizer(databases: Sequence[Database], vocab_size: int, cache: Path) -> Tokenizer:
    """The tokenizer trained on a list of databases, kept under ``cache`` by their content."""
    if not 300 <= vocab_size <= 65_536:
        raise ValueError(f"vocab_size={vocab_size}: wanted 300 to 65536")
    description = {
        "vocab_size": vocab_size,
        "bounds": [_TEXTS_PER_COLUMN, _CHARS_PER_TEXT, _NAME_REPEATS],
        "tokenizers": tokenizers.__version__,
        "databases": sorted(
            json.dumps([d.val_timestamp, {t: d.fingerprint(t) for t in d.tables}, d.kinds])
            for d in databases
        ),
    }
    folder = cache / "tokenizers" / content_hash(description)
    with alone(folder):
        if not (folder / FILE).is_file():
            ordered = sorted(databases, key=lambda d: d.name)
            corpus = (text for database in ordered for text in training_texts(database))
            train_tokenizer(corpus, vocab_size).save(folder)
    return Tokenizer.from_folder(folder)


def resolve_tokenizer(
    source: str, databases: Sequence[Database], vocab_size: int, cache: Path
) -> Tokenizer:
    """``source`` is ``"train"``, a local folder, or a Hub id whose files are in the local cache."""
    if source == "train":
        return mixture_tokenizer(databases, vocab_size, cache)
    if Path(source).is_dir():
        return Tokenizer.from_folder(Path(source))
    return Tokenizer.from_folder(hub_folder(source, ["tokenizer.json", "vocab.json", "merges.txt"]))


def hub_folder(repo: str, patterns: Sequence[str]) -> Path:
    """Local snapshot of a Hub model: from the cache, else downloaded unless offline.

    Raises:
        ValueError: if it is neither in the cache nor to be had.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(patterns), local_files_only=True))
    except Exception as offline:
        if os.environ.get("HF_HUB_OFFLINE") == "1":
            raise ValueError(
                f"'{repo}' is neither a local folder nor in the Hugging Face cache, and "
                "HF_HUB_OFFLINE=1 forbids a download: give a folder, or unset HF_HUB_OFFLINE"
            ) from offline
    try:
        return Path(snapshot_download(repo, allow_patterns=list(patterns)))
    except Exception as error:
        raise ValueError(
            f"'{repo}' is neither a local folder nor to be had from the Hub: {error}"
        ) from error


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype(np.uint16 if vocab_size <= 65_536 else np.uint32)
