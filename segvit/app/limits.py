"""The limits of the page. Each field is a flag of `segvit app`, with this default and this help."""

import math
from dataclasses import dataclass, fields

from segvit.errors import UserError

MEGA = 1_000_000
MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of what one visitor, and all of them together, may ask for.

    Raises:
        UserError: a limit is 0, negative or infinite.
    """

    max_megabytes: float = 20
    """Largest size of a file, in 2^20 bytes."""
    max_megapixels: float = 25
    """Largest width times height of a photo, in 10^6 pixels."""
    timeout: float = 60
    """Seconds for one photo, reading and writing included. A photo that takes longer is given up.
    An upload to the API may take as long."""
    queue: int = 32
    """Requests that may wait. Further ones are asked to come back later."""
    concurrency: int = 1
    """Photos processed at the same time, each by a worker process that holds all models in memory."""
    batch_files: int = 50
    """Largest number of photos in one batch."""
    keep_minutes: float = 10
    """Minutes after their last use after which photos and results are deleted. Waiting in the queue is a use."""
    max_gigabytes: float = 2
    """Disk space of all photos and results, in 10^9 bytes. If it is full, uploads are refused for a while."""

    stop_seconds: float = 5
    """Seconds that photos in work have to finish when the server is stopped. New requests are refused meanwhile."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"--{field.name.replace('_', '-')} {value:g}: give a number above 0")

    @property
    def bytes(self) -> int:
        """Largest size of a file in bytes."""
        return round(self.max_megabytes * MEGABYTE)

    @property
    def longest_wait(self) -> float:
        """Seconds after which the last request in a full queue has its turn, if each photo takes its whole time."""
        return self.queue * self.timeout / self.concurrency

    @property
    def told(self) -> str:
        """The limits of one photo in words."""
        return f"up to {self.max_megabytes:g} MB and {self.max_megapixels:g} megapixels"
