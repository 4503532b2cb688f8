"""A model that answers queries about the shop, without having learnt anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import torch

from rfm.data.database import open_database
from rfm.data.tokenizer import mixture_tokenizer
from rfm.eval.ask import AskConfig
from rfm.eval.zero_shot import ContextConfig
from rfm.model import RelationalModel
from rfm.nn.backbone import BackboneConfig
from rfm.train.build import build_model

BUYS = "PREDICT COUNT(orders.* VIA orders.customer, 0, 30, days) > 0 FOR EACH customers.id"
SPEND = "PREDICT SUM(orders.amount VIA orders.customer, 0, 30, days) FOR EACH customers.id"
STATUS = "PREDICT LAST(orders.status VIA orders.customer, 0, 120, days) FOR EACH customers.id"
NEXT = (
    "PREDICT LIST_DISTINCT(reviews.product VIA reviews.order -> orders.customer, 0, 120, days) "
    "RANK TOP 4 FOR EACH customers.id"
)
CITY = "PREDICT customers.city FOR EACH customers.id"
QUERIES = {"buys": BUYS, "spend": SPEND, "status": STATUS, "next": NEXT, "city": CITY}


def save_answering(shop: Path, cache: Path, folder: Path) -> Path:
    """The folder of a model with random weights, whose every part counts."""
    tokenizer = mixture_tokenizer([open_database(shop)], 400, cache)
    torch.manual_seed(0)
    made = build_model(BackboneConfig(), tokenizer, 40)
    made.about = {"databases": {}, "serialisation": "compact", "episodes": 1}
    with torch.no_grad():
        for layer in (made.in_context.out_classes, made.in_context.out_bins):
            layer.weight.normal_(std=0.1)
    made.save_pretrained(folder)
    return folder


def open_answering(shop: Path, cache: Path, folder: Path) -> RelationalModel:
    return RelationalModel.from_pretrained(save_answering(shop, cache, folder))


def small_config(cache: Path, context: int = 24) -> AskConfig:
    ask = ContextConfig(children=4, history=6, max_rows=40, size=16)
    return AskConfig(context=context, ask=ask, cache=cache)


def write_many_steps(task_shop: Path, folder: Path, count: int) -> Path:
    """The shop with so many states of an order, which follow the amount; the first are frequent."""
    shutil.copytree(task_shop, folder)
    path = folder / "db" / "orders.parquet"
    orders = pd.read_parquet(path)
    rank = orders.amount.rank(pct=True).fillna(1.0)
    step = (rank**2 * count).astype(int).clip(upper=count - 1)
    orders.assign(status=[f"step {i}" for i in step]).to_parquet(path, index=False)
    return folder
