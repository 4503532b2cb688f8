"""The probabilities that a causal language model gives to answers after prompts.

Legend: n prompts, A answers, L tokens of the longest prompt, T tokens of the longest answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.language_prompt import Prompt

_END = "\n"  # ends an answer, so that 1 is not the beginning of 12


class LanguageScorer:
    """A model and its tokenizer. asked, cut: prompts so far, and those that lost examples or
    children to fit into the context."""

    def __init__(self, model: Any, tokenizer: Any, context: int) -> None:
        limit = getattr(model.config, "max_position_embeddings", None) or context
        self.model, self.tokenizer = model.eval(), tokenizer
        self.context = min(context, int(limit))
        self.asked = self.cut = 0

    @classmethod
    def load(cls, source: str, context: int) -> LanguageScorer:
        """
        Args:
            source: a folder, or an id on the Hugging Face Hub.

        Raises:
            ValueError: if there is no such model, or it is no causal language model.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if not source:
            raise ValueError(
                "the language model is not given: language_model=<folder or Hugging Face id> of a "
                "causal language model"
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"language_model={source}: no causal language model can be loaded from there, "
                f"wanted a folder or a Hugging Face id: {str(error).strip().splitlines()[0]}"
            ) from error
        return cls(model.to(device), tokenizer, context)

    @torch.no_grad()
    def log_probabilities(
        self, prompts: Sequence[Prompt], answers: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """[n, A]: of each answer and its end, after each prompt.

        Raises:
            ValueError: for a prompt that is too long even without examples and children.
        """
        spelled = [self._ids(f" {answer}{_END}") for answer in answers]
        longest = max(len(ids) for ids in spelled)
        told = [self.fit(prompt, self.context - longest) for prompt in prompts]
        token, mask = self._pad(told)
        cached = self._run(token, mask, None, longest > 1)
        first = cached.logits[:, -1].float().log_softmax(dim=-1)  # [n, V]
        total = first[:, [ids[0] for ids in spelled]]
        if longest > 1:
            total = total + self._rest(cached.past_key_values, mask, spelled)
        out: npt.NDArray[np.float64] = total.double().cpu().numpy()
        return out

    def _rest(self, cache: Any, mask: Tensor, spelled: list[list[int]]) -> Tensor:
        """[n, A]: log-probabilities of the answers' tokens after their first, given the prompts'
        keys and values."""
        prompts, width = mask.shape[0], max(len(ids) for ids in spelled) - 1
        given = torch.zeros(len(spelled), width, dtype=torch.int64)
        label = torch.full((len(spelled), width), -1, dtype=torch.int64)
        for i, ids in enumerate(spelled):
            given[i, : len(ids) - 1] = torch.tensor(ids[:-1])
            label[i, : len(ids) - 1] = torch.tensor(ids[1:])
        given, label = (t.to(mask.device).repeat(prompts, 1) for t in (given, label))
        cache.batch_repeat_interleave(len(spelled))
        seen = torch.cat([mask.repeat_interleave(len(spelled), dim=0), (label >= 0).long()], dim=1)
        logits = self._run(given, seen, cache, False).logits.float().log_softmax(dim=-1)
        found = logits.gather(2, label.clamp_min(0)[..., None])[..., 0]
        return found.masked_fill(label < 0, 0).sum(dim=1).view(prompts, len(spelled))

    def _run(self, token: Tensor, mask: Tensor, cache: Any, keep: bool) -> Any:
        """The model on tokens [n, L], of which with the cached ones ``mask`` are real; the logits
        of the last position only where nothing is cached."""
        position = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, mask.shape[1] - token.shape[1] :]
        return self.model(
            input_ids=token,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=keep or cache is not None,
            logits_to_keep=1 if cache is None else 0,
        )

    def _pad(self, told: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Tokens and mask [n, L], padded on the left, so that all prompts end together."""
        width = max(len(ids) for ids in told)
        token = torch.zeros(len(told), width, dtype=torch.int64)
        mask = torch.zeros(len(told), width, dtype=torch.int64)
        for i, ids in enumerate(told):
            token[i, width - len(ids) :] = torch.tensor(ids)
            mask[i, width - len(ids) :] = 1
        device = next(self.model.parameters()).device
        return token.to(device), mask.to(device)

    def fit(self, prompt: Prompt, room: int) -> list[int]:
        """The tokens of a prompt, at most ``room``: examples go first, then the oldest children."""
        start = self.tokenizer.bos_token_id
        header = ([] if start is None else [start]) + self._ids(prompt.header)
        examples = [self._ids(text) for text in prompt.examples]
        own, ask = self._ids(prompt.own), self._ids(prompt.ask)
        children = [self._ids(text) for text in prompt.children]
        self.asked += 1
        spare = room - sum(map(len, (header, own, ask, *examples, *children)))
        self.cut += spare < 0
        for pieces in (examples, children):
            while pieces and spare < 0:
                spare += len(pieces.pop(0))
        if spare < 0:
            raise ValueError(
                f"a question takes {room - spare} tokens without any example or child, but the "
                f"language model reads {self.context}: give a larger context= or fewer labels="
            )
        return [*header, *(i for e in examples for i in e), *own,
                *(i for c in children for i in c), *ask]  # fmt: skip

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return ids
