"""Give each process its samples at each step of a training run, without an end and by the seed alone.

order = EndlessBatches(len(samples), 16, seed=0, start_step=90_000)
next(iter(order))                           # [(index, draw), ...] of step 90,000
"""

import hashlib
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from segvit.errors import UserError


class EndlessBatches(Sampler[list[tuple[int, int]]]):
    """Endless batches of (index, draw) for one rank. Each epoch is a seeded permutation.

    Step s takes the draws s * batch_size to (s + 1) * batch_size - 1 of the run. Draw t is sample
    permutation(t // length)[t % length]. So the order depends on neither ranks nor workers, and starting late is free.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        steps: int | None = None,
    ) -> None:
        """Set the order.

        Args:
            length: number of samples in the dataset.
            batch_size: samples per step over all ranks.
            seed: seed of the permutations.
            start_step: first step, counted from the run's start.
            rank: position of this process, which takes every world_size-th sample of a global batch from there.
            world_size: number of processes.
            steps: steps of the whole run, not only those left. None never ends.

        Raises:
            UserError: the batch cannot be divided evenly.
        """
        if length < 1:
            raise UserError("the training set is empty")
        if batch_size < 1 or batch_size % world_size:
            raise UserError(
                f"batch_size {batch_size} cannot be divided evenly among {world_size} processes; "
                f"make it a multiple of {world_size}"
            )
        assert 0 <= rank < world_size and start_step >= 0
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size
        self.steps = steps

    def __len__(self) -> int:
        if self.steps is None:
            raise TypeError("endless batches have no length")
        return max(self.steps - self.start_step, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step, epoch, order = self.start_step, -1, torch.empty(0)
        while self.steps is None or step < self.steps:
            batch = []
            for draw in range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world_size):
                if draw // self.length != epoch:
                    epoch = draw // self.length
                    order = self.permutation(epoch)
                batch.append((int(order[draw % self.length]), draw))
            yield batch
            step += 1

    def permutation(self, epoch: int) -> torch.Tensor:
        """Return the order of the N samples in an epoch, (N,)."""
        generator = torch.Generator().manual_seed(mix(self.seed, epoch, "order"))
        return torch.randperm(self.length, generator=generator)


def mix(seed: int, number: int, purpose: str) -> int:
    """Return a 64-bit seed. Those of neighbouring (seed, number) have nothing in common."""
    return int.from_bytes(hashlib.blake2b(f"{purpose} {seed} {number}".encode(), digest_size=8).digest(), "little")
