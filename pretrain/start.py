"""What a pretraining run begins with: a model, databases, and batches of them."""

from __future__ import annotations

import logging

from pretrain.config import PretrainConfig
from rfm.config import is_first_process
from rfm.data.corpus import Corpus, open_corpus
from rfm.data.episodes import count_usable, open_episodes
from rfm.data.mixture import PretrainBatches
from rfm.data.tokenizer import Tokenizer
from rfm.eval.row_cache import cache_rows
from rfm.nn.model import RelationalModel
from rfm.train.build import begin_with, build_model
from rfm.train.trainer import bf16_on_cpu

_TASKS = 32  # drawn to say how many are usable
_log = logging.getLogger("rfm")


def open_model(config: PretrainConfig) -> tuple[RelationalModel, Corpus]:
    """The model, new or a checkpoint's, and the databases as its tokenizer reads them.

    Raises:
        ValueError: see ``build_model``, ``begin_with`` and ``open_corpus``; for fan-outs that do
            not fit a checkpoint's hops, or a serialisation that is not its own.
    """
    longest = max(config.batch.max_tokens, config.batch.budget.longest_text)
    if config.episodes.per_batch:
        longest = max(longest, config.episodes.max_tokens)
    compiled, bf16 = config.trainer.compile, bf16_on_cpu(config.trainer)
    if config.checkpoint == "none":
        corpus = open_corpus(config.data, config.seed)
        model = build_model(config.model, corpus.tokenizer, longest, compiled, bf16)
    else:
        frozen = config.model.row_encoder.frozen
        model = begin_with(config.checkpoint, frozen, longest, compiled, bf16)
        if len(config.batch.fan_out) != model.settings.hops:
            raise ValueError(
                f"batch.fan_out={list(config.batch.fan_out)}, but {config.checkpoint} has "
                f"{model.settings.hops} hops: wanted one fan-out per hop"
            )
        read_as = model.about.get("serialisation", "compact")
        if config.data.serialisation != read_as:
            raise ValueError(
                f"data.serialisation={config.data.serialisation}, but {config.checkpoint} was "
                f"pretrained with {read_as}: set it to be the same"
            )
        corpus = open_corpus(config.data, config.seed, Tokenizer.from_json(model.tokenizer))
    model.in_context.requires_grad_(config.episodes.per_batch > 0)
    return model, corpus


def open_batches(
    config: PretrainConfig, model: RelationalModel, corpus: Corpus
) -> tuple[PretrainBatches, PretrainBatches, PretrainBatches]:
    """Those to train on, to validate on in between, and to validate on at the end."""
    mixture, hops = corpus.mixture, model.settings.hops
    cache = None
    if model.settings.row_encoder.frozen:
        cache = cache_rows(
            model.backbone.row_encoder, mixture.stores, mixture.ids, config.data.cache,
            config.batch.max_tokens,
        )  # fmt: skip
    train, val = (
        open_episodes(
            mixture.stores,
            corpus.tokenizer,
            hops,
            config.episodes,
            config.seed,
            split,
            config.data.weights,
            cache,
            corpus.databases,
        )
        for split in ("train", "val")
    )
    if train is not None and is_first_process():
        usable = count_usable(train.sources, _TASKS, config.seed)
        shares = ", ".join(f"{name} {number}" for name, number in usable.items())
        _log.info("usable tasks among %d drawn from each database: %s", _TASKS, shares)
    return (
        PretrainBatches(mixture, config.batch, config.seed, "train", 0, cache, train),
        *(
            PretrainBatches(mixture, config.batch, config.seed, "val", batches, cache, val)
            for batches in (config.log.val_batches, config.log.final_batches)
        ),
    )
