"""What a decision of this module is about, in words: a transaction comes in, and later whether it was fraud."""

from typing import Annotated

import msgspec
from msgspec import Meta

from mlops.contract import Told
from mlops.serving import bodies
from mlops.serving.bodies import NAME, NUMBERED, moment
from mlops.serving.deciding import Nouns
from modules.fraud_detection import program

NOUNS = Nouns("transaction", "transactions", "transaction_id", "is_fraud")


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """What the truth about a transaction turned out to be, and since when it is known; without a time, from now on."""

    transaction_id: NAME | NUMBERED
    is_fraud: bool | Annotated[int, Meta(ge=0, le=1)]
    known_at: str | None = None


decode = msgspec.json.Decoder(Feedback).decode


def read_told(body: bytes) -> Told:
    """Read what somebody says of the truth. Raises `Refused`."""
    given = bodies.read(decode, body, Feedback.__struct_fields__)
    known_at = None if given.known_at is None else moment(given.known_at, "known_at")
    return Told(str(given.transaction_id), int(given.is_fraud), known_at)


if __name__ == "__main__":
    program.run("serve")
