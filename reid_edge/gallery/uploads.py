"""Bytes of requests that are in memory, over all connections together: unfinished, waiting, or being stored."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

#: Most bytes of requests at a time.
MOST_BYTES = 64 * 2**20


class Upload:
    """One request's body; ``drop`` ends its transfer."""

    def __init__(self, uploads: Uploads, drop: Callable[[], object]) -> None:
        self.drop = drop
        self.size = 0
        self._uploads = uploads

    def grow(self, count: int) -> bool:
        """Count bytes that have come; return False if there is no room, even without the unfinished uploads."""
        return self._uploads._grow(self, count)

    def finished(self) -> None:
        """All has come: from now on nobody else's upload can end it."""
        self._uploads._unfinished.pop(self, None)

    def release(self) -> None:
        """Its bytes are out of memory."""
        self.finished()
        self._uploads.size -= self.size
        self.size = 0


class Uploads:
    """Room for requests; where there is none, the unfinished upload that has taken longest has to go.

    A camera's upload takes a second or two; those of somebody who never finishes end one another.  To be used by one
    thread.

    Args:
        most: Most bytes.

    Attributes:
        size: Bytes that are in memory now.
        dropped: Number of uploads that had to go.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.size = 0
        self.dropped = 0
        self._most = most
        self._unfinished: OrderedDict[Upload, None] = OrderedDict()

    def begin(self, drop: Callable[[], object]) -> Upload:
        """Return the upload of a request; ``drop`` ends its transfer, after which it is to be released."""
        upload = Upload(self, drop)
        self._unfinished[upload] = None
        return upload

    def _grow(self, upload: Upload, count: int) -> bool:
        while self.size + count > self._most:
            oldest = next((each for each in self._unfinished if each.size), upload)
            self.dropped += 1
            if oldest is upload:
                return False
            oldest.release()
            oldest.drop()
        upload.size += count
        self.size += count
        return True
