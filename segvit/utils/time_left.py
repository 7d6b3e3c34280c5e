"""The time that a run of equal steps still takes, measured from the steps that it has done.

    left = TimeLeft(steps=600, eval_every=120)
    for step in range(1, 601):
        ...
        if line := left.after(step):
            print(line)                 # about 24 min left, done at 18:42

The first step, which also starts loaders and caches, is not measured.
"""

import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta

MEASURED = 5
"""Steps to measure before the first estimate."""
ENOUGH_SECONDS = 20.0
"""Seconds of measured steps that are also enough for it, if steps are slow."""
MIN_SECONDS = 60.0
"""Seconds that must be left for an estimate to be printed."""


class TimeLeft:
    """Measures steps and validations, and estimates the rest of the run.

    Args:
        steps: number of the last step.
        eval_every: steps between validations. The last step always validates.
        clock: returns seconds.
    """

    def __init__(self, *, steps: int, eval_every: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.steps, self.eval_every, self.clock = steps, eval_every, clock
        self.before: float | None = None  # when the previous step ended
        self.count, self.seconds = 0, 0.0  # of the measured steps
        self.known = False  # there has been an estimate
        # Seconds of the newest validation, with pictures and checkpoint. If each step validates, its own include them.
        self.validation: float | None = 0.0 if eval_every == 1 else None

    def after(self, step: int) -> str | None:
        """Note that a step has ended. Return a line when there is a new estimate, and None otherwise.

        There is one after a few steps, and one in the step after each validation. A validation that is due at this step
        has not run yet.
        """
        now, before = self.clock(), self.before
        self.before = now
        if before is None:
            return None
        if self.eval_every > 1 and (step - 1) % self.eval_every == 0:
            if self.count:
                self.validation = max(now - before - self.seconds / self.count, 0.0)
        else:
            self.count, self.seconds = self.count + 1, self.seconds + now - before
            if self.known or not self._enough:
                return None
        self.known = self.known or self._enough
        left = self.left(step)
        return describe(left, besides=self._besides(step)) if left is not None and left >= MIN_SECONDS else None

    def left(self, step: int) -> float | None:
        """Return the seconds from the end of a step to the end of the run. None if nothing has been measured.

        Validations count as much as the newest; before the first of them they are left out.
        """
        if not self._enough:
            return None
        pace = self.seconds / self.count
        return (self.steps - step) * pace + self._validations(step) * (self.validation or 0.0)

    @property
    def _enough(self) -> bool:
        """True if enough steps are measured."""
        return self.count >= MEASURED or self.seconds >= ENOUGH_SECONDS

    def _validations(self, step: int) -> int:
        """Return the number of validations that follow a step, with the one that is due at it."""
        return math.ceil(self.steps / self.eval_every) - (step - 1) // self.eval_every

    def _besides(self, step: int) -> str:
        """Name what is not in the estimate."""
        count = self._validations(step)
        return "" if self.validation is not None else f", plus {count} validation{'s' * (count != 1)}"


def describe(seconds: float, *, besides: str = "", now: datetime | None = None) -> str:
    """Return a line about the seconds that are left.

    Args:
        seconds: until the end.
        besides: what comes on top of them.
        now: time of day.
    """
    now = now or datetime.now()
    end = now + timedelta(seconds=seconds)
    day = "" if end.date() == now.date() else f"{end:%a %d %b} "
    return f"about {duration(seconds)} left{besides}; done at {day}{end:%H:%M}{' or later' * bool(besides)}"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as "24 min" or "2 h 10 min"."""
    minutes = max(round(seconds / 60), 1)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    words = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(words[:2])
