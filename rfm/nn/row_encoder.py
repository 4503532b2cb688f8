"""BART over serialised rows: the encoder reads rows, the decoder spells out masked texts.

Legend: B rows of a bucket, L tokens per row, N = B * L, D width, V values, X masked texts,
S memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BartConfig, BartModel

from rfm.config import setting
from rfm.data.batch import NUM_FEATURES, NUM_ROLES, ROLE_NAME, Bucket
from rfm.nn.gather import mean_by_group, take

Size = Literal["tiny", "small", "base", "large"]
SIZES: dict[str, tuple[int, int]] = {
    "tiny": (128, 2),
    "small": (256, 4),
    "base": (768, 6),
    "large": (1024, 12),
}
_FOURIER = 4


@dataclass(frozen=True)
class RowEncoderConfig:
    """Which BART reads the rows."""

    size: Size = setting("tiny", help="width x layers: 128x2, 256x4, 768x6, 1024x12")
    pretrained: str = setting("", help="BART weights instead: a folder or a Hub id, else random")
    dropout: float = setting(0.0, ge=0, lt=1)
    max_positions: int = setting(256, ge=16, help="longest row or masked text, in tokens")
    gradient_checkpointing: bool = setting(False, help="trade time for memory")
    frozen: bool = setting(
        False,
        help="keep the row encoder fixed and cache row and cell states on disk",
    )


def bart_config(config: RowEncoderConfig, vocab_size: int, pad: int, end: int) -> BartConfig:
    """BART's architecture at one of our sizes."""
    width, layers = SIZES[config.size]
    return BartConfig(
        vocab_size=vocab_size,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=width // 64,
        decoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        dropout=config.dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        max_position_embeddings=config.max_positions,
        pad_token_id=pad,
        bos_token_id=0,
        eos_token_id=end,
        decoder_start_token_id=end,
        init_std=0.7 / width**0.5,  # 0.02 as of BART would leave narrow layers idle for long
        forced_eos_token_id=None,
    )


def load_bart(folder: Path, vocab_size: int, dropout: float) -> BartModel:
    """Pretrained weights from a local folder, with room for the tokens that BART lacks."""
    bart = BartModel.from_pretrained(
        folder, local_files_only=True, dropout=dropout, attention_dropout=0.0,
        activation_dropout=0.0,
    )  # fmt: skip
    bart.train()  # or dropout and gradient checkpointing would stay off
    if vocab_size > bart.config.vocab_size:
        bart.resize_token_embeddings(vocab_size, mean_resizing=False)
    return bart


class ValueEmbedding(nn.Module):
    """A value's features [V, NUM_FEATURES] -> [V, D]: its rank in a few waves, then two layers."""

    def __init__(self, width: int, init_std: float) -> None:
        super().__init__()
        out = nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(NUM_FEATURES + 2 * _FOURIER, width), nn.GELU(), out)
        # about as large as BART's embeddings: louder, it would drown out the token's position, by
        # which its column's name is found
        nn.init.normal_(out.weight, std=init_std / 2)
        nn.init.zeros_(out.bias)

    def forward(self, value_VF: Tensor) -> Tensor:
        waves = value_VF[:, 2:3] * (
            math.pi * 2.0 ** torch.arange(_FOURIER, device=value_VF.device, dtype=value_VF.dtype)
        )
        features = torch.cat([value_VF, waves.sin(), waves.cos()], dim=1)
        value_VD: Tensor = self.layers(features)
        return value_VD


class Encoded(NamedTuple):
    """Of a bucket: token [B, L, D] states; row [B, D] states; name [N, D]: at the first token of a
    cell, the mean embedding of its column's name."""

    token: Tensor
    row: Tensor
    name: Tensor


class RowEncoder(nn.Module):
    """Tokens and values of rows -> token states and one state per row."""

    def __init__(self, bart: BartModel, gradient_checkpointing: bool) -> None:
        super().__init__()
        self.bart = bart
        self.width: int = bart.config.d_model
        self.role = nn.Embedding(NUM_ROLES, self.width)
        self.value = ValueEmbedding(self.width, bart.config.init_std)
        nn.init.normal_(self.role.weight, std=bart.config.init_std)
        if gradient_checkpointing:
            bart.gradient_checkpointing_enable({"use_reentrant": False})

    def forward(self, bucket: Bucket) -> Encoded:
        """Token states of one bucket, and row states (their mean).

        Each token of a cell's content is told its column's name, too: attention would find it
        beside the content by itself, but only after thousands of steps.
        """
        token_ND = self.bart.shared(bucket.token).flatten(0, 1)
        embedded_ND = token_ND + self.role(bucket.role).flatten(0, 1)
        name_ND, is_name_N1 = _names(token_ND, bucket)
        told_ND = take(name_ND, bucket.cell.flatten()) * (1 - is_name_N1)
        embedded_ND = embedded_ND + told_ND
        value_VD = self.value(bucket.value).to(embedded_ND.dtype)
        embedded_ND = embedded_ND.index_add(0, bucket.value_at, value_VD)
        embedded_BLD = embedded_ND.view(*bucket.token.shape, self.width)
        if bucket.token.shape[0] == 0:
            embedded_BLD = embedded_BLD + _idle(self.bart.encoder)
            return Encoded(embedded_BLD, embedded_BLD.sum(1), name_ND)
        token_BLD = self.bart.encoder(
            inputs_embeds=embedded_BLD, attention_mask=bucket.real.to(embedded_BLD.dtype)
        ).last_hidden_state
        real_BL1 = bucket.real.unsqueeze(-1).to(token_BLD.dtype)
        row_BD = (token_BLD * real_BL1).sum(1) / real_BL1.sum(1)
        return Encoded(token_BLD, row_BD, name_ND)

    def freeze(self) -> None:
        """Keep everything that row states depend on fixed; the decoder goes on learning."""
        for module in (self.bart.encoder, self.bart.shared, self.role, self.value):
            module.requires_grad_(False).eval()

    def words(self, token_NW: Tensor) -> Tensor:
        """Names in words [N, W] -> [N, D], the mean of their token embeddings."""
        pad = self.bart.config.pad_token_id
        real_NW1 = (token_NW != pad).unsqueeze(-1)
        embedded_NWD: Tensor = self.bart.shared(token_NW) * real_NW1
        mean_ND: Tensor = embedded_NWD.sum(1) / real_NW1.sum(1).clamp(min=1)
        return mean_ND

    def text_nats(
        self, given_XL: Tensor, label_XL: Tensor, memory: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Negative log-likelihood [X] of the labels (-100: not asked), by the decoder.

        memory: states [X, S, D] that the decoder attends to, and which of them are real [X, S].
        """
        memory_XSD, real_XS = memory
        if given_XL.shape[0] == 0:
            return memory_XSD.sum((1, 2)).float() + _idle(self.bart.decoder)
        pad = self.bart.config.pad_token_id
        state_XLD = self.bart.decoder(
            inputs_embeds=self.bart.shared(given_XL),
            attention_mask=(given_XL != pad).to(memory_XSD.dtype),
            encoder_hidden_states=memory_XSD,
            encoder_attention_mask=real_XS.to(memory_XSD.dtype),
            use_cache=False,
        ).last_hidden_state
        asked = label_XL >= 0
        logits = F.linear(state_XLD[asked], self.bart.shared.weight).float()
        nats = F.cross_entropy(logits, label_XL[asked], reduction="none")
        text = torch.arange(label_XL.shape[0], device=nats.device)[:, None].expand_as(label_XL)
        return nats.new_zeros(label_XL.shape[0]).index_add(0, text[asked], nats)


def _idle(module: nn.Module) -> Tensor:
    """Zero, of which all trained parameters are part: DDP waits for every gradient."""
    sums = [p.sum() for p in module.parameters() if p.requires_grad]
    return 0.0 * torch.stack(sums).sum() if sums else torch.zeros(())


def _names(token_ND: Tensor, bucket: Bucket) -> tuple[Tensor, Tensor]:
    """[N, D]: at the first token of each cell, the mean embedding of its column's name; and
    [N, 1]: whether a token belongs to a name."""
    is_name_N1 = (bucket.role == ROLE_NAME).flatten()[:, None].to(token_ND.dtype)
    return mean_by_group(token_ND, is_name_N1, bucket.cell.flatten()), is_name_N1
