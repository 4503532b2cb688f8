"""Row and cell states of a frozen row encoder, computed once per table and kept on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rfm.data.batch import make_buckets
from rfm.data.cached import EncodedRows
from rfm.data.serialise import TokenIds, TokenRows, serialise
from rfm.data.store import RowStore
from rfm.files import alone, content_hash, publish
from rfm.nn.cell_attention import Cells, content_cells
from rfm.nn.modes import evaluating
from rfm.nn.row_encoder import RowEncoder

_log = logging.getLogger("rfm")
_FORMAT = 2
_ROWS = 2_048
_BUCKET_ROWS = 64


@dataclass(frozen=True)
class RowStateCache:
    """States of rows and their cells: one memory-mapped file per table, [rows, 1 + columns, width]
    float16, first the row's, then its cells' (not a number where there is none).

    starts: the first global row of each table, per database. files: per database, by table.
    """

    starts: tuple[tuple[int, ...], ...]
    files: tuple[Mapping[int, Path], ...]
    columns: tuple[tuple[int, ...], ...]
    width: int

    def __call__(self, source: int, rows: npt.NDArray[np.int64]) -> EncodedRows:
        table = self._table(source, rows)

        def states() -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]]:
            for t in np.unique(table):
                here = np.flatnonzero(table == t)
                file = np.memmap(self.files[source][int(t)], dtype="<f2", mode="r")
                shape = (-1, 1 + self.columns[source][t], self.width)
                yield here, file.reshape(shape)[rows[here] - self.starts[source][t]]

        return EncodedRows.of_tables(rows.size, self.width, states())

    def has(self, source: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return np.isin(self._table(source, rows), list(self.files[source]))

    def _table(self, source: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.asarray(np.searchsorted(self.starts[source], rows, side="right") - 1)


def cache_rows(
    encoder: RowEncoder,
    stores: Sequence[RowStore],
    ids: TokenIds,
    cache: Path,
    max_tokens: int,
    but: Collection[str] = (),
) -> RowStateCache:
    """The states of all rows by an encoder that stays as it is.

    Files are named by the encoder's weights and the table's content, and built where missing.

    Args:
        but: names of tables that are left out.
    """
    weights = weights_hash(encoder)
    layers = sorted({type(layer).__name__ for layer in encoder.bart.encoder.modules()})  # precision
    files: list[dict[int, Path]] = []
    for store in stores:
        wanted = {t: table for t, table in enumerate(store.tables) if table.name not in but}
        files.append({})
        for t, table in wanted.items():
            key = content_hash([_FORMAT, weights, layers, table.key, max_tokens])
            path = files[-1][t] = cache / "row_states" / f"{store.name}-{table.name}-{key}.f2"
            with alone(path):
                if not path.is_file():
                    name, size = f"{store.name}/{table.name}", table.num_rows
                    _log.info("%s: encoding %d rows, once for this encoder", name, size)
                    with publish(path) as temporary:
                        _write_states(encoder, store, t, ids, max_tokens, temporary)
    starts = tuple(tuple(np.asarray(s.graph.table_start[:-1]).tolist()) for s in stores)
    columns = tuple(tuple(len(table.columns) for table in s.tables) for s in stores)
    return RowStateCache(starts, tuple(files), columns, encoder.width)


def weights_hash(encoder: RowEncoder) -> str:
    """Of the parameters that row states depend on."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in encoder.state_dict().items():
        if not name.startswith("bart.decoder."):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _write_states(
    encoder: RowEncoder, store: RowStore, table: int, ids: TokenIds, max_tokens: int, path: Path
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    home = next(encoder.parameters()).device
    first, end = (int(x) for x in store.graph.table_start[table : table + 2])
    with path.open("wb") as file, evaluating(encoder.to(device)):
        for start in range(first, end, _ROWS):
            rows = np.arange(start, min(start + _ROWS, end))
            visible = np.zeros((rows.size, 0), dtype=np.uint8)
            tokens = serialise(store, rows, visible, ids, max_tokens, 0)
            columns = len(store.tables[table].columns)
            file.write(encode_rows(encoder, tokens, columns, device).tobytes())
    encoder.to(home)


def encode_rows(
    encoder: RowEncoder, tokens: TokenRows, columns: int, device: torch.device
) -> npt.NDArray[np.float16]:
    """[n, 1 + columns, width] of rows [n] of one table: first the row's state, then its cells' (not
    a number where there is none)."""
    buckets, place = make_buckets(tokens, 0, _BUCKET_ROWS)
    original = np.argsort(place)
    out = np.full((place.size, 1 + columns, encoder.width), np.nan, dtype=np.float16)
    start = 0
    for bucket in buckets:
        token, row, name = encoder(bucket.to(device))
        mine = original[start : start + row.shape[0]]
        start += row.shape[0]
        out[mine, 0] = row.half().cpu().numpy()
        cells = Cells.of(bucket.to(device), token, name, 0)
        position = content_cells(bucket)[2].numpy() % bucket.token.shape[1]
        at = mine[cells.row.cpu().numpy()]
        out[at, 1 + tokens.column[at, position]] = cells.state.half().cpu().numpy()
    return out
