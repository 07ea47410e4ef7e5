"""Which samples make a batch: a function of seed, epoch and process alone."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from asycmst.training.draws import Draws


class TrainingBatches(Sampler[list[int]]):
    """Shuffled batches of one process, epoch by epoch.

    A step's samples are consecutive in the epoch's order, and each process takes an equal run of
    them, so any number of processes sees the same steps. The samples that an epoch leaves over
    make no step. It has no length, as the first epoch of a resumed run is shorter.

    Args:
        size: number of samples.
        batch_size: samples of a step, over all processes.
        draws: of the run.
        process: number of this process, from 0.
        processes: how many there are; they divide `batch_size`.

    Raises:
        ValueError: there are fewer samples than one step takes, or `processes` does not divide it.
    """

    def __init__(
        self, size: int, batch_size: int, draws: Draws, process: int = 0, processes: int = 1
    ) -> None:
        if size < batch_size:
            raise ValueError(
                f"{size} training samples make no step of recipe.batch_size={batch_size}; lower it"
            )
        if batch_size % processes:
            raise ValueError(
                f"recipe.batch_size={batch_size} cannot be divided over {processes} processes; "
                "choose a multiple"
            )
        self.size = size
        self.batch_size = batch_size
        self.draws = draws
        self.process = process
        self.processes = processes
        self.steps = size // batch_size
        self.epoch = 1
        self.done = 0

    def begin(self, epoch: int, done: int = 0) -> None:
        """The next iteration is `epoch`, counted from 1, without its first `done` steps."""
        self.epoch, self.done = epoch, done

    def __iter__(self) -> Iterator[list[int]]:
        order = self.draws.order(self.epoch, self.size)
        mine = self.batch_size // self.processes
        for step in range(self.done, self.steps):
            start = step * self.batch_size + self.process * mine
            yield order[start : start + mine]


class ValidationBatches(Sampler[list[int]]):
    """All samples in order, whole batches going round the processes.

    A batch is the same whatever the number of processes, and so are figures that are averaged
    over batches. Every process has `len()` batches; only the first `real` of them are its own,
    a further one repeats the last of all.

    Args:
        size: number of samples.
        batch_size: samples of a batch.
        process: number of this process, from 0.
        processes: how many there are.
    """

    def __init__(self, size: int, batch_size: int, process: int = 0, processes: int = 1) -> None:
        indices = list(range(size))
        batches = [indices[i : i + batch_size] for i in range(0, size, batch_size)]
        self.batches = batches[process::processes]
        self.real = len(self.batches)
        if self.real < -(-len(batches) // processes):
            self.batches.append(batches[-1])

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)
