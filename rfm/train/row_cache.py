"""Row states of a frozen row encoder, computed once per database and kept on disk."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rfm.data.batch import make_buckets
from rfm.data.mixture import Mixture
from rfm.data.serialise import serialise
from rfm.files import alone, content_hash, publish
from rfm.nn.model import RelationalModel
from rfm.nn.modes import evaluating
from rfm.nn.row_encoder import RowEncoder

_log = logging.getLogger("rfm")
_ROWS = 2_048
_BUCKET_ROWS = 64


@dataclass(frozen=True)
class RowStateCache:
    """States of all rows of the mixture's databases, [N, width] float16 each, memory-mapped."""

    files: tuple[Path, ...]
    width: int

    def __call__(self, source: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """States [n, width] of global rows [n] of one database."""
        states = np.memmap(self.files[source], dtype="<f2", mode="r").reshape(-1, self.width)
        return states[rows].astype(np.float32)


def cache_rows(
    model: RelationalModel, mixture: Mixture, cache: Path, max_tokens: int
) -> RowStateCache | None:
    """The states of all rows if the row encoder is frozen, else nothing.

    Files are named by the encoder's weights and the database's content, and built where missing.
    """
    if not model.settings.row_encoder.frozen:
        return None
    encoder = model.backbone.row_encoder
    weights = weights_hash(encoder)
    layers = sorted({type(layer).__name__ for layer in encoder.bart.encoder.modules()})  # precision
    files = []
    for s, store in enumerate(mixture.stores):
        key = content_hash([weights, layers, store.fingerprint, max_tokens])
        path = cache / "row_states" / f"{store.name}-{key}.f2"
        with alone(path):
            if not path.is_file():
                _log.info("%s: caching the states of %d rows", store.name, store.num_rows)
                with publish(path) as temporary:
                    _write_states(encoder, mixture, s, max_tokens, temporary)
        files.append(path)
    return RowStateCache(tuple(files), encoder.width)


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
    encoder: RowEncoder, mixture: Mixture, source: int, max_tokens: int, path: Path
) -> None:
    store = mixture.stores[source]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    home = next(encoder.parameters()).device
    with path.open("wb") as file, evaluating(encoder.to(device)):
        for start in range(0, store.num_rows, _ROWS):
            rows = np.arange(start, min(start + _ROWS, store.num_rows))
            visible = np.zeros((rows.size, 0), dtype=np.uint8)
            tokens = serialise(store, rows, visible, mixture.ids, max_tokens, 0)
            buckets, place = make_buckets(tokens, 0, _BUCKET_ROWS)
            states = torch.cat([encoder(bucket.to(device))[1] for bucket in buckets])
            file.write(states[torch.from_numpy(place).to(device)].half().cpu().numpy().tobytes())
    encoder.to(home)
