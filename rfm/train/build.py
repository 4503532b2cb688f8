"""A new model, and what is said of how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import BartModel

from rfm.data.corpus import Corpus
from rfm.data.store import schema_words
from rfm.data.tokenizer import EOS, PAD, Tokenizer, hub_folder
from rfm.nn.backbone import BackboneConfig
from rfm.nn.bf16_linear import use_bf16
from rfm.nn.model import RelationalModel
from rfm.nn.row_encoder import bart_config, load_bart

_BART_FILES = ["config.json", "*.safetensors", "pytorch_model.bin"]


def build_model(
    config: BackboneConfig,
    tokenizer: Tokenizer,
    max_tokens: int,
    compiled: bool = False,
    bf16_on_cpu: bool = False,
) -> RelationalModel:
    """Random weights of a size, or BART's own from a folder or Hub id.

    Args:
        max_tokens: longest row, or masked text after its column's name, that the model will read.
        compiled: ``torch.compile`` the row encoder.
        bf16_on_cpu: where a CPU computes, the row encoder takes its matrix products in bfloat16.

    Raises:
        ValueError: if the weights cannot be found, do not fit the tokenizer, or read fewer
            positions than ``max_tokens``.
    """
    encoder = config.row_encoder
    if encoder.pretrained:
        local = Path(encoder.pretrained)
        folder = local if local.is_dir() else hub_folder(encoder.pretrained, _BART_FILES)
        bart = load_bart(folder, len(tokenizer), encoder.dropout)
        _check_fit(bart, encoder.pretrained, tokenizer, max_tokens)
    else:
        bart = BartModel(bart_config(encoder, len(tokenizer), tokenizer.id(PAD), tokenizer.id(EOS)))
    _speed_up(bart, compiled, bf16_on_cpu)
    return RelationalModel(config, bart, tokenizer.backend.to_str(), {})


def begin_with(
    checkpoint: str,
    frozen: bool,
    max_tokens: int,
    compiled: bool = False,
    bf16_on_cpu: bool = False,
) -> RelationalModel:
    """The model of a checkpoint, to be pretrained further, without the heads it was tuned with.

    Args:
        checkpoint: a folder or a Hub id.
        frozen: keep the row encoder as it is.
        max_tokens, compiled, bf16_on_cpu: as ``build_model`` has them.

    Raises:
        ValueError: if there is none, or it reads fewer positions than ``max_tokens``.
    """
    saved = RelationalModel.from_pretrained(checkpoint)
    bart = saved.backbone.row_encoder.bart
    _check_length(bart, checkpoint, max_tokens)
    bart.requires_grad_(True).train()  # whatever it was saved as
    encoder = replace(saved.settings.row_encoder, frozen=frozen)
    model = RelationalModel(
        replace(saved.settings, row_encoder=encoder), bart, saved.tokenizer, saved.about
    )
    weights = saved.state_dict().items()
    model.load_state_dict({name: w for name, w in weights if not name.startswith("heads.")})
    _speed_up(bart, compiled, bf16_on_cpu)
    return model


def with_random_backbone(model: RelationalModel, seed: int) -> RelationalModel:
    """The model with random weights in place of all but its in-context head: what answers owe to
    what the backbone has learnt is missing in its answers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bart = BartModel(model.backbone.row_encoder.bart.config)
        other = RelationalModel(model.settings, bart, model.tokenizer, model.about)
    other.in_context.load_state_dict(model.in_context.state_dict())
    return other.to(next(model.parameters()).device).eval()


def _check_fit(bart: BartModel, source: str, tokenizer: Tokenizer, max_tokens: int) -> None:
    ids = {"pad_token_id": tokenizer.id(PAD), "eos_token_id": tokenizer.id(EOS)}
    wrong = {name: getattr(bart.config, name) for name in ids}
    if wrong != ids:
        raise ValueError(
            f"the tokenizer does not fit the weights of '{source}': it has {ids}, they have "
            f"{wrong}; set data.tokenizer={source} too"
        )
    _check_length(bart, source, max_tokens)


def _check_length(bart: BartModel, source: str, max_tokens: int) -> None:
    if max_tokens > bart.config.max_position_embeddings:
        raise ValueError(
            f"batch.max_tokens, or batch.max_text_tokens and a name, come to {max_tokens}, but "
            f"'{source}' reads at most {bart.config.max_position_embeddings} tokens"
        )


def _speed_up(bart: BartModel, compiled: bool, bf16_on_cpu: bool) -> None:
    if compiled:
        bart.encoder.compile(dynamic=True)
    if bf16_on_cpu:
        use_bf16(bart.encoder)


def describe_training(
    corpus: Corpus,
    steps: int,
    episodes: int,
    seed: int,
    serialisation: Mapping[str, Any],
    before: Mapping[str, Any],
) -> dict[str, Any]:
    """What a checkpoint's card tells about where it comes from.

    Args:
        episodes: that it has learnt in context from.
        before: the card of the checkpoint that the run began with; empty if it began with none.
    """
    stores = corpus.mixture.stores
    earlier = before.get("training_until", {})
    until = {store.name: store.val_timestamp for store in stores}
    card = {
        "databases": {**before.get("databases", {}), **corpus.fingerprints},
        "training_until": {
            name: max(time, until.get(name, time)) for name, time in {**until, **earlier}.items()
        },
        "schemas": {**before.get("schemas", {}), **{s.name: schema_words(s) for s in stores}},
        "rows": sum(store.num_rows for store in stores),
        "steps": before.get("steps", 0) + steps,
        "episodes": before.get("episodes", 0) + episodes,
        "seed": seed,
        **serialisation,
    }
    tuned = [*before.get("finetuned_before", [])]
    if "finetuned" in before:
        tuned.append(before["finetuned"]["task"])
    return {**card, "finetuned_before": tuned} if tuned else card
