"""What a simulation keeps of a run: computations and queue lengths, in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from struct import Struct
from typing import Final, overload

from penstock.domain.ids import BatchId, InstanceId
from penstock.domain.outcomes import Interval
from penstock.domain.units import Micros

_ROW: Final = Struct("7q")  # a computation
_WIDTH: Final = 7  # its cells
_USEFUL: Final = 4  # where its useful samples are
_END: Final = 6  # where its end is


class Computations(Sequence[Interval]):
    """What instances computed, in order of start: all numbers in one array, row after row.

    Reads as a sequence of intervals, which are made when they are asked for: a run has millions.
    A column is copied when it is asked for.

    Attributes:
        instances: names; the column `instance` holds places in it.
    """

    __slots__ = ("_cells", "_useful_of", "instances")

    def __init__(self, instances: Sequence[InstanceId] = ()) -> None:
        self.instances = tuple(instances)
        self._cells = array("q")
        self._useful_of = array("q")  # by batch, of all its computations

    @property
    def instance(self) -> array[int]:
        """Which instance computed, as a place in `instances`."""
        return self._cells[0::_WIDTH]

    @property
    def stage(self) -> array[int]:
        """Which stage of the batch's pipeline it was."""
        return self._cells[1::_WIDTH]

    @property
    def batch(self) -> array[int]:
        """Ids of the batches."""
        return self._cells[2::_WIDTH]

    @property
    def samples(self) -> array[int]:
        """How many samples were computed."""
        return self._cells[3::_WIDTH]

    @property
    def useful(self) -> array[int]:
        """How many of them were answered in time."""
        of = self._useful_of
        own = zip(self.batch, self._cells[_USEFUL::_WIDTH], strict=True)
        return array("q", [cell + (of[batch] if batch < len(of) else 0) for batch, cell in own])

    @property
    def start_us(self) -> array[int]:
        """When it began."""
        return self._cells[5::_WIDTH]

    @property
    def end_us(self) -> array[int]:
        """When it ended."""
        return self._cells[_END::_WIDTH]

    def begin(
        self,
        instance: int,
        stage: int,
        batch: BatchId,
        samples: int,
        start_us: Micros,
        end_us: Micros,
    ) -> int:
        """Add a computation that will end then if nothing happens; return its place."""
        place = len(self._cells) // _WIDTH
        row = _ROW.pack(instance, stage, batch, samples, 0, start_us, end_us)
        self._cells.frombytes(row)  # a third of what `extend` takes
        return place

    def count_batch_useful(self, batch: BatchId, samples: int) -> None:
        """Take it that so many samples of a batch that goes whole were answered in time.

        Kept by batch: its computations were written long before, and no cache has them any more.
        """
        missing = batch + 1 - len(self._useful_of)
        if missing > 0:
            self._useful_of.extend([0] * missing)
        self._useful_of[batch] = samples

    def count_useful(self, place: int, samples: int) -> None:
        """Take it that so many samples of a computation were answered in time."""
        self._cells[place * _WIDTH + _USEFUL] = samples

    def cut_short(self, place: int, end_us: Micros) -> None:
        """Let a computation end then, if it has not ended before."""
        cell = place * _WIDTH + _END
        self._cells[cell] = min(self._cells[cell], end_us)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._cells) // _WIDTH

    @overload
    def __getitem__(self, place: int) -> Interval: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Interval]: ...
    def __getitem__(self, place: int | slice) -> Interval | Sequence[Interval]:
        """Return one as an interval, or some of them."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        first = range(len(self))[place] * _WIDTH
        instance, stage, batch, samples, _, start_us, end_us = self._cells[first : first + _WIDTH]
        return Interval(
            instance=self.instances[instance],
            stage=stage,
            batch=BatchId(batch),
            samples=samples,
            start_us=start_us,
            end_us=end_us,
        )

    def __iter__(self) -> Iterator[Interval]:
        """Yield each as an interval."""
        return (self[place] for place in range(len(self)))

    def busy_us(self, start_us: Micros, end_us: Micros) -> tuple[list[float], list[float]]:
        """Return how long each instance computed between two instants, and usefully so.

        Of a batch's time that part is useful which its samples that were answered in time are of
        all its samples.

        Returns:
            Two lists in the order of `instances`, in microseconds.
        """
        busy = [0.0] * len(self.instances)
        useful = [0.0] * len(self.instances)
        rows = zip(
            self.instance, self.samples, self.useful, self.start_us, self.end_us, strict=True
        )
        for instance, samples, counted, began_us, ended_us in rows:
            us = min(ended_us, end_us) - max(began_us, start_us)
            if us > 0:
                busy[instance] += us
                if counted:
                    useful[instance] += us * counted / samples
        return busy, useful

    def last_end_us(self) -> Micros:
        """Return when the last one ended; 0 if there is none."""
        return max(self.end_us, default=0)


class QueueLengths:
    """How long how many samples waited, between two instants.

    Args:
        start_us: what is before is not counted.
        end_us: nor what is after.
    """

    __slots__ = ("_end_us", "_samples", "_since_us", "_time_us")

    def __init__(self, start_us: Micros, end_us: Micros) -> None:
        self._time_us: dict[int, Micros] = {}
        self._since_us = start_us
        self._end_us = end_us
        self._samples = 0

    def note(self, now_us: Micros, samples: int) -> None:
        """Take it that from now on so many wait."""
        if samples != self._samples:
            self._count(now_us)
            self._samples = samples

    def closed(self, now_us: Micros) -> Mapping[int, Micros]:
        """Return the time at each length up to now, the shortest first."""
        self._count(now_us)
        return dict(sorted(self._time_us.items()))

    def _count(self, now_us: Micros) -> None:
        until_us = min(now_us, self._end_us)
        passed_us = until_us - self._since_us
        if passed_us > 0:
            self._time_us[self._samples] = self._time_us.get(self._samples, 0) + passed_us
            self._since_us = until_us
