"""Why a destination is recommended: what is known of the pair, against the other destinations.

The score of a destination is linear in what is known of it and the entity, so that each number's
weight x (its value - the destinations' mean) is its share, without anything left over.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rfm.data.batch import SEEN_FEATURES
from rfm.data.task_rows import TaskSplit
from rfm.data.tasks import Regime, Task
from rfm.eval.explain_signals import OUTCOME, OUTCOMES, Explanation, Signal
from rfm.eval.zero_shot import ZeroShotRecommendation, in_context

_ALL = 512  # destinations that the best one is held against, and found among
_GROUPS = {
    "met": ("met_1", "met_3", "met"),
    "near": ("near", "near_lately"),
    "share": ("share_1", "share_3", "share"),
    "children": ("children_lately", "children"),
}
_TOWERS = "states"


def explain_links(
    asker: ZeroShotRecommendation,
    split: TaskSplit,
    regime: Regime,
    context: int,
    seed: int,
    at: Sequence[int],
) -> tuple[Explanation, ...]:
    """Of the best destination for each of the rows ``at`` of a split. An explanation's answer and
    baseline are scores: of that destination, and the mean of all, or of some drawn at random. What
    signals name is not checked by occlusion."""
    links, task = asker.links, asker.task
    weight = asker.weigh(split, regime, context, seed)
    questions = links.sampler.ask([split], regime)
    visible = {i: links.sampler.visible(int(questions.cutoff[i])) for i in at}
    best: dict[int, int] = {}
    if any(own.size > _ALL for own in visible.values()):
        readers = {"own": in_context(links.model)}
        asked = asker.ask(split, regime, context, seed, readers)["own"].predictions
        best = {i: int(asked.value[i, 0]) for i in at}
    found = []
    for i in at:
        moment, pool = (int(questions.now[i]), int(questions.cutoff[i])), visible[i]
        if pool.size > _ALL:
            rng = np.random.default_rng([seed, i])
            pool = np.union1d(rng.choice(pool, _ALL, replace=False), [best[i]])
        number = np.array([i])
        features = links.features(questions, number, pool, moment)[0][0]
        first = best.get(i, int(pool[(features @ weight).argmax()]))
        place = int(np.searchsorted(pool, first))
        mean = features.mean(0)
        moved = weight * (features[place] - mean)
        found.append(
            Explanation(
                entity=int(questions.entity[i]),
                time=moment[0],
                answer=float(features[place] @ weight),
                baseline=float(mean @ weight),
                chosen=str(first),
                signals=_signals(task, first, features[place] - mean, moved),
            )
        )
    return tuple(found)


def _signals(
    task: Task, destination: int, apart: npt.NDArray[np.float64], moved: npt.NDArray[np.float64]
) -> tuple[Signal, ...]:
    """Of how far what is known of a destination is from the mean of others, and what that moves."""
    index = {name: f for f, name in enumerate(SEEN_FEATURES)}
    share = {name: moved[[index[f] for f in own]].sum() for name, own in _GROUPS.items()}
    share[_TOWERS] = moved[-1]
    more = {name: apart[[index[f] for f in own]].sum() > 0 for name, own in _GROUPS.items()}
    total = max(sum(abs(one) for one in share.values()), 1e-12)
    own = f"{OUTCOMES}.{task.entity_column}"
    places = {
        "met": (own, OUTCOMES, OUTCOME, ()),
        "near": ("", task.destination_table, "", (destination,)),
        "share": (f"{OUTCOMES}.{task.target}", OUTCOMES, OUTCOME, ()),
        "children": ("", task.destination_table, "", (destination,)),
        _TOWERS: ("", task.destination_table, "", (destination,)),
    }
    return tuple(
        Signal(
            *places[name],
            float(share[name] / total),
            0.0,
            False,
            _say(task, name, bool(more.get(name, False)), share[name] > 0),
        )
        for name in sorted(share, key=lambda name: -abs(share[name]))
        if share[name]
    )


def _say(task: Task, name: str, is_more: bool, raises: bool) -> str:
    """The destination is called the first choice, as it stands first in the answer."""
    of, more = f"this row of {task.entity_table}", ("more" if is_more else "less")
    said = {
        "met": f"past outcomes of {of} hold the first choice {more} often than others",
        "near": f"rows around {of} point at the first choice {more} often than at others",
        "share": f"past outcomes of all rows of {task.entity_table} hold the first choice {more} "
        "often than others",
        "children": f"{'more' if is_more else 'fewer'} rows point at the first choice than at "
        "others",
        _TOWERS: f"the rows around {of} and around the first choice, taken as a whole",
    }[name]
    return f"{said}: {'raises' if raises else 'lowers'} its score"
