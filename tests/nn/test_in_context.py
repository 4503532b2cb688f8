"""The in-context head: what its answers depend on, and what its losses are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rfm.data.batch import TOLD_KINDS, EpisodeBatch
from rfm.data.episode_config import EpisodeConfig
from rfm.data.episodes import Episodes, EpisodeSource
from rfm.nn.backbone import States
from rfm.nn.in_context import Examined, InContextHead, answers, bin_edges
from tests.busy_shop import Busy

WIDTH, K, Q = 16, 12, 5
KINDS = torch.arange(len(TOLD_KINDS)).repeat(2)  # two numbers of each kind


@pytest.fixture(scope="module")
def template(busy: Busy) -> EpisodeBatch:
    config = EpisodeConfig(per_batch=1, support=8, fewest=8, queries=2)
    source = EpisodeSource(busy.store, 0, busy.tokenizer, 2, config)
    return Episodes([source], config, 0, {})[0][0]


def asked(template: EpisodeBatch, classes: int, seed: int = 0) -> tuple[States, EpisodeBatch]:
    torch.manual_seed(seed)
    size = K + Q
    label = torch.randint(0, max(classes, 1), (size, 1)).float()
    label[:classes, 0] = torch.arange(float(classes))  # an example of each
    batch = replace(
        template,
        told=torch.randn(size, KINDS.numel()),
        kind=KINDS,
        label=label if classes else torch.randn(size, 1),
        num_seeds=size,
        num_support=K,
        named=True,
        classes=classes,
    )
    parts = (torch.randn(size, WIDTH) for _ in range(3))
    node, mask, read = parts
    none = torch.zeros(0, WIDTH)
    return States(node, read, mask, none[None], torch.zeros(0, 0, dtype=torch.bool), none), batch


def noisy_head() -> InContextHead:
    torch.manual_seed(1)
    head = InContextHead(WIDTH)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return head.eval()


def examined(states: States, batch: EpisodeBatch) -> Examined:
    """What is expected is half of the first told number, where it is foretold at all."""
    return Examined.of(states, batch, 0.5 * batch.told[:, 0] * batch.named)


def logits(head: InContextHead, states: States, batch: EpisodeBatch) -> Tensor:
    return head(examined(states, batch))


def changed(states: States, rows: Tensor) -> States:
    parts = (states.node, states.read, states.mask)
    node, read, mask = (p.index_copy(0, rows, torch.randn(len(rows), WIDTH)) for p in parts)
    return replace(states, node=node, read=read, mask=mask)


every_kind = pytest.mark.parametrize("classes", [0, 2, 4])


@every_kind
def test_queries_do_not_see_one_another(template: EpisodeBatch, classes: int) -> None:
    head, (states, batch) = noisy_head(), asked(template, classes)
    before = logits(head, states, batch)
    told = batch.told.clone()
    told[K + 1] = 3.0
    after = logits(head, changed(states, torch.tensor([K + 1])), replace(batch, told=told))
    same = torch.isclose(before, after, atol=1e-5).all(1)
    assert same.tolist() == [True, False, True, True, True]


@every_kind
def test_labels_of_queries_are_not_looked_at(template: EpisodeBatch, classes: int) -> None:
    head, (states, batch) = noisy_head(), asked(template, classes)
    label = batch.label.clone()
    label[K:] = torch.nan
    torch.testing.assert_close(
        logits(head, states, replace(batch, label=label)), logits(head, states, batch)
    )


@every_kind
def test_examples_and_their_labels_count_but_not_their_order(
    template: EpisodeBatch, classes: int
) -> None:
    head, (states, batch) = noisy_head(), asked(template, classes)
    order = torch.cat([torch.randperm(K), torch.arange(K, K + Q)])
    turned = States(
        states.node[order], states.read[order], states.mask[order], states.token, states.real,
        states.relation,
    )  # fmt: skip
    moved = replace(batch, told=batch.told[order], label=batch.label[order])
    before = logits(head, states, batch)
    torch.testing.assert_close(logits(head, turned, moved), before, atol=1e-4, rtol=1e-4)
    others = replace(batch, label=torch.cat([batch.label[:K].flip(0), batch.label[K:]]))
    assert not torch.allclose(logits(head, states, others), before, atol=1e-3)
    assert not torch.allclose(
        logits(head, changed(states, torch.arange(K)), batch), before, atol=1e-3
    )


@every_kind
def test_where_nothing_tells_rows_apart_it_starts_from_what_is_frequent(
    template: EpisodeBatch, classes: int
) -> None:
    head, (states, batch) = InContextHead(WIDTH), asked(template, classes)
    alike = replace(states, **{n: getattr(states, n) * 0 for n in ("node", "read", "mask")})
    batch = replace(batch, told=batch.told * 0)
    found = logits(head, alike, batch)
    losses = head.losses(found, batch)
    torch.testing.assert_close(losses, head.losses_of_frequencies(batch), atol=2e-3, rtol=1e-3)
    if classes:
        count = [float((batch.label[:K] == c).sum()) + 0.5 for c in range(classes)]
        chance = [count[int(y)] / sum(count) for y in batch.label[K:, 0]]
        wanted = torch.tensor([-math.log(p) / math.log(classes) for p in chance])
        torch.testing.assert_close(losses, wanted, atol=1e-4, rtol=1e-4)
        shares = answers(found, examined(alike, batch))
        torch.testing.assert_close(shares.sum(1), torch.ones(Q))
    else:  # 16 even bins, of which a number of the middle lies in one
        assert losses.max().item() == pytest.approx(1.0, abs=2e-3)


@every_kind
def test_it_starts_from_what_examples_say(template: EpisodeBatch, classes: int) -> None:
    """Labels that a told number decides are foretold before anything is learnt."""
    torch.manual_seed(0)
    head, size = InContextHead(WIDTH), 60
    states, batch = asked(template, classes)
    told = torch.zeros(size, KINDS.numel())
    told[:, 6] = torch.randn(size)
    label = told[:, 6] * 3
    if classes:
        edges = torch.quantile(label, torch.linspace(0, 1, classes + 1)[1:-1])
        label = torch.bucketize(label, edges).float()
    batch = replace(batch, told=told, label=label[:, None], num_seeds=size, num_support=48)
    parts = (torch.randn(size, WIDTH) for _ in range(3))
    states = States(*parts, states.token, states.real, states.relation)
    found = logits(head, states, batch)
    better = head.losses(found, batch).mean() / head.losses_of_frequencies(batch).mean()
    assert better < 0.9
    said = answers(found, examined(states, batch))
    said = said.argmax(1).float() if classes else said[:, 0]
    assert torch.corrcoef(torch.stack([said, label[48:]]))[0, 1] > 0.6


@every_kind
def test_the_units_of_numbers_and_the_names_of_two_classes_do_not_matter(
    template: EpisodeBatch, classes: int
) -> None:
    if classes > 2:
        pytest.skip("the transformer tells several classes apart by their embeddings")
    head, (states, batch) = InContextHead(WIDTH), asked(template, classes)
    batch = replace(batch, named=False)  # what is expected is not turned round
    before = answers(logits(head, states, batch), examined(states, batch))
    other = 1 - batch.label if classes else 1000 * batch.label + 7
    batch = replace(batch, label=other)
    after = answers(logits(head, states, batch), examined(states, batch))
    wanted = before.flip(1) if classes else 1000 * before + 7
    torch.testing.assert_close(after, wanted, atol=1e-3, rtol=1e-3)


@every_kind
def test_the_transformer_says_little_where_there_are_many_examples(
    template: EpisodeBatch, classes: int
) -> None:
    head, (states, batch) = noisy_head(), asked(template, classes)
    shown, more = examined(states, batch), []
    parts = [getattr(shown, n) for n in ("state", "expected", "told")]
    for times in (1, 30):
        state, expected, told = (
            torch.cat([part[:K].repeat(times, *[1] * (part.ndim - 1)), part[K:]]) for part in parts
        )
        label = shown.label.repeat(times)
        both = replace(shown, state=state, expected=expected, told=told, label=label)
        with_it = head(both).detach()
        quiet = InContextHead(WIDTH).eval()
        quiet.load_state_dict(head.state_dict())
        for layer in (quiet.out_classes, quiet.out_bins):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        more.append((with_it - quiet(both).detach()).abs().mean())
    assert more[1] < 0.2 * more[0]


@pytest.mark.parametrize("classes", [0, 2])
@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_what_is_expected_counts_as_far_as_examples_bear_it_out(
    template: EpisodeBatch, classes: int, sign: int
) -> None:
    head, (states, batch) = InContextHead(WIDTH), asked(template, classes)
    torch.manual_seed(0)
    size, support = 300, 256
    said, nothing = torch.randn(size), torch.zeros(size, WIDTH)
    label = sign * said if sign else torch.randn(size)
    label = (label > 0).float()[:, None] if classes else label[:, None]
    alike = States(nothing, nothing, nothing, states.token, states.real, states.relation)
    batch = replace(
        batch, told=torch.zeros(size, KINDS.numel()), label=label, num_seeds=size,
        num_support=support,
    )  # fmt: skip
    shown = Examined.of(alike, batch, said)
    answer = answers(head(shown), shown)[:, -1]
    lean, together = answer.std(), torch.corrcoef(torch.stack([answer, said[support:]]))[0, 1]
    assert lean < 0.1 if sign == 0 else sign * together > 0.9


def test_examples_of_one_class_only_leave_the_past_labels(template: EpisodeBatch) -> None:
    head, (states, batch) = noisy_head(), asked(template, 2)
    batch = replace(batch, label=torch.ones_like(batch.label))
    assert logits(head, states, batch).isfinite().all()


def test_told_nothing_but_labels_it_answers(template: EpisodeBatch) -> None:
    """A table without children and numbers."""
    head, (states, batch) = InContextHead(WIDTH), asked(template, 2)
    kept = torch.arange(10)
    batch = replace(batch, told=batch.told[:, kept], kind=kept)
    assert logits(head, states, batch).isfinite().all()


def test_a_number_is_the_median_of_its_distribution(template: EpisodeBatch) -> None:
    shown = examined(*asked(template, 0))
    edge = bin_edges(shown.label)
    even = answers(torch.zeros(Q, 16), shown)
    torch.testing.assert_close(even, shown.label.quantile(0.5).expand(Q, 1))
    sure = torch.full((16, 16), -50.0).fill_diagonal_(50.0)
    middle = (edge[:-1] + edge[1:]) / 2
    torch.testing.assert_close(answers(sure, shown)[:, 0], middle)
    found = answers(20 * torch.randn(200, 16), shown)
    assert (found >= shown.label.min()).all()
    assert (found <= shown.label.max()).all()


def test_a_number_lies_in_all_bins_that_hold_it(template: EpisodeBatch) -> None:
    """Many zeros make many empty bins; what is beyond the examples lies in the outer ones."""
    head, (_, batch) = InContextHead(WIDTH), asked(template, 0)
    label = torch.tensor([0.0] * 9 + [1.0, 2.0, 3.0] + [0.0, 99.0, -99.0, 2.5, 1.0])[:, None]
    batch = replace(batch, label=label)
    edge = bin_edges(label[:K, 0])
    found = torch.randn(Q, 16)
    losses = head.losses(found, batch)
    nats = -found.log_softmax(1)
    zero = [b for b in range(16) if edge[b] <= 0 <= edge[b + 1]]
    assert len(zero) > 10
    scale = math.log(16)
    chance = found[0].softmax(0)[zero].sum()
    assert losses[0].item() == pytest.approx(-chance.log().item() / scale, rel=1e-4)
    even = head.losses_of_frequencies(batch)[0].item()
    assert even == pytest.approx(math.log(16 / len(zero)) / scale, rel=1e-4)
    assert losses[1].item() == pytest.approx(nats[1, 15].item() / scale, rel=1e-4)
    assert losses[2].item() == pytest.approx(
        nats[2, [b for b in range(16) if b == 0]].mean().item() / scale, rel=1e-4
    )


@every_kind
def test_every_weight_that_answers_gets_a_gradient(template: EpisodeBatch, classes: int) -> None:
    head, (states, batch) = noisy_head(), asked(template, classes)
    head.losses(logits(head, states, batch), batch).sum().backward()
    for name, parameter in head.named_parameters():  # processes wait for all of them
        assert parameter.grad is not None
        if name == "gain":
            assert (parameter.grad != 0).tolist() == [bool(classes), not classes]
            continue
        number = name.startswith(("number.", "out_bins."))
        kind = name.startswith(("classes.", "out_classes."))
        idle = (number and classes) or (kind and not classes)
        idle |= name == "straight.weight" and classes != 2
        assert (parameter.grad.abs().sum() == 0) == bool(idle), name
