"""Answer a task's questions: batches -> values, in the order of the questions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rfm.data.batch import RecommendBatch, TaskBatch
from rfm.data.questions import AskedQuestions, Questions, QuestionSampler
from rfm.data.recommend import AskedLinks, RecommendSampler
from rfm.nn.heads import EntityHead, LinkHead
from rfm.nn.model import RelationalModel
from rfm.nn.modes import evaluating

Asked = AskedQuestions | AskedLinks


@dataclass
class Answerer:
    """Answers batch after batch, with weights that stay as they are meanwhile.

    destinations: what the destinations are compared by [all, D], of the moment asked about last.
    """

    model: RelationalModel
    asked: Asked
    destinations: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def __call__(self, batch: TaskBatch | RecommendBatch) -> Tensor:
        """[S, C] float64: see ``Predictions``."""
        head = self.model.head
        if isinstance(head, EntityHead):
            assert isinstance(batch, TaskBatch)
            return head.answers(self.model.backbone(batch), batch).double()
        assert isinstance(batch, RecommendBatch)
        return self._recommend(head, batch)

    def _recommend(self, head: LinkHead, batch: RecommendBatch) -> Tensor:
        """The best destinations [Q, k], exactly: chunk by chunk over all there are."""
        assert isinstance(self.asked, AskedLinks)
        k, questions = head.config.outputs, batch.question.shape[0]
        now, cutoff = batch.moment.tolist()
        if questions == 0:
            return torch.zeros(0, k, dtype=torch.float64, device=batch.query.device)
        query_QD = head.queries(self.model.backbone(batch), batch)
        vector_ND = self._vectors(head, (now, cutoff), query_QD.device)
        best = torch.full((questions, k), -torch.inf, device=query_QD.device)
        which = torch.full((questions, k), -1, device=query_QD.device)
        for rows, seen in self.asked.pairs(batch.question.cpu().numpy(), (now, cutoff)):
            at, seen_QPF = (torch.from_numpy(x).to(query_QD.device) for x in (rows, seen))
            score_QP = torch.cat([best, head.scores(query_QD, vector_ND[at], seen_QPF)], dim=1)
            best, place = score_QP.topk(k, dim=1)
            which = torch.cat([which, at.expand(questions, -1)], dim=1).gather(1, place)
        return which.double()

    def _vectors(self, head: LinkHead, moment: tuple[int, int], device: torch.device) -> Tensor:
        assert isinstance(self.asked, AskedLinks)
        if moment not in self.destinations:
            self.destinations.clear()
            shape = self.asked.sampler.num_destinations, self.model.backbone.row_encoder.width
            vector_ND = torch.zeros(shape, device=device)  # nobody asks for those not yet there
            for chunk in (c.to(device) for c in self.asked.destinations(moment)):
                vector_PD = head.candidates(self.model.backbone(chunk), chunk)
                vector_ND[chunk.destination] = vector_PD.to(vector_ND.dtype)
            self.destinations[moment] = vector_ND
        return self.destinations[moment]


def ask_all(sampler: QuestionSampler, questions: Questions) -> Asked:
    """All questions once, as the task's type has it."""
    if isinstance(sampler, RecommendSampler):
        return AskedLinks(sampler, questions)
    return AskedQuestions(sampler, questions)


@torch.no_grad()
def predict(model: RelationalModel, asked: Asked) -> npt.NDArray[np.float64]:
    """Answers [n, C] of a fine-tuned model to all questions, in order."""
    device, answer = next(model.parameters()).device, Answerer(model, asked)
    out = np.zeros((len(asked.questions), model.head.config.outputs))
    with evaluating(model):
        for i in range(len(asked)):
            batch = asked[i].to(device)
            out[batch.question.cpu().numpy()] = answer(batch).cpu().numpy()
    return out
