"""How questions are asked of a model; light to import, as commands that read it begin with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rfm.config import setting
from rfm.data.support import SupportMix
from rfm.files import default_cache

if TYPE_CHECKING:
    from rfm.data.questions import QuestionConfig


@dataclass(frozen=True)
class ContextConfig:
    """From what a question is answered."""

    draws: int = setting(1, ge=1, help="times that examples are drawn; the answers are averaged")
    mix: SupportMix = setting(factory=SupportMix, help="which examples")
    children: int = setting(8, ge=0, help="children per foreign key of the entity, the latest")
    history: int = setting(20, ge=0, help="past labels per entity, the latest; 0: none is told")
    max_rows: int = setting(96, ge=0, help="rows per question, 0 without limit")
    max_tokens: int = setting(40, ge=8, help="tokens per row")
    size: int = setting(256, ge=1, help="questions per batch")
    bucket_rows: ClassVar[int] = 160

    @property
    def question(self) -> QuestionConfig:
        """What a question of a recommendation may see."""
        from rfm.data.questions import QuestionConfig  # which takes torch

        return QuestionConfig(
            children=self.children,
            history=self.history,
            max_rows=self.max_rows,
            max_tokens=self.max_tokens,
            eval_size=self.size,
        )


@dataclass(frozen=True)
class AskConfig:
    """How a query is answered."""

    context: int = setting(256, ge=0, help="labelled examples, at most")
    seed: int = setting(0, ge=0, help="other examples")
    ask: ContextConfig = setting(factory=ContextConfig)
    cache: Path = setting(factory=default_cache, help="prepared databases and row states")
