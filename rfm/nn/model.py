"""The model that is pretrained, fine-tuned and asked: backbone plus objectives, in one folder.

``save_pretrained`` writes ``model.safetensors``, ``config.json``, ``tokenizer.json`` and a model
card; ``from_pretrained`` needs nothing else: no Lightning, no network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import tokenizers
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import BartConfig, BartModel
from typing_extensions import Self

from rfm.config_types import InvalidValue, build
from rfm.data.batch import EpisodeBatch, PretrainBatch
from rfm.files import publish
from rfm.nn.backbone import Backbone, BackboneConfig, States
from rfm.nn.heads import EntityHead, HeadConfig, LinkHead, make_head
from rfm.nn.in_context import Examined, InContextHead
from rfm.nn.model_folder import CARD, CONFIG, TOKENIZER, WEIGHTS, find_model
from rfm.nn.objectives import Link, Loss, MaskedRow, quantile_loss
from rfm.nn.row_encoder import RowEncoder

M = TypeVar("M", bound="RelationalModel")


@dataclass(frozen=True)
class PretrainOutput:
    """What both objectives make of a batch, item by item.

    value_loss [V]: quantile loss, of which each weighs value_weight [V]. text_nats, text_tokens
    [X]. link_scores [Q, P], link_loss [Q]. context_loss [A]: of the queries of all episodes.
    expected_loss [N]: of the labels of episodes that can be foretold without examples.
    """

    value_loss: Tensor
    value_weight: Tensor
    text_nats: Tensor
    text_tokens: Tensor
    link_scores: Tensor
    link_loss: Tensor
    context_loss: Tensor
    expected_loss: Tensor

    def losses(self) -> dict[str, Loss]:
        """By objective, summed over the batch."""
        losses = {
            "value": Loss.over(self.value_loss * self.value_weight, self.value_weight),
            "text": Loss.over(self.text_nats, self.text_tokens),
            "link": Loss.over(self.link_loss, torch.ones_like(self.link_loss)),
        }
        if self.context_loss.numel():  # on every rank or on none: episodes always have queries
            losses["context"] = Loss.over(self.context_loss, torch.ones_like(self.context_loss))
            losses["expected"] = Loss.over(self.expected_loss, torch.ones_like(self.expected_loss))
        return losses


class RelationalModel(nn.Module, PyTorchModelHubMixin):
    """BART row encoder + GraphSAGE + objectives.

    Args:
        settings: of the backbone.
        bart: with a vocabulary that fits ``tokenizer``.
        tokenizer: the JSON of the tokenizer that the rows were serialised with.
        about: what the model card tells: pretraining databases, steps, serialisation, ...
        heads: what it has been fine-tuned to answer; none after pretraining.
    """

    def __init__(
        self,
        settings: BackboneConfig,
        bart: BartModel,
        tokenizer: str,
        about: Mapping[str, Any],
        heads: Sequence[HeadConfig] = (),
    ) -> None:
        super().__init__()
        self.settings = settings
        self.tokenizer = tokenizer
        self.about = dict(about)
        row_encoder = RowEncoder(bart, settings.row_encoder.gradient_checkpointing)
        self.backbone = Backbone(row_encoder, settings)
        self.masked_row = MaskedRow(row_encoder.width)
        self.link = Link(row_encoder.width)
        self.in_context = InContextHead(row_encoder.width)
        self.heads = nn.ModuleList()
        for head in heads:
            self.add_head(head)
        if settings.row_encoder.frozen:
            row_encoder.freeze()

    def add_head(self, config: HeadConfig, dropout: float = 0.0) -> EntityHead | LinkHead:
        """A new head, which answers a task; one that recommends starts from the link objective, but
        for its last layer: what the states add comes after what is known of each pair."""
        head = make_head(self.backbone.row_encoder.width, config, dropout)
        if isinstance(head, LinkHead):
            head.link.load_state_dict(self.link.state_dict())
            for parameter in head.link.candidate[-1].parameters():
                nn.init.zeros_(parameter)
        self.heads.append(head)
        return head

    @property
    def head(self) -> EntityHead | LinkHead:
        """The last head.

        Raises:
            ValueError: if there is none.
        """
        if len(self.heads) == 0:
            raise ValueError(
                "this model has not been fine-tuned to answer anything: see `finetune`"
            )
        return self._heads[-1]

    @property
    def _heads(self) -> list[EntityHead | LinkHead]:
        return [head for head in self.heads if isinstance(head, EntityHead | LinkHead)]

    def forward(self, batch: PretrainBatch) -> PretrainOutput:
        output = self.answer(batch, self.backbone(batch))
        if not batch.episodes:
            return output
        losses = [self.answer_episode(one, self.backbone(one)) for one in batch.episodes]
        context = torch.cat([loss for loss, _ in losses])
        expectable = zip(losses, batch.episodes, strict=True)
        expected = torch.cat([loss[one.expectable] for (_, loss), one in expectable])
        return replace(output, context_loss=context, expected_loss=expected)

    def answer_episode(self, episode: EpisodeBatch, states: States) -> tuple[Tensor, Tensor]:
        """Losses [Q] of its queries, see ``InContextHead``; and quantile losses [S] of what is
        expected of all labels without examples, which count where they are ``expectable``."""
        atom_ST, weight_ST = self.masked_row.value_quantiles(states, episode.cells())
        asked = _examined(episode, states, atom_ST, weight_ST)
        context_Q = self.in_context.losses(self.in_context(asked), episode)
        return context_Q, quantile_loss(atom_ST, weight_ST, episode.rank)

    def examine(self, episode: EpisodeBatch, states: States) -> Examined:
        """Questions as the head sees them, with what the value head expects in their cells."""
        quantiles = self.masked_row.value_quantiles(states, episode.cells())
        return _examined(episode, states, *quantiles)

    def compare_episode(
        self, episode: EpisodeBatch
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Its losses with the relational context and without it; rows are encoded once."""
        rows, alone = self.backbone.encode(episode), episode.without_edges()
        with_edges, without = (
            self.answer_episode(one, self.backbone.relate(one, rows)) for one in (episode, alone)
        )
        return with_edges, without

    def compare(self, batch: PretrainBatch) -> tuple[PretrainOutput, PretrainOutput]:
        """With the relational context and without it (no edges); rows are encoded once."""
        rows, alone = self.backbone.encode(batch), batch.without_edges()
        with_edges = self.answer(batch, self.backbone.relate(batch, rows))
        return with_edges, self.answer(alone, self.backbone.relate(alone, rows))

    def answer(self, batch: PretrainBatch, states: States) -> PretrainOutput:
        """Masked rows and links on states that the backbone gave."""
        nats_X, tokens_X = self.masked_row.text_nats(self.backbone.row_encoder, states, batch.texts)
        scores_QP = self.link.scores(states, batch.links)
        return PretrainOutput(
            value_loss=self.masked_row.value_losses(states, batch.values),
            value_weight=batch.values.weight,
            text_nats=nats_X,
            text_tokens=tokens_X,
            link_scores=scores_QP,
            link_loss=self.link.losses(scores_QP, batch.links),
            context_loss=nats_X[:0],
            expected_loss=nats_X[:0],
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        with publish(save_directory / WEIGHTS) as path:
            safetensors.torch.save_model(self, str(path))
        bart = self.backbone.row_encoder.bart.config.to_dict()
        described = {
            "backbone": asdict(self.settings),
            "bart": bart,
            "about": self.about,
            "heads": [asdict(head.config) for head in self._heads],
        }
        with publish(save_directory / TOKENIZER) as path:
            path.write_text(self.tokenizer)
        with publish(save_directory / CARD) as path:
            path.write_text(model_card(self.about))
        with publish(save_directory / CONFIG) as path:
            path.write_text(json.dumps(described, indent=2, sort_keys=True))

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        folder_or_id: str | Path,
        *,
        device: str = "cpu",
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """A saved model, in evaluation mode; a Hub id is looked up on the Hub, or in its local
        cache with ``local_files_only`` or HF_HUB_OFFLINE=1.

        Raises:
            ValueError: if there is none, or a file of it is missing or truncated.
        """
        folder = find_model(folder_or_id, revision, local_files_only)
        return read_model(folder, device, cls)


def _examined(
    episode: EpisodeBatch, states: States, atom_ST: Tensor, weight_ST: Tensor
) -> Examined:
    """Questions with the quantiles that are expected in the cells of their labels."""
    expected_S = (weight_ST * atom_ST).sum(1) - episode.marginal.mean()
    return Examined.of(states, episode, expected_S * episode.named)


def read_model(folder: Path, device: str, kind: type[M]) -> M:
    """The model saved in a local folder, as an object of the given class.

    Raises:
        ValueError: if a file is truncated, or of another architecture.
    """
    described = _read_config(folder / CONFIG)
    tokenizer, words = _read_tokenizer(folder / TOKENIZER)
    try:
        bart = BartModel(BartConfig.from_dict(described["bart"]))
        model = kind(described["backbone"], bart, tokenizer, described["about"], described["heads"])
    except Exception as error:  # of whichever library first takes offence
        raise ValueError(f"{folder / CONFIG} describes no model: {error}") from error
    if words > bart.config.vocab_size:
        raise ValueError(
            f"{folder / TOKENIZER} has {words} tokens, {CONFIG} {bart.config.vocab_size}: they are "
            "not of one model"
        )
    try:
        missing, unexpected = safetensors.torch.load_model(
            model, str(folder / WEIGHTS), strict=False, device=device
        )
        later = {name for name in model.state_dict() if name.startswith("in_context.")}
        if unexpected or (missing and set(missing) != later):  # from before there were episodes
            raise RuntimeError(f"it lacks {sorted(missing)} and has {sorted(unexpected)} besides")
    except (SafetensorError, RuntimeError, OSError) as error:
        if "size mismatch for in_context." in str(error):
            raise ValueError(
                f"{folder / WEIGHTS} was saved by a version of rfm with another in-context head: "
                "pretrain it again, or load it with that version"
            ) from error
        raise ValueError(
            f"{folder / WEIGHTS} cannot be read, it is truncated or of another model: {error}"
        ) from error
    return model.to(device).eval()


def _read_config(path: Path) -> dict[str, Any]:
    """The parts of a ``config.json``: backbone (a BackboneConfig), bart, about, heads (configs)."""
    try:
        described = json.loads(path.read_text())
        parts = {name: dict(described[name]) for name in ("backbone", "bart", "about")}
        backbone = build(BackboneConfig, parts["backbone"], "backbone", None)
        heads = [build(HeadConfig, head, "heads", None) for head in described.get("heads", [])]
    except InvalidValue as error:
        raise ValueError(f"{path} cannot be read: {error.key}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read, it is truncated or was written by another version: {error}"
        ) from error
    encoder = replace(backbone.row_encoder, pretrained="")  # its weights are in the folder
    return {**parts, "backbone": replace(backbone, row_encoder=encoder), "heads": heads}


def _read_tokenizer(path: Path) -> tuple[str, int]:
    """The JSON of a tokenizer that can be read, and how many tokens it has."""
    try:
        text = path.read_text()
        words = tokenizers.Tokenizer.from_str(text).get_vocab_size()
    except Exception as error:  # the library has no exception of its own
        raise ValueError(f"{path} cannot be read, it is truncated: {error}") from error
    if words == 0:
        raise ValueError(f"{path} holds no vocabulary")
    return text, words


def model_card(about: Mapping[str, Any]) -> str:
    """Markdown: what the model is, what it has seen, how to load it."""
    databases = about.get("databases", {})
    listed = "\n".join(f"- {name} (`{key}`)" for name, key in sorted(databases.items())) or "- none"
    facts = {k: about[k] for k in sorted(about) if k not in ("databases", "schemas")}
    table = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return f"""---
library_name: rfm
tags: [relational-deep-learning, tabular, graph-neural-network]
---

# Relational model: BART row encoder + GraphSAGE

```python
from rfm import RelationalModel
model = RelationalModel.from_pretrained("<this folder>")
```

## Pretraining databases

A score on any of these is not zero-shot. In brackets, the fingerprint of the content.

{listed}

## Facts

| what | value |
|---|---|
{table}
"""
