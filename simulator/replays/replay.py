"""Feeds a run log to a fresh dispatcher, or lays it beside another, up to the first divergence.

Reads entries as they come and keeps none but the last few. Knows nothing of files and words.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from penstock.domain.errors import InvalidTrace, PenstockError
from penstock.domain.ids import ModelName
from penstock.domain.outcomes import Summary
from penstock.domain.requests import Request
from penstock.domain.units import Micros
from penstock.formats.plans import read_plan, write_plan
from penstock.formats.runlog import LogEntry, LogLine
from penstock.formats.sources import Source, show
from penstock.scheduling.effects import CompleteRequest, DropRequest, Effect, RunBatch, WakeAt
from penstock.scheduling.events import Event, PlanApplied, RequestArrived, StageFinished, WakeUp
from penstock.scheduling.machine import Machine
from simulator.replays.outcomes import LogOutcomes
from simulator.replays.state import LogState, ModelState

_RECENT = 5


@dataclass(frozen=True, slots=True)
class Placed:
    """An entry and its place in the log, counted from 1."""

    number: int
    entry: LogEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where two runs part.

    Attributes:
        number: which entry, from 1; all before are equal.
        lines: where the log is read, and the other log if there is one; 0 after its end.
        expected: the log's entry; None if it has none there.
        found: what the dispatcher, or the other log, has instead; None if there is nothing.
        refusal: why the dispatcher has nothing.
        before: what was open just before, of each model that the entries are about.
        recent: the last entries about these models, all of them before this one.
    """

    number: int
    lines: tuple[int, int]
    expected: LogEntry | None
    found: LogEntry | None
    refusal: str = ""
    before: Mapping[ModelName, ModelState]
    recent: tuple[Placed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is equal, and where that ends.

    Attributes:
        entries: how many are equal; all further figures are of these.
        events: by kind.
        span_us: from the first entry to the last.
        open_requests: without an outcome when it ended.
        overall, models: outcomes as the dispatcher saw them; rates from first arrival to last.
        divergence: None if all is equal.
    """

    entries: int
    events: Mapping[str, int]
    requests: int
    batches: int
    effects: int
    span_us: Micros
    open_requests: int
    overall: Summary
    models: Mapping[ModelName, Summary]
    divergence: Divergence | None


def replay(
    lines: Iterable[LogLine],
    source: str,
    dispatcher: Machine[Event, Effect],
    *,
    decisions_only: bool = False,
) -> Comparison:
    """Feed a log's events to a dispatcher, and compare its effects with the log's.

    Stops at the first difference: the events after it are answers to effects that the
    dispatcher did not give.

    Args:
        source: how the user knows the log.
        dispatcher: new.
        decisions_only: for a dispatcher with other rules: when it wants to be woken is no
            difference, and it is woken then. What it does to requests and batches is.

    Raises:
        InvalidTrace: the log is not one, or holds an event that cannot be.
    """
    walk, alarms = _Walk(), _Alarms()
    for line in lines:
        entry = line.entry
        _check(line, source, walk.state)
        early = alarms.ring(dispatcher, entry.now_us) if decisions_only else None
        if early is not None:
            return walk.diverged((line.line, 0), None, early, "")
        answer, refusal = _answer(dispatcher, entry.now_us, entry.event)
        alarms.set(entry, answer)
        if answer is None or _differ(entry, answer, decisions_only):
            return walk.diverged((line.line, 0), entry, answer, refusal)
        walk.take(entry)
    return walk.ended(None)


def compare(lines: Iterable[LogLine], others: Iterable[LogLine]) -> Comparison:
    """Lay two logs side by side.

    Raises:
        InvalidTrace: one is not a log.
    """
    walk = _Walk()
    for line, other in zip_longest(lines, others):
        entry, found = (each.entry if each else None for each in (line, other))
        if entry is None or entry != found:
            numbers = (line.line if line else 0, other.line if other else 0)
            return walk.diverged(numbers, entry, found, "")
        walk.take(entry)
    return walk.ended(None)


class _Alarms:
    """When each side wants to be woken, if both are alike in all else."""

    def __init__(self) -> None:
        self._mine_us: Micros | None = None
        self._logged_us: Micros | None = None

    def set(self, entry: LogEntry, answer: LogEntry | None) -> None:
        """Note what both asked for at the same event."""
        self._logged_us = _wake_us(entry, self._logged_us)
        if answer is not None:
            self._mine_us = _wake_us(answer, self._mine_us)

    def ring(self, dispatcher: Machine[Event, Effect], until_us: Micros) -> LogEntry | None:
        """Wake the dispatcher whenever it wants to be, before the log's next event.

        Unless the recorded one wanted the same: then it was woken, if late, and the log tells.

        Returns:
            The first thing it does then to a request or a batch.
        """
        while self._mine_us is not None and self._mine_us < until_us:
            if self._mine_us == self._logged_us:
                return None
            woken, _ = _answer(dispatcher, self._mine_us, WakeUp())
            self._mine_us = None if woken is None else _wake_us(woken, None)
            if woken is not None and _decisions(woken):
                return woken
        return None


class _Walk:
    """Goes along the part that is equal, and remembers what a divergence is told with."""

    def __init__(self) -> None:
        self.state = LogState()
        self._outcomes = LogOutcomes()
        self._recent: dict[ModelName, deque[Placed]] = {}
        self._events: Counter[str] = Counter()
        self._effects = self._batches = 0
        self._first_us: Micros | None = None
        self._last_us: Micros = 0

    def take(self, entry: LogEntry) -> None:
        """Go past an entry that is equal."""
        concerned = self.state.concerned(entry)
        self._count(entry)
        placed = Placed(self._events.total(), entry)
        if isinstance(entry.event, PlanApplied):
            concerned = (*self._recent, *(each.model for each in entry.event.plan.models))
        for model in dict.fromkeys(concerned):
            self._recent.setdefault(model, deque(maxlen=_RECENT)).append(placed)
        if isinstance(entry.event, RequestArrived):
            self._outcomes.arrived(entry.now_us)
        self._outcomes.ended(self._ends(entry), entry.now_us)
        self.state.take(entry)

    def diverged(
        self,
        lines: tuple[int, int],
        expected: LogEntry | None,
        found: LogEntry | None,
        refusal: str,
    ) -> Comparison:
        """Return what was equal, and that it ends here."""
        sides = [each for each in (expected, found) if each is not None]
        named = {model for each in sides for model in self.state.concerned(each)}
        models = sorted(named or self._recent)
        return self.ended(
            Divergence(
                number=self._events.total() + 1,
                lines=lines,
                expected=expected,
                found=found,
                refusal=refusal,
                before={model: self.state.model(model) for model in models},
                recent=self._recent_of(models),
            )
        )

    def ended(self, divergence: Divergence | None) -> Comparison:
        """Return what was equal."""
        offered_us = self._outcomes.offered_us
        return Comparison(
            entries=self._events.total(),
            events=dict(self._events),
            requests=self._events[RequestArrived.__name__],
            batches=self._batches,
            effects=self._effects,
            span_us=self._last_us - (self._first_us or 0),
            open_requests=self.state.open_requests,
            overall=self._outcomes.overall.summary(offered_us),
            models={
                model: counts.summary(offered_us)
                for model, counts in sorted(self._outcomes.models.items())
            },
            divergence=divergence,
        )

    def _count(self, entry: LogEntry) -> None:
        self._events[type(entry.event).__name__] += 1
        self._effects += len(entry.effects)
        self._batches += sum(isinstance(each, RunBatch) for each in entry.effects)
        self._first_us = entry.now_us if self._first_us is None else self._first_us
        self._last_us = entry.now_us

    def _ends(self, entry: LogEntry) -> list[tuple[Request, CompleteRequest | DropRequest]]:
        found: list[tuple[Request, CompleteRequest | DropRequest]] = []
        for effect in entry.effects:
            if isinstance(effect, CompleteRequest | DropRequest):
                request = self.state.request(effect.request)
                if request is None and isinstance(entry.event, RequestArrived):
                    asked = entry.event.request  # perhaps refused at once
                    request = asked if asked.id == effect.request else None
                if request is not None:
                    found.append((request, effect))
        return found

    def _recent_of(self, models: Iterable[ModelName]) -> tuple[Placed, ...]:
        found = {each.number: each for model in models for each in self._recent.get(model, ())}
        return tuple(found[number] for number in sorted(found)[-_RECENT:])


def _answer(
    dispatcher: Machine[Event, Effect], now_us: Micros, event: Event
) -> tuple[LogEntry | None, str]:
    """Return what a dispatcher makes of an event, or why it makes nothing of it."""
    try:
        return LogEntry(now_us, event, tuple(dispatcher.handle(now_us, event))), ""
    except PenstockError as error:  # a plan that is refused, or a bug
        return None, str(error)


def _differ(entry: LogEntry, answer: LogEntry, decisions_only: bool) -> bool:
    if decisions_only:
        return _decisions(entry) != _decisions(answer)
    return entry.effects != answer.effects


def _decisions(entry: LogEntry) -> list[Effect]:
    return [each for each in entry.effects if not isinstance(each, WakeAt)]


def _wake_us(entry: LogEntry, before_us: Micros | None) -> Micros | None:
    """Return when a machine wants to be woken after an entry."""
    if isinstance(entry.event, WakeUp):
        before_us = None
    asked = [each.at_us for each in entry.effects if isinstance(each, WakeAt)]
    return asked[-1] if asked else before_us


def _check(line: LogLine, source: str, state: LogState) -> None:
    """Refuse an event that no driver posts; a dispatcher relies on that.

    Raises:
        InvalidInput: it is one.
    """
    where = Source(f"{source}, line {line.line}", InvalidTrace)
    match line.entry.event:
        case RequestArrived(request):
            if request.samples < 1:
                found = show(request.samples)
                raise where.invalid("event.request.samples", "at least 1", found)
            if state.request(request.id) is not None:
                expected = "the number of a request that is not open already"
                raise where.invalid("event.request.id", expected, show(request.id))
        case StageFinished(stage=stage):
            if stage < 0:
                raise where.invalid("event.stage", "at least 0", show(stage))
        case PlanApplied(plan):
            read_plan(write_plan(plan), f"{source}, line {line.line}, event.plan")
        case _:
            pass
