"""The memory that requests take, over all connections together: unfinished, waiting, or being stored."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

#: Most bytes of requests at a time, of one camera and of all.
MOST_OF_A_CAMERA, MOST_BYTES = 8 * 2**20, 64 * 2**20


class Upload:
    """One request's body; ``drop`` ends its transfer, ``sender`` is the camera that its certificate names."""

    def __init__(self, uploads: Uploads, drop: Callable[[], object], sender: str | None) -> None:
        self.drop = drop
        self.sender = sender
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
        self._uploads._count(self, -self.size)


class Uploads:
    """Room for requests; where there is none, the unfinished upload that has taken longest has to go.

    A camera's upload takes a second or two; those of somebody who never finishes end one another.  What a camera has
    beyond its share ends its own uploads, and no others.  To be used by one thread.

    Args:
        most: Most bytes.
        most_of_a_camera: Most bytes of one sender; of those who name none there is no such limit.

    Attributes:
        size: Bytes that are in memory now.
        dropped: Number of uploads that had to go.
    """

    def __init__(self, most: int = MOST_BYTES, most_of_a_camera: int = MOST_OF_A_CAMERA) -> None:
        self.size = 0
        self.dropped = 0
        self._most, self._most_of_a_camera = most, most_of_a_camera
        self._of_a_camera: Counter[str] = Counter()
        self._unfinished: OrderedDict[Upload, None] = OrderedDict()

    def begin(self, drop: Callable[[], object], sender: str | None = None) -> Upload:
        """Return the upload of a request.

        Args:
            drop: Ends its transfer, after which it is to be released.
            sender: The camera that its certificate names; None in plain text.
        """
        upload = Upload(self, drop, sender)
        self._unfinished[upload] = None
        return upload

    def _grow(self, upload: Upload, count: int) -> bool:
        while (own := self._over_share(upload, count)) or self.size + count > self._most:
            rivals = (each for each in self._unfinished if each.size and (not own or each.sender == upload.sender))
            oldest = next(rivals, upload)
            self.dropped += 1
            if oldest is upload:
                return False
            oldest.release()
            oldest.drop()
        self._count(upload, count)
        return True

    def _over_share(self, upload: Upload, count: int) -> bool:
        return upload.sender is not None and self._of_a_camera[upload.sender] + count > self._most_of_a_camera

    def _count(self, upload: Upload, count: int) -> None:
        upload.size += count
        self.size += count
        if upload.sender is not None:
            self._of_a_camera[upload.sender] += count
            if not self._of_a_camera[upload.sender]:
                del self._of_a_camera[upload.sender]
