"""The language model on serialised tables: what it is told, and how its answers are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.language_model import LanguageModelSettings, Reader, language_model
from benchmarks.language_prompt import Labels, Prompt, ago
from benchmarks.language_scores import LanguageScorer
from rfm.eval.predictions import align
from tests.benchmarks.shop_tasks import (
    DELTA,
    shop_task,
    tables_in_time_order,
    with_changed_future,
    write_shop,
)
from tests.shop import TEST, VAL


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random layers and a byte-level tokenizer of 400 tokens."""
    folder = tmp_path_factory.mktemp("llama")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet
    )
    backend.train_from_iterator(["orders customers big spender: yes no days ago"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=2_048,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def small(llama: Path, cache: Path, **changes: Any) -> LanguageModelSettings:
    given: dict[str, Any] = {"language_model": str(llama), "cache": cache, "vocab_size": 400,
                             "examples": 3, "most_children": 5, "batch": 16}  # fmt: skip
    return LanguageModelSettings(**{**given, **changes})


def told(reader: Reader, split: str) -> list[str]:
    """All prompts of a split, whole."""
    return [
        prompt.header + "".join(prompt.examples) + prompt.own + "".join(prompt.children)
        + prompt.ask
        for prompts in reader.prompts(split)  # type: ignore[arg-type]
        for prompt in prompts
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "outputs"), [("binary", 1), ("multiclass", 3), ("regression", 1)])
def test_every_row_is_answered(
    shop: Path, cache: Path, llama: Path, name: str, outputs: int
) -> None:
    task = shop_task(shop, name)
    answer = language_model(task, "rolling", 0, small(llama, cache))
    value = align(task, "test", answer.test)
    assert value.shape == (24, outputs)
    assert answer.config["questions"] == 48
    if name == "multiclass":
        np.testing.assert_allclose(value.sum(axis=1), 1)
    elif name == "binary":
        assert ((value > 0) & (value < 1)).all()
        assert len(np.unique(value)) > 5
    else:
        label = task.rows("train").label
        assert label.min() <= value.min() <= value.max() <= label.max()


def test_a_prompt_tells_the_row_its_parents_children_labels_and_examples(
    shop: Path, cache: Path, llama: Path
) -> None:
    task = shop_task(shop, "binary")
    frames = tables_in_time_order()
    reader = Reader(task, "rolling", 0, small(llama, cache))
    rows = task.rows("test")
    prompts = [p for batch in reader.prompts("test") for p in batch]
    for i, prompt in enumerate(prompts):
        customer = frames["customers"].iloc[rows.entity[i]]
        assert prompt.header.startswith("Predict it.\nAnswer with the big spender within 30 days")
        assert f"name {customer['name']}" in prompt.own
        if not pd.isna(customer["referred_by"]):
            referrer = frames["customers"].loc[int(customer["referred_by"]), "name"]
            assert referrer in prompt.own
        moment = pd.Timestamp(rows.time[i], unit="s")
        orders = frames["orders"]
        about = (orders["customer"] == rows.entity[i]) | (orders["gift_to"] == rows.entity[i])
        own = orders[about.fillna(False) & (orders["at"] <= moment)]
        if len(own):
            days = round((moment - own["at"].max()).total_seconds() / 86_400)
            assert any(f"orders {ago(days * 86_400)}:" in child for child in prompt.children)
        assert len(prompt.children) <= 5
        assert len(prompt.examples) == 3
        assert all(example.rstrip().endswith((": yes", ": no")) for example in prompt.examples)
        assert prompt.ask.endswith("big spender:")
        past = pd.read_parquet(shop / "tasks/binary/train.parquet")
        known = past[(past["customer"] == rows.entity[i]) & (past["asked"] + DELTA <= moment)]
        for when, label in zip(known["asked"], known["big_spender"], strict=True):
            said = f"big spender, {(moment - when).days} days ago: {'yes' if label else 'no'}\n"
            assert said in prompt.ask


def test_nothing_after_the_cutoff_is_told(
    shop: Path, cache: Path, llama: Path, tmp_path: Path
) -> None:
    changed = write_shop(tmp_path, with_changed_future(TEST))
    frame = pd.read_parquet(changed / "tasks/binary/test.parquet")
    frame["big_spender"] = 1 - frame["big_spender"]
    frame.to_parquet(changed / "tasks/binary/test.parquet", index=False)
    settings = small(llama, cache)
    frozen = [
        told(Reader(shop_task(f, "binary"), "frozen", 0, settings), "test") for f in (shop, changed)
    ]
    assert frozen[0] == frozen[1]
    rolling = [
        told(Reader(shop_task(f, "binary"), "rolling", 0, settings), "test")
        for f in (shop, changed)
    ]
    assert rolling[0] != rolling[1]
    assert not any("changed" in text for text in frozen[1])
    assert any("changed" in text for text in rolling[1])
    earlier = write_shop(tmp_path / "earlier", with_changed_future(VAL))
    reader = Reader(shop_task(earlier, "binary"), "frozen", 0, settings)
    first = told(Reader(shop_task(shop, "binary"), "frozen", 0, settings), "val")
    assert first == told(reader, "val")


def test_hidden_columns_are_in_no_prompt(shop: Path, cache: Path, llama: Path) -> None:
    settings = small(llama, cache)
    task = shop_task(shop, "blind")
    reader = Reader(task, "rolling", 0, settings)
    assert not any("amount" in text for split in ("val", "test") for text in told(reader, split))
    seen = Reader(shop_task(shop, "binary"), "rolling", 0, settings)
    assert any("amount" in text for text in told(seen, "test"))
    stars = shop_task(shop, "autocomplete")
    for text in told(Reader(stars, "rolling", 0, settings), "test"):
        assert "stars" not in text.split("reviews", 1)[1].replace("stars:", "")


def test_labels_are_known_only_after_the_timedelta_and_examples_are_balanced(shop: Path) -> None:
    task = shop_task(shop, "binary")
    labels = Labels.of(task)
    assert (np.diff(labels.known) >= 0).all()
    moment = int(pd.Timestamp("2019-06-01").timestamp())
    places = labels.of_entity(3, moment, 2)
    assert places.size == 2
    assert (labels.entity[places] == 3).all()
    assert (labels.time[places] + task.timedelta <= moment).all()
    drawn = labels.examples(3, moment, 6, 1_000, True, [0, 1])
    assert (labels.known[drawn] <= moment).all()
    assert 3 not in labels.entity[drawn]
    assert labels.label[drawn].mean() == 0.5
    again = labels.examples(3, moment, 6, 1_000, True, [0, 1])
    np.testing.assert_array_equal(drawn, again)
    assert labels.examples(3, 0, 6, 1_000, True, [0]).size == 0


def scorer(llama: Path, context: int) -> LanguageScorer:
    return LanguageScorer.load(str(llama), context)


PROMPT = Prompt(
    "Predict.\n",
    ("first example: yes\n\n", "second: no\n\n"),
    "customers: name Ann\n",
    ("orders 9 days ago: amount 3\n", "orders 2 days ago: amount 4\n"),
    "big spender:",
)


def test_probabilities_are_those_of_whole_answers(llama: Path) -> None:
    """Against one plain pass over prompt and answer; of prompts of unequal length at once."""
    model = scorer(llama, 512)
    short = Prompt("Tell.\n", (), "", (), "it is:")
    answers = ("yes", "no", "12345 and more", "1")
    given = model.log_probabilities([PROMPT, short], answers)
    for i, prompt in enumerate((PROMPT, short)):
        start = model.fit(prompt, 500)
        for k, answer in enumerate(answers):
            end = model.tokenizer(f" {answer}\n", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model.model(torch.tensor([start + end])).logits[0].log_softmax(dim=-1)
            expected = sum(logits[len(start) - 1 + t, token].item() for t, token in enumerate(end))
            assert given[i, k] == pytest.approx(expected, abs=1e-4)


def test_examples_are_dropped_first_then_the_oldest_children(llama: Path) -> None:
    model = scorer(llama, 512)
    whole = model.tokenizer.decode(model.fit(PROMPT, 512))
    assert "first example" in whole
    lengths = {len(model.fit(PROMPT, room)) for room in range(60, 200)}
    assert max(lengths) == len(model.fit(PROMPT, 512))
    length = len(model.fit(PROMPT, 512))
    fewer = model.tokenizer.decode(model.fit(PROMPT, length - 1))
    assert "first example" not in fewer
    assert "second" in fewer
    pieces = [len(model.tokenizer(e, add_special_tokens=False)["input_ids"])
              for e in PROMPT.examples]  # fmt: skip
    least = model.tokenizer.decode(model.fit(PROMPT, length - sum(pieces) - 1))
    assert "second" not in least
    assert "9 days" not in least
    assert "2 days" in least
    assert model.cut > 0
    with pytest.raises(ValueError, match="larger context"):
        model.fit(PROMPT, 10)


def test_regression_is_the_mean_of_the_candidates(shop: Path, cache: Path, llama: Path) -> None:
    reader = Reader(shop_task(shop, "regression"), "frozen", 0, small(llama, cache, quantiles=3))
    assert [float(text) for text in reader.spelled] == reader.numbers.tolist()
    value = reader.value(np.log([[0.2, 0.3, 0.5]]) + 7)
    assert value[0, 0] == pytest.approx(float(np.dot([0.2, 0.3, 0.5], reader.numbers)))


def test_what_cannot_be_asked_is_refused(shop: Path, cache: Path, tmp_path: Path) -> None:
    settings = LanguageModelSettings(cache=cache, vocab_size=400)
    for name in ("links", "multilabel"):
        with pytest.raises(ValueError, match="leave the method out"):
            language_model(shop_task(shop, name), "frozen", 0, settings)
    task = shop_task(shop, "binary")
    with pytest.raises(ValueError, match="language_model=<folder"):
        language_model(task, "frozen", 0, settings)
    empty = LanguageModelSettings(language_model=str(tmp_path), cache=cache, vocab_size=400)
    with pytest.raises(ValueError, match="no causal language model"):
        language_model(task, "frozen", 0, empty)
