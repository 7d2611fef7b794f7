"""Which versions answer, and every way in which that may change: pure steps from one state of traffic to the next."""

import hashlib
from typing import Literal

import msgspec
from msgspec.structs import replace

from mlops.errors import BadInput

PRODUCTION, SHADOW, CANARY, CHALLENGER = "production", "shadow", "canary", "challenger"
Mode = Literal["production", "shadow", "canary", "ab"]
ARMS: dict[Mode, str] = {"shadow": SHADOW, "canary": CANARY, "ab": CHALLENGER}
"""What the candidate is called in each mode."""
STEPS = 2**64


class Traffic(msgspec.Struct, frozen=True):
    """Production answers; in the modes `canary` and `ab` a candidate answers the share `weight` (0 to 1) of entities.

    In the mode `shadow` the candidate only watches. A canary is on trial and is judged; an A/B test runs until a person
    ends it. `previous` is the way back.
    """

    production: int
    previous: int | None = None
    mode: Mode = "production"
    candidate: int | None = None
    weight: float = 0.0

    @property
    def answering(self) -> int | None:
        """The candidate, where it answers."""
        return self.candidate if self.mode in ("canary", "ab") else None

    @property
    def arms(self) -> dict[str, int]:
        """The version of each arm, and of the way back."""
        arms = {PRODUCTION: self.production}
        if self.candidate is not None:
            arms[ARMS[self.mode]] = self.candidate
        return arms | ({"previous": self.previous} if self.previous is not None else {})


def dealt(traffic: Traffic, key: str, salt: str = "") -> str:
    """The arm of a key: the same for the same key, traffic and salt, in every worker.

    A key's place between 0 and 1 depends on the candidate's number too; those below the weight meet it, so raising the
    weight moves nobody back. Another salt deals the keys anew.
    """
    if traffic.answering is None or traffic.weight <= 0:
        return PRODUCTION
    told = f"{salt}\0{traffic.candidate}\0{key}"
    place = int.from_bytes(hashlib.blake2b(told.encode(), digest_size=8).digest()) / STEPS
    return ARMS[traffic.mode] if place < traffic.weight else PRODUCTION


def promoted(traffic: Traffic | None, version: int) -> Traffic:
    """Let a version answer all. Raises `BadInput` where it does already."""
    if traffic is None:
        return Traffic(version)
    if traffic.production == version:
        raise BadInput(f"version {version} is in production already")
    return Traffic(version, previous=traffic.production)


def on_trial(traffic: Traffic | None, version: int, mode: Mode, weight: float = 0.0) -> Traffic:
    """Let a version answer a share beside production, or watch in the shadow. Raises `BadInput`."""
    if traffic is None:
        raise BadInput(f"nothing is in production that version {version} could stand beside; promote one first")
    if traffic.production == version:
        raise BadInput(f"version {version} is in production; a trial needs another one")
    if not 0 <= weight <= 1:
        raise BadInput(f"weight {weight} is no share; write a number from 0 to 1, such as 0.05")
    return replace(traffic, mode=mode, candidate=version, weight=weight)


def back(traffic: Traffic | None) -> Traffic:
    """End a trial where there is one; otherwise let the previous version answer again. Raises `BadInput`."""
    if traffic is not None and traffic.candidate is not None:
        return Traffic(traffic.production, traffic.previous)
    if traffic is None or traffic.previous is None:
        raise BadInput("there is no way back: no trial runs and no previous version is known; name one: --version N")
    return Traffic(traffic.previous)
