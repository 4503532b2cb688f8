"""A checkpoint for use: whole, readable without Lightning and network, or a clear error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file
from transformers import BartModel

from rfm import RelationalModel
from rfm.data.corpus import Corpus
from rfm.data.tokenizer import Tokenizer
from rfm.nn.backbone import BackboneConfig
from rfm.nn.heads import HeadConfig, LinkHead
from rfm.nn.model import CARD, CONFIG, TOKENIZER, WEIGHTS
from rfm.nn.row_encoder import RowEncoderConfig, bart_config
from rfm.train.build import build_model, describe_training
from tests.tiny_model import MAX_TOKENS, bart_folder, tiny_batches, tiny_model
from tests.tiny_run import ROOT

FILES = {WEIGHTS, CONFIG, TOKENIZER, CARD}


@pytest.fixture(scope="module")
def saved(tiny_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, and a batch with the outputs for it beside the folder."""
    model, folder = tiny_model(tiny_corpus), tmp_path_factory.mktemp("saved") / "model"
    facts = {"serialisation": "compact", "max_tokens": MAX_TOKENS}
    model.about = describe_training(tiny_corpus, 7, 0, 3, facts, {})
    model.save_pretrained(folder)
    batch = tiny_batches(tiny_corpus)[0]
    with torch.no_grad():
        torch.save((batch, vars(model(batch))), folder.parent / "batch.pt")
    return folder


def copy(folder: Path, out: Path) -> Path:
    out.mkdir()
    for name in FILES:
        (out / name).write_bytes((folder / name).read_bytes())
    return out


def test_what_is_saved_comes_back(saved: Path) -> None:
    assert {p.name for p in saved.iterdir()} == FILES
    batch, before = torch.load(saved.parent / "batch.pt", weights_only=False)
    model = RelationalModel.from_pretrained(saved)
    assert not model.training
    with torch.no_grad():
        after = vars(model(batch))
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    bart = model.backbone.row_encoder.bart
    assert bart.encoder.embed_tokens.weight is bart.shared.weight
    assert sum(p.numel() for p in model.parameters()) == sum(
        t.numel() for t in load_file(saved / WEIGHTS).values()
    )


def test_saving_again_says_the_same(saved: Path, tmp_path: Path) -> None:
    RelationalModel.from_pretrained(saved).save_pretrained(tmp_path / "again")
    for name in (CONFIG, TOKENIZER, CARD):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes(), name
    a, b = load_file(saved / WEIGHTS), load_file(tmp_path / "again" / WEIGHTS)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_card_lists_the_pretraining_databases(saved: Path, tiny_corpus: Corpus) -> None:
    card = (saved / CARD).read_text()
    assert len(tiny_corpus.fingerprints) == 2
    for name, fingerprint in tiny_corpus.fingerprints.items():
        assert f"- {name} (`{fingerprint}`)" in card
    for line in ("| steps | 7 |", "| seed | 3 |", "| serialisation | compact |"):
        assert line in card
    about = RelationalModel.from_pretrained(saved).about
    assert about["databases"] == tiny_corpus.fingerprints


def test_the_tokenizer_comes_along(saved: Path, tiny_corpus: Corpus) -> None:
    found = Tokenizer.from_folder(saved)
    texts = ["a red lamp", "Ünïcode 3"]
    assert found.encode(texts) == tiny_corpus.tokenizer.encode(texts)
    assert RelationalModel.from_pretrained(saved).tokenizer == (saved / TOKENIZER).read_text()


def test_it_loads_without_network_and_what_answers_do_without(saved: Path) -> None:
    script = f"""
import socket, sys
sys.modules.update(dict.fromkeys(("lightning", "relbench", "sklearn", "datasets")))
def no(*args, **kwargs): raise OSError("no network")
socket.socket.connect = no
import torch
from rfm import RelationalModel
model = RelationalModel.from_pretrained({str(saved)!r})
batch, before = torch.load({str(saved.parent / "batch.pt")!r}, weights_only=False)
with torch.no_grad():
    after = vars(model(batch))
assert all(torch.allclose(after[k], before[k], atol=1e-6) for k in before)
print("same", "lightning.pytorch" in sys.modules)
"""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "same False", done.stderr


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, TOKENIZER])
def test_a_missing_file_is_named(name: str, saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"checkpoint {folder} lacks {name}: copy the whole"):
        RelationalModel.from_pretrained(folder)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, TOKENIZER])
def test_a_truncated_file_is_an_error(name: str, share: float, saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path / "model")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"{folder / name} cannot be read, it is truncated"):
        RelationalModel.from_pretrained(folder)


@pytest.mark.parametrize("key", ["backbone", "bart", "about"])
def test_a_config_of_something_else_is_an_error(key: str, saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path / "model")
    described = json.loads((folder / CONFIG).read_text())
    del described[key]
    (folder / CONFIG).write_text(json.dumps(described))
    with pytest.raises(ValueError, match=rf"{folder / CONFIG} cannot be read.*'{key}'"):
        RelationalModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("bart", "d_model", "128", "describes no model"),
        ("bart", "encoder_attention_heads", 3, "describes no model: embed_dim must be"),
        ("backbone", "hops", "two", "backbone.hops: got 'two', wanted a whole number"),
        ("backbone", "hopps", 2, "unknown"),
        ("backbone", "row_encoder", {"frozen": "no"}, "backbone.row_encoder.frozen: got 'no'"),
        ("backbone", "graph_sage", {"aggregations": "mean"}, "graph_sage.aggregations: got 'mean'"),
        ("backbone", "graph_sage", {"dropout": 5}, "backbone.graph_sage.dropout: got 5"),
    ],
)
def test_a_config_with_a_wrong_value_is_an_error(
    part: str, key: str, value: Any, message: str, saved: Path, tmp_path: Path
) -> None:
    folder = copy(saved, tmp_path / "model")
    described = json.loads((folder / CONFIG).read_text())
    described[part][key] = value
    (folder / CONFIG).write_text(json.dumps(described))
    with pytest.raises(ValueError, match=rf"(?s){folder / CONFIG} .*{message}"):
        RelationalModel.from_pretrained(folder)


@pytest.mark.parametrize("name", [CONFIG, TOKENIZER])
@pytest.mark.parametrize("content", [b"\xff\xfe", b"{}", b"null", b"[1]"])
def test_a_damaged_file_is_named(name: str, content: bytes, saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path / "model")
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{folder / name} "):
        RelationalModel.from_pretrained(folder)


def test_a_larger_tokenizer_is_an_error(saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path / "model")
    larger = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
    larger.add_tokens(["some", "more", "words"])
    larger.save(str(folder / TOKENIZER))
    with pytest.raises(ValueError, match="they are not of one model"):
        RelationalModel.from_pretrained(folder)


def test_weights_of_another_size_are_an_error(saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path / "model")
    described = json.loads((folder / CONFIG).read_text())
    described["backbone"]["hops"] = 1
    (folder / CONFIG).write_text(json.dumps(described))
    with pytest.raises(ValueError, match=f"{folder / WEIGHTS} cannot be read"):
        RelationalModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["nobody/nothing-such", "no such folder/at/all"])
def test_an_unknown_checkpoint_is_an_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=f"checkpoint '{name}' is neither a local folder nor"):
        RelationalModel.from_pretrained(name)


def test_push_to_hub_uploads_the_folder(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: dict[str, Any] = {}

    class Made:
        repo_id = "me/mine"

    def create(self: HfApi, repo_id: str, **options: Any) -> Made:
        uploaded["private"] = options["private"]
        return Made()

    def upload(self: HfApi, *, repo_id: str, folder_path: Path, **options: Any) -> str:
        uploaded["repo"] = repo_id
        uploaded["files"] = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
        return "done"

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    model = RelationalModel.from_pretrained(saved)
    assert model.push_to_hub("me/mine", private=True) == "done"
    assert uploaded["repo"] == "me/mine"
    assert uploaded["private"]
    assert uploaded["files"].keys() == FILES
    for name in (CONFIG, TOKENIZER, CARD):
        assert uploaded["files"][name] == (saved / name).read_bytes()


# BART's own weights.


def pretrained(folder: Path | str) -> BackboneConfig:
    return BackboneConfig(row_encoder=RowEncoderConfig(pretrained=str(folder)))


def test_weights_come_from_a_bart_folder(tiny_corpus: Corpus, tmp_path: Path) -> None:
    folder = bart_folder(tiny_corpus, tmp_path / "bart")
    model = build_model(pretrained(folder), tiny_corpus.tokenizer, MAX_TOKENS, compiled=False)
    stored = load_file(folder / "model.safetensors")
    own = model.backbone.row_encoder.bart.state_dict()
    assert len(stored) > 50
    for name, tensor in stored.items():
        assert torch.equal(own[name], tensor), name
    model.save_pretrained(tmp_path / "saved")  # and need not be there when it is loaded again
    again = RelationalModel.from_pretrained(tmp_path / "saved")
    assert again.settings.row_encoder.pretrained == ""
    assert again.backbone.row_encoder.bart.config.max_position_embeddings == 64


def test_bart_is_given_room_for_new_tokens(tiny_corpus: Corpus, tmp_path: Path) -> None:
    """A vocabulary without <value>, as BART's own is, grows by it."""
    size = len(tiny_corpus.tokenizer)
    smaller = bart_config(RowEncoderConfig(), size - 1, 1, 2)
    BartModel(smaller).save_pretrained(tmp_path / "bart")
    model = build_model(
        pretrained(tmp_path / "bart"), tiny_corpus.tokenizer, MAX_TOKENS, compiled=False
    )
    bart = model.backbone.row_encoder.bart
    assert bart.shared.weight.shape[0] == size
    assert bart.encoder.embed_tokens.weight is bart.shared.weight
    with torch.no_grad():
        assert model(tiny_batches(tiny_corpus)[0]).value_loss.isfinite().all()


def test_pretrained_weights_are_trained_as_asked(tiny_corpus: Corpus, tmp_path: Path) -> None:
    """Not in evaluation mode, as they come, and with the dropout of the config."""
    folder = bart_folder(tiny_corpus, tmp_path / "bart")
    config = BackboneConfig(
        row_encoder=RowEncoderConfig(
            pretrained=str(folder), dropout=0.3, gradient_checkpointing=True
        )
    )
    model = build_model(config, tiny_corpus.tokenizer, MAX_TOKENS, compiled=False)
    assert all(module.training for module in model.modules())
    assert model.backbone.row_encoder.bart.encoder.dropout == 0.3
    bucket = tiny_batches(tiny_corpus)[0].buckets[-1]
    a, b = (model.backbone.row_encoder(bucket)[1] for _ in range(2))
    assert not torch.equal(a, b)


def test_a_frozen_encoder_drops_nothing_out(tiny_corpus: Corpus) -> None:
    """Its states are those in the cache, in training too."""
    encoder = RowEncoderConfig(frozen=True, dropout=0.3)
    model = build_model(BackboneConfig(encoder), tiny_corpus.tokenizer, MAX_TOKENS, compiled=False)
    assert model.backbone.row_encoder.bart.decoder.training
    bucket = tiny_batches(tiny_corpus)[0].buckets[-1]
    a, b = (model.backbone.row_encoder(bucket)[1] for _ in range(2))
    assert torch.equal(a, b)


def test_bart_must_fit(tiny_corpus: Corpus, tmp_path: Path) -> None:
    other = bart_folder(tiny_corpus, tmp_path / "other", pad=9)
    with pytest.raises(ValueError, match=rf"tokenizer does not fit .*; set data.tokenizer={other}"):
        build_model(pretrained(other), tiny_corpus.tokenizer, MAX_TOKENS, compiled=False)
    folder = bart_folder(tiny_corpus, tmp_path / "bart")
    with pytest.raises(ValueError, match=r"batch.max_tokens, .* come to 65, .* at most 64 tokens"):
        build_model(pretrained(folder), tiny_corpus.tokenizer, 65, compiled=False)


def test_bart_that_is_not_there(tiny_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="'nobody/no-bart' is neither a local folder nor in the"):
        build_model(pretrained("nobody/no-bart"), tiny_corpus.tokenizer, MAX_TOKENS, compiled=False)


def test_a_head_that_recommends_starts_from_the_link_objective(saved: Path) -> None:
    """All but the layer that lets the states count."""
    model = RelationalModel.from_pretrained(saved)
    head = model.add_head(HeadConfig("shop/x", "recommendation", 3))
    assert isinstance(head, LinkHead)
    own, pretrained = head.link.state_dict(), model.link.state_dict()
    last = {"candidate.2.weight", "candidate.2.bias"}
    assert last < set(own)
    for name, value in own.items():
        assert torch.equal(value, torch.zeros_like(value) if name in last else pretrained[name])
