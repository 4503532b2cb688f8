"""A tiny corpus, the batches drawn from it, and a tiny model that answers them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import BartModel

from rfm.data.batch import LinkTargets, PretrainBatch, TextTargets, ValueTargets
from rfm.data.corpus import Corpus, open_corpus
from rfm.data.mixture import PretrainBatches
from rfm.data.times import Split
from rfm.nn.backbone import BackboneConfig
from rfm.nn.model import RelationalModel
from rfm.nn.row_encoder import RowEncoderConfig, bart_config
from rfm.train.build import build_model
from tests.tiny_run import configure

MAX_TOKENS = 32
OBJECTIVE_WEIGHTS = {"value": 10.0, "text": 0.5, "link": 0.5}


def open_tiny_corpus(cache: Path) -> Corpus:
    """What tiny runs train on."""
    return open_corpus(configure(cache, cache / "unused").data, 0)


def tiny_batches(corpus: Corpus, split: Split = "train", **changes: Any) -> PretrainBatches:
    """Batches of a few seeds; ``changes`` are those of ``BatchConfig``."""
    config = configure(Path("unused"), Path("unused")).batch
    config = replace(config, masked_groups=2, masked_seeds=6, max_texts=8)
    return PretrainBatches(corpus.mixture, replace(config, **changes), 0, split, 2)


def tiny_model(corpus: Corpus, noise: float = 0.03, **encoder: Any) -> RelationalModel:
    """A model in evaluation mode; ``noise`` keeps heads that start at zero from hiding anything."""
    torch.manual_seed(0)
    config = BackboneConfig()
    config = replace(config, row_encoder=replace(config.row_encoder, **encoder))
    model = build_model(config, corpus.tokenizer, MAX_TOKENS, compiled=False)
    model.in_context.requires_grad_(False)  # the batches hold no episodes
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * torch.randn_like(parameter)
    return model.eval()


def loss_of(model: RelationalModel, batch: PretrainBatch) -> torch.Tensor:
    """The weighted sum of the mean losses, by itself."""
    losses = model(batch).losses()
    terms = [
        OBJECTIVE_WEIGHTS[n] * loss.total / loss.count.clamp(min=1) for n, loss in losses.items()
    ]
    return torch.stack(terms).sum()


def gradients(model: RelationalModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients by name of all trained parameters; one that has none fails."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} got no gradient"
            found[name] = parameter.grad.clone()
    return found


def without_texts(batch: PretrainBatch) -> PretrainBatch:
    texts: TextTargets = batch.texts.map(lambda t: t[:0])
    return replace(batch, texts=texts)


def without_links(batch: PretrainBatch) -> PretrainBatch:
    links: LinkTargets = batch.links.map(lambda t: t[:0])
    return replace(batch, links=replace(links, allowed=links.allowed[:, :0]))


def without_values(batch: PretrainBatch) -> PretrainBatch:
    values: ValueTargets = batch.values.map(lambda t: t[:0])
    return replace(batch, values=values)


def bart_folder(corpus: Corpus, out: Path, **changes: Any) -> Path:
    """Random weights as if they were somebody's, with the corpus's tokenizer."""
    tokenizer = corpus.tokenizer
    given = {"pad": tokenizer.id("<pad>"), "end": tokenizer.id("</s>"), **changes}
    config = bart_config(RowEncoderConfig(max_positions=64), len(tokenizer), **given)
    torch.manual_seed(5)
    BartModel(config).save_pretrained(out)
    tokenizer.save(out)
    return out
