"""Who runs a command, also where the machine does not know."""

import os

import pytest

from mlops import caller


def test_who_has_no_name_on_this_machine_is_called_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 10_077)
    assert caller.name() == "10077"
