"""A new model, and what is said of how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import BartModel

from rfm.data.corpus import Corpus
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
    if compiled:
        bart.encoder.compile(dynamic=True)
    if bf16_on_cpu:
        use_bf16(bart.encoder)
    return RelationalModel(config, bart, tokenizer.backend.to_str(), {})


def _check_fit(bart: BartModel, source: str, tokenizer: Tokenizer, max_tokens: int) -> None:
    ids = {"pad_token_id": tokenizer.id(PAD), "eos_token_id": tokenizer.id(EOS)}
    wrong = {name: getattr(bart.config, name) for name in ids}
    if wrong != ids:
        raise ValueError(
            f"the tokenizer does not fit the weights of '{source}': it has {ids}, they have "
            f"{wrong}; set data.tokenizer={source} too"
        )
    if max_tokens > bart.config.max_position_embeddings:
        raise ValueError(
            f"batch.max_tokens, or batch.max_text_tokens and a name, come to {max_tokens}, but "
            f"'{source}' reads at most {bart.config.max_position_embeddings} tokens"
        )


def describe_training(
    corpus: Corpus, steps: int, seed: int, serialisation: Mapping[str, Any]
) -> dict[str, Any]:
    """What a checkpoint's card tells about where it comes from."""
    stores = corpus.mixture.stores
    return {
        "databases": corpus.fingerprints,
        "training_until": {store.name: store.val_timestamp for store in stores},
        "rows": sum(store.num_rows for store in stores),
        "steps": steps,
        "seed": seed,
        **serialisation,
    }
