"""The model as its users meet it: pretrained weights that answer queries about a database."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rfm.data.database import Database
from rfm.data.query import compile_text
from rfm.eval.ask import AskConfig, answer_frame, ask_query
from rfm.eval.backtest import Backtest, backtest
from rfm.eval.explained import explain_answers
from rfm.eval.posing import compiled_at
from rfm.nn import model as nn_model

if TYPE_CHECKING:
    from rfm.train.fit import FitConfig

_log = logging.getLogger("rfm")
_ASK = AskConfig()


class RelationalModel(nn_model.RelationalModel):
    """BART row encoder + GraphSAGE + heads: load it, and ask it about a database.

    ```python
    model = RelationalModel.from_pretrained("<folder>")
    database = open_database("postgresql://...")
    query = "PREDICT COUNT(orders.*, 0, 30, days) > 0 FOR EACH customers.id"
    frame = model.predict(database, query)
    print(model.evaluate(database, query).metrics)
    better = model.fit(database, query)
    ```

    Times are UTC. A query that cannot be read raises a ``QueryError`` (a ``ValueError``), which
    points at the character.
    """

    def predict(
        self,
        database: Database,
        query: str,
        *,
        at: str | pd.Timestamp | None = None,
        entities: Sequence[Any] | None = None,
        explain: bool = False,
        config: AskConfig = _ASK,
    ) -> pd.DataFrame:
        """Answers to a query in the predictive query language (``rfm.data.query``).

        Args:
            at: the anchor time: nothing later is seen. By default the latest time of what is
                predicted.
            entities: keys, as the database's owner knows them (tuples of composite keys), of those
                to be asked about; by default those that the query names, or all.
            explain: add ``top_signal``, in words, and ``explanation``, a dictionary, see
                ``rfm.eval.explain_signals``. It takes a tenth of a second or so for each answer.

        Returns:
            One row per entity, see ``rfm.eval.ask.answer_frame``.

        Raises:
            ValueError: for queries, times and entities that do not fit, and models that were never
                trained to answer.
        """
        answers = ask_query(self, database, query, at, entities, config)
        frame = answer_frame(answers)
        if explain:
            explained = explain_answers(answers, np.arange(len(frame)))
            frame["top_signal"] = [one["top_signal"] for one in explained]
            frame["explanation"] = pd.Series(explained)
        return frame

    def evaluate(
        self,
        database: Database,
        query: str,
        *,
        at: str | pd.Timestamp | None = None,
        anchors: int = 3,
        config: AskConfig = _ASK,
    ) -> Backtest:
        """How the query would have been answered at past anchor times, each time given no more than
        the database held by then.

        Args:
            at: labels that are known by then are compared with; see ``predict``.
            anchors: how many past anchor times, at most.
        """
        compiled, _, moment = compiled_at(query, database, at)
        return backtest(self, compiled, database, moment, anchors, config)

    def fit(
        self,
        database: Database,
        query: str,
        *,
        config: FitConfig | None = None,
        ask: AskConfig = _ASK,
    ) -> RelationalModel:
        """A copy that has learnt to answer a query, which this model then answers by a head of its
        own, from labels up to the database's test timestamp.
        """
        from rfm.train.fit import FitConfig, fit  # which takes Lightning, as nothing else here does

        compiled = compile_text(query, database)
        tuned, found = fit(self, compiled, database, ask.cache, config or FitConfig())
        _log.info("%s: validation %.4f, test %.4f", found.metric, found.validation, found.test)
        assert isinstance(tuned, RelationalModel)
        return tuned
