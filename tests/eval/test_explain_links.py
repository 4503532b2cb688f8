"""Why a destination is recommended: what is said is so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rfm.data.batch import SEEN_FEATURES
from rfm.data.database import open_database
from rfm.data.query import compile_text
from rfm.eval.explain_links import _signals
from rfm.eval.posing import anchor_time, as_of, pose
from tests.answering import NEXT


@pytest.mark.parametrize("apart", [-0.5, 0.5])
@pytest.mark.parametrize("weight", [-2.0, 2.0])
def test_words_say_what_is_known_and_the_sign_what_it_does(
    task_shop: Path, apart: float, weight: float
) -> None:
    database = open_database(task_shop)
    at = anchor_time(compile_text(NEXT, database), database, "2020-10-01")
    task = pose(compile_text(NEXT, database), as_of(database, at), at).task
    off = np.zeros(len(SEEN_FEATURES) + 1)
    off[SEEN_FEATURES.index("share")] = apart
    (signal,) = _signals(task, 3, off, weight * off)
    more, verb = "more" if apart > 0 else "less", "raises" if weight * apart > 0 else "lowers"
    assert signal.words == (
        f"past outcomes of all rows of customers hold the first choice {more} often than others: "
        f"{verb} its score"
    )
    assert (signal.table, signal.column) == ("past outcomes", "outcome")
    assert signal.path == f"past outcomes.{task.target}"
    assert np.sign(signal.weight) == np.sign(weight * apart)
