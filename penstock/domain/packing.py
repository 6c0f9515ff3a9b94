"""Shares on GPUs: on how few GPUs instances with shares 1/m fit, and which of them share one.

Instances are only counted here, by the denominator m of their share. Knows nothing of plans: who
may share a GPU with whom is decided in `penstock.domain.placement`.

Packing is exact. Call a GPU *even* if it holds m instances of one share 1/m, and *mixed* if not.

* Peeling: even GPUs waste nothing, so the number of GPUs is the size of all instances plus what is
  free on mixed GPUs. The mixed GPUs of a layout of n instances hold n − m·k of them, for some
  k ≥ 0; and mixed GPUs that do so for every m become a layout of everything with k even GPUs for
  each m. Hence g GPUs suffice if and only if there are mixed GPUs that agree with n modulo m for
  every m, hold no more than n, and have no more free space than g leaves. Thousands of instances
  take no longer than a handful.
* The remainders n mod m, laid out by themselves, are one such choice, and seldom not the best.
  But 1/2, 2/3, 4/4 and 4/5 fit on three GPUs, {1/2, 1/4, 1/4} and twice {1/3, 1/4, 1/5, 1/5},
  where the remainders 1/2, 2/3 and 4/5 need three for themselves. So all choices are searched.
* Branching: while the remainder of a share 1/m is not 0, some mixed GPU holds 1 to m − 1 instances
  of it, or else the remainder would be 0. The search takes the largest such share and tries every
  content of that GPU.
* Pruning: of two states with equal remainders, let one have no fewer instances of each share and
  no less free space to spend. Then the mixed GPUs that complete the other complete it as well, and
  the other is dropped.
* First fit on the remainders is the answer, without a search, wherever it takes as many GPUs as
  their size rounded up. So it is for nearly all counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import lcm
from typing import TypeAlias

Counts: TypeAlias = tuple[int, ...]

# Counts of shares down to 1/8 took at most 2,639: all 40,320 remainders were tried, with none to a
# thousand even GPUs of each share. Of 65,000 random mixtures of all shares down to 1/10, four took
# more than this. Then first fit's answer has to do, so that nobody waits for minutes.
_MOST_CONTENTS = 20_000


def fewest_gpus(counts: Mapping[int, int]) -> int:
    """Return the fewest GPUs on which all instances can be laid out.

    Exact for shares down to 1/8. If many smaller ones are mixed with them, it may be first fit's
    answer instead, which at times takes a GPU more.

    Args:
        counts: how many instances there are with share 1/m, by m.
    """
    shares, left, mixed = _lay_out(counts)
    return len(mixed) + sum(n // m for m, n in zip(shares.denominators, left, strict=True))


def gpu_layout(counts: Mapping[int, int]) -> tuple[Counts, ...]:
    """Return what each GPU holds in a layout on the fewest: the denominators of its shares.

    GPUs that hold m instances of share 1/m come first. Equal counts give equal layouts.
    """
    shares, left, mixed = _lay_out(counts)
    even = [(m,) * m for m, n in zip(shares.denominators, left, strict=True) for _ in range(n // m)]
    return (*even, *(shares.listed(content) for content in mixed))


def maximal_patterns(denominators: Sequence[int]) -> tuple[Counts, ...]:
    """Return every way to fill one GPU so that no further share fits.

    Args:
        denominators: of the shares there are, all different, in any order.

    Returns:
        How many of each share, in the order of `denominators`.
    """
    if not denominators:
        return ()
    gpu = lcm(*denominators)
    sizes = tuple(gpu // m for m in denominators)
    none = (0,) * len(sizes)
    contents = _contents(sizes, none, tuple(denominators), gpu, min(sizes) - 1)
    return tuple(content for _, content in contents)


@dataclass(frozen=True, slots=True)
class _Shares:
    """The sizes of shares, largest first, in units of which a whole number makes a GPU."""

    denominators: Counts
    sizes: Counts
    gpu: int

    def remainders(self, counts: Counts) -> Counts:
        """Return how many instances even GPUs leave over."""
        return tuple(n % m for n, m in zip(counts, self.denominators, strict=True))

    def size(self, counts: Counts) -> int:
        return sum(n * size for n, size in zip(counts, self.sizes, strict=True))

    def free(self, contents: Sequence[Counts]) -> int:
        """Return the free space on GPUs with these contents."""
        return len(contents) * self.gpu - sum(self.size(each) for each in contents)

    def listed(self, content: Counts) -> Counts:
        """Return the denominator of each instance."""
        return tuple(m for m, n in zip(self.denominators, content, strict=True) for _ in range(n))


@dataclass(frozen=True, slots=True)
class _State:
    """How far the search is.

    Attributes:
        left: instances not on the mixed GPUs so far.
        spare: free space that the mixed GPUs to come may have.
        mixed: contents of those so far.
    """

    left: Counts
    spare: int
    mixed: tuple[Counts, ...] = ()

    def surpasses(self, other: _State) -> bool:
        """Say whether what completes the other completes this one; equal remainders given."""
        enough = all(mine >= its for mine, its in zip(self.left, other.left, strict=True))
        return enough and self.spare >= other.spare

    def after(self, free: int, content: Counts) -> _State:
        """Return the state with one more mixed GPU."""
        left = tuple(n - taken for n, taken in zip(self.left, content, strict=True))
        return _State(left, self.spare - free, (*self.mixed, content))


def _lay_out(counts: Mapping[int, int]) -> tuple[_Shares, Counts, tuple[Counts, ...]]:
    """Return the shares, how many instances of each go on even GPUs, and the mixed GPUs."""
    denominators = tuple(sorted(m for m, n in counts.items() if n))
    gpu = lcm(*denominators)
    shares = _Shares(denominators, tuple(gpu // m for m in denominators), gpu)
    every = tuple(counts[m] for m in denominators)
    mixed = _mixed_gpus(shares, every)
    return shares, tuple(n - sum(on) for n, *on in zip(every, *mixed, strict=True)), mixed


def _mixed_gpus(shares: _Shares, counts: Counts) -> tuple[Counts, ...]:
    """Return the mixed GPUs of a layout on the fewest GPUs."""
    rest = shares.remainders(counts)
    simple = _first_fit(shares, rest)
    size = shares.size(rest)
    for gpus in range(-(-size // shares.gpu), len(simple)):
        found = _search(shares, _State(counts, gpus * shares.gpu - size))
        if found is not None:
            return found
    return simple


def _search(shares: _Shares, start: _State) -> tuple[Counts, ...] | None:
    """Return mixed GPUs that bring every remainder to 0 without more free space than may be."""
    known: dict[Counts, list[_State]] = {}
    looked_at = 0
    open_states = [start]
    while open_states and looked_at < _MOST_CONTENTS:
        state = open_states.pop()
        rest = shares.remainders(state.left)
        alike = known.setdefault(rest, [])
        if any(each.surpasses(state) for each in alike):
            continue
        alike.append(state)
        last = _first_fit(shares, rest)
        if shares.free(last) <= state.spare:
            return (*state.mixed, *last)
        found = list(islice(_next_gpus(shares, state, rest), _MOST_CONTENTS - looked_at))
        looked_at += len(found)
        # The fullest GPU is tried first.
        open_states += (state.after(*each) for each in sorted(found, reverse=True))
    return None


def _next_gpus(shares: _Shares, state: _State, rest: Counts) -> Iterator[tuple[int, Counts]]:
    """Yield each mixed GPU with the largest share that has a remainder: free space, content."""
    largest = next(index for index, n in enumerate(rest) if n)
    least = tuple(int(index == largest) for index in range(len(rest)))
    most = tuple(min(n, m - 1) for n, m in zip(state.left, shares.denominators, strict=True))
    return _contents(shares.sizes, least, most, shares.gpu, state.spare)


def _contents(
    sizes: Counts, least: Counts, most: Counts, room: int, spare: int
) -> Iterator[tuple[int, Counts]]:
    """Yield what fits into `room` and leaves no more than `spare` of it free.

    Args:
        sizes: of the shares.
        least, most: how many instances of each may be in it.
        room: size of the whole.
        spare: at most this much stays free.

    Yields:
        Free space, and how many instances of each share.
    """
    if room - sum(n * size for n, size in zip(most, sizes, strict=True)) > spare:
        return
    if not sizes:
        yield room, ()
        return
    for n in range(min(most[0], room // sizes[0]), least[0] - 1, -1):
        for free, others in _contents(sizes[1:], least[1:], most[1:], room - n * sizes[0], spare):
            yield free, (n, *others)


def _first_fit(shares: _Shares, counts: Counts) -> tuple[Counts, ...]:
    """Lay out instances, largest share first, each on the first GPU with room."""
    contents: list[list[int]] = []
    free: list[int] = []
    for index, (n, size) in enumerate(zip(counts, shares.sizes, strict=True)):
        for _ in range(n):
            place = next((at for at, room in enumerate(free) if room >= size), len(free))
            if place == len(free):
                contents.append([0] * len(counts))
                free.append(shares.gpu)
            contents[place][index] += 1
            free[place] -= size
    return tuple(tuple(each) for each in contents)
