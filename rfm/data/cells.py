"""Arrow columns as the floats and texts that cells are made of."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rfm.data.graph import STATIC
from rfm.data.schema import Kind, decoded, is_text, to_seconds

_SECONDS_PER_DAY = 86_400.0
_TRUE = pa.array(["true", "yes", "t", "y", "1", "1.0"])
_FALSE = pa.array(["false", "no", "f", "n", "0", "0.0"])


def as_floats(array: pa.Array, kind: Kind) -> npt.NDArray[np.float64]:
    """Value cells [n] as float64, NaN for null: numbers, 0/1 for booleans, days since 1970."""
    array = decoded(array)
    if pa.types.is_null(array.type):
        return np.full(len(array), np.nan)
    if kind == "datetime":
        seconds = to_seconds(array)
        return np.where(seconds == STATIC, np.nan, seconds / _SECONDS_PER_DAY)
    if is_text(array.type):
        return _spelled_floats(array, kind)
    values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    values = np.asarray(values, dtype=np.float64)
    if kind == "boolean":
        return np.where(np.isnan(values), np.nan, (values != 0).astype(np.float64))
    return values


def _spelled_floats(array: pa.Array, kind: Kind) -> npt.NDArray[np.float64]:
    """Numbers or truth values written as text; NaN for what is neither."""
    if kind == "boolean":
        word = pc.utf8_lower(pc.utf8_trim_whitespace(array.cast(pa.string())))
        false = pc.if_else(pc.is_in(word, value_set=_FALSE), pa.scalar(0.0), None)
        values = pc.if_else(pc.is_in(word, value_set=_TRUE), pa.scalar(1.0), false)
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    return np.asarray(pd.to_numeric(array.to_pandas(), errors="coerce"), dtype=np.float64)


def as_texts(array: pa.Array, kind: Kind) -> pa.Array:
    """Cells [n] spelled out as strings; null stays null.

    Numbers come with at most six significant digits, datetimes at midnight without time of day.
    """
    array = decoded(array)
    if is_text(array.type):
        return array.cast(pa.string())
    if pa.types.is_nested(array.type):
        spelled = [None if v is None else json.dumps(v, default=str) for v in array.to_pylist()]
        return pa.array(spelled, pa.string())
    if pa.types.is_floating(array.type):
        values = array.to_numpy(zero_copy_only=False)
        return pa.array([None if np.isnan(v) else f"{v:.6g}" for v in values], pa.string())
    texts = array.cast(pa.string())
    if kind == "datetime":
        texts = pc.replace_substring_regex(texts, r"([ T]00:00:00)?(\.0+)?Z?$", "")
    return texts
