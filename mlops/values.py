"""The two kinds of value that every configuration is made of: frozen groups and lengths of time."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Group(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def seconds(length: str) -> int:
    """Read a length of time such as `90s`, `30m`, `12h` or `7d` as whole seconds."""
    match = re.fullmatch(r"(\d+)([smhd])", length)
    if match is None:
        raise ValueError(f"'{length}' is no length of time; write a number and s, m, h or d, such as 7d")
    return int(match[1]) * SECONDS[match[2]]


def _checked(length: str) -> str:
    seconds(length)
    return length


Duration = Annotated[str, AfterValidator(_checked)]
