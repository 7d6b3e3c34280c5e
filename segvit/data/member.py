"""Define files inside other files: a member of a tar shard, or a cell of a table.

    picture = read_image(member)                # as read_image(Path("photo.jpg")) does

Readers of images and of label files take a `File`. A `Member` has the few methods of a path that they use.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple


class MemberStat(NamedTuple):
    """Size and time of a member, by the names of `os.stat_result`."""

    st_size: int
    """Bytes of the member."""
    st_mtime_ns: int
    """Modification time of the file that holds the member, in nanoseconds. A URL has a number made of its version."""


class Member(ABC):
    """A file inside another file. Its text names both, for messages.

    Workers and threads get copies of members, so a member opens what it reads by itself and keeps no handle.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name inside the other file."""

    @property
    def suffix(self) -> str:
        """Suffix of the name with its dot, or an empty text."""
        return Path(self.name).suffix

    @abstractmethod
    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """Open the content for reading.

        Raises:
            UserError: it cannot be read.
        """

    @abstractmethod
    def stat(self) -> MemberStat:
        """Return size and time, without reading the content."""

    def exists(self) -> bool:
        """True, because the other file lists its members."""
        return True

    def absolute(self) -> "Member":
        """Return the member itself: its text is its identity."""
        return self


File = Path | Member
"""An image or a label file: on its own, or inside another file."""
