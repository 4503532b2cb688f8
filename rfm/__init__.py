"""rfm: one model pretrained on many relational databases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfm.data.database import open_database
    from rfm.data.import_sql import ImportConfig
    from rfm.model import RelationalModel

__all__ = ["ImportConfig", "RelationalModel", "open_database"]


def __getattr__(name: str) -> Any:  # torch is not imported by those who only open a database
    if name == "RelationalModel":
        from rfm.model import RelationalModel

        return RelationalModel
    if name == "open_database":
        from rfm.data.database import open_database

        return open_database
    if name == "ImportConfig":
        from rfm.data.import_sql import ImportConfig

        return ImportConfig
    raise AttributeError(f"module 'rfm' has no attribute {name!r}")
