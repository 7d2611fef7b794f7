"""What a decision of this module is about, in words: a complaint comes in, and later which product it was about."""

import msgspec

from mlops.contract import Record, Told
from mlops.serving import bodies
from mlops.serving.bodies import NAME, NUMBERED, moment
from mlops.serving.deciding import Nouns
from modules.complaint_triage.src.predictor import SAID

NOUNS = Nouns("complaint", "complaints", "complaint_id", "product")


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """Which product a complaint turned out to be about, and since when that is known; without a time, from now on."""

    complaint_id: NAME | NUMBERED
    product: NAME
    known_at: str | None = None


decode = msgspec.json.Decoder(Feedback).decode


def read_told(body: bytes) -> Told:
    """Read what somebody says of the truth; its label is 1 where the complaint was misrouted. Raises `Refused`."""
    given = bodies.read(decode, body, Feedback.__struct_fields__)

    def misrouted(record: Record) -> int:
        return int(record.said[SAID] != given.product)

    known_at = None if given.known_at is None else moment(given.known_at, "known_at")
    return Told(str(given.complaint_id), misrouted, known_at, given.product)
