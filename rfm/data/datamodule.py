"""The loader: counts batches, so that a resumed run draws the very next one."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from rfm.data.batch import Batch


class CountingSampler(Sampler[int]):
    """Indices ``start + rank``, then every ``ranks``-th, without end.

    No two ranks ever draw the same index, and what is drawn is the same whether or not the run was
    interrupted; ``start`` counts the batches of all ranks, so that their number may change, too.
    """

    def __init__(self, start: int, rank: int, ranks: int) -> None:
        self.start, self.rank, self.ranks = start, rank, ranks

    def __iter__(self) -> Iterator[int]:
        index = self.start + self.rank
        while True:
            yield index
            index += self.ranks


class StridedSampler(Sampler[int]):
    """Each rank's share of a finite number of batches, each drawn once.

    All shares are equally long, as sharded models need: the last indices may be beyond the end.
    """

    def __init__(self, size: int, rank: int, ranks: int) -> None:
        self.indices = range(rank, -(-size // ranks) * ranks, ranks)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class BatchData(LightningDataModule):
    """Batches by index: endless ones to train on, ``val`` of them to validate.

    What a checkpoint keeps is how many batches all ranks have taken; Lightning's own sampler must
    stay out of the way (``Trainer(use_distributed_sampler=False)``).
    """

    def __init__(self, train: Dataset[Any], val: Dataset[Any], workers: int) -> None:
        super().__init__()
        self.train, self.val, self.workers = train, val, workers
        self._start = 0

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        return self._loader(
            self.train, CountingSampler(self._start, trainer.global_rank, trainer.world_size)
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        assert isinstance(self.val, Sized)
        sampler = StridedSampler(len(self.val), trainer.global_rank, trainer.world_size)
        return self._loader(self.val, sampler)

    def _loader(self, batches: Dataset[Any], sampler: Sampler[int]) -> DataLoader[Batch]:
        return DataLoader(
            batches,
            sampler=sampler,
            batch_size=None,  # an item is a batch
            num_workers=self.workers,
            prefetch_factor=2 if self.workers else None,
            persistent_workers=False,
            pin_memory=self.trainer is not None
            and self.trainer.strategy.root_device.type == "cuda",
        )

    def state_dict(self) -> dict[str, Any]:
        trainer = self.trainer
        assert trainer is not None
        of_each = trainer.global_step * trainer.accumulate_grad_batches
        return {"batches": of_each * trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._start = int(state_dict["batches"])
