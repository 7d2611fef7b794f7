"""Answers already given, near at hand: the journal holds every one, this remembers the latest; and their ids."""

import hashlib
from collections import OrderedDict


class Answers:
    """Journal bodies by key, the most recently used `most` of them."""

    def __init__(self, most: int) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._most = most

    def get(self, key: str) -> bytes | None:
        """Return the body that was kept under the key."""
        body = self._kept.get(key)
        if body is not None:
            self._kept.move_to_end(key)
        return body

    def put(self, key: str, body: bytes) -> None:
        """Keep a body, and forget the one that was used longest ago where there are too many."""
        self._kept[key] = body
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


def identify(module: str, what: bytes) -> bytes:
    """Return the id of a key's decision, or of a label: the same through every door. 16 bytes."""
    return hashlib.blake2b(what, digest_size=16, person=module.encode()[:16]).digest()
