"""The settings of episodes."""

from __future__ import annotations

from dataclasses import dataclass

from rfm.config import setting


@dataclass(frozen=True)
class EpisodeConfig:
    """What an episode holds, and how it is drawn."""

    per_batch: int = setting(0, ge=0, help="episodes per batch; 0: nothing is learnt in context")
    support: int = setting(128, ge=8, help="labelled examples, at most")
    fewest: int = setting(16, ge=8, help="labelled examples, at least, where there are as many")
    queries: int = setting(24, ge=1, help="queries, at most")
    children: int = setting(8, ge=0, help="children per foreign key of the entity, the latest")
    history: int = setting(20, ge=0, help="past labels per entity, the latest; 0: none is told")
    max_rows: int = setting(48, ge=0, help="rows per question, 0 without limit")
    max_tokens: int = setting(40, ge=8, help="tokens per row")
    own: float = setting(
        0.0, ge=0, le=1, help="share of the databases' own tasks, where they have any"
    )
    autocomplete: float = setting(
        0.3, ge=0, le=1, help="share of the generated ones; the others are forecasts"
    )
    stale: float = setting(0.5, ge=0, le=1, help="share whose queries see nothing after the anchor")
    horizon: float = setting(
        24.0, ge=1, help="timedeltas from the anchor to a stale query, at most (forecasts)"
    )
    relabel: bool = setting(True, help="shuffle classes, turn numbers round: examples say which")
    rename: float = setting(
        0.25, ge=0, le=1, help="share whose columns and foreign keys are given other names"
    )
    temperature: float = setting(0.2, ge=0, le=1, help="databases drawn by rows ** this")
    bucket_rows: int = setting(160, ge=1, help="smallest length bucket")
