"""Settings: who is stronger than whom, and one clear line for whatever is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from mlops import settings
from mlops.errors import BadConfiguration
from mlops.settings import Platform
from mlops.values import SECONDS, Duration, Group, seconds


class Split(Group):
    train: Duration = "7d"
    rows: int = 1


class Settings(Group):
    platform: Platform = Field(default_factory=Platform)
    split: Split = Field(default_factory=Split)
    name: str


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tree = {
        "name": "base",
        "split": {"train": "1d", "rows": 1},
        "profiles": {"aws": {"name": "profile", "split": {"rows": 2}, "platform": {"objects": "s3://b"}}},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def read(file: Path, profile: str = "local", environ: dict[str, str] | None = None, **arguments: Any) -> Settings:
    return settings.read(Settings, file, profile, environ or {}, arguments)


def test_arguments_beat_the_environment_beats_the_profile_beats_the_base(file: Path) -> None:
    assert read(file).split.rows == 1
    assert read(file, "aws").split.rows == 2
    environ = {"MLOPS_SPLIT__ROWS": "3"}
    assert read(file, "aws", environ).split.rows == 3
    assert read(file, "aws", environ, split={"rows": 4}).split.rows == 4


def test_a_layer_replaces_only_what_it_names(file: Path) -> None:
    found = read(file, "aws")
    assert (found.name, found.split.train, found.platform.objects) == ("profile", "1d", "s3://b")
    assert found.platform.tracking == Platform().tracking


def test_variables_of_tests_are_no_settings(file: Path) -> None:
    assert read(file, environ={"MLOPS_TEST_REQUIRE_SERVICES": "1", "HOME": "/"}).name == "base"


def test_a_variable_finds_a_key_of_the_file_that_has_capitals(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\nlimits: {TX_AMOUNT: 1, Other: 2}")

    class Limited(Settings):
        limits: dict[str, int]

    environ = {"MLOPS_LIMITS__TX_AMOUNT": "5", "MLOPS_LIMITS__NEW": "6"}
    found = settings.read(Limited, tmp_path / "x.yaml", "local", environ)
    assert found.limits == {"TX_AMOUNT": 5, "Other": 2, "new": 6}


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({"MLOPS_SPLIT__ROW": "1"}, r"unknown key 'split.row' \(did you mean 'rows'\?\)"),
        ({"MLOPS_SPILT__ROWS": "1"}, r"unknown key 'spilt' \(did you mean 'split'\?\)"),
        ({"MLOPS_SPLIT__ROWS": "many"}, r"'split\.rows': Input should be a valid integer"),
        (
            {"MLOPS_SPLIT__TRAIN": "week"},
            r"'split\.train': 'week' is no length of time; write a number and s, m, h or d",
        ),
    ],
)
def test_a_wrong_variable_is_named(file: Path, environ: dict[str, str], complaint: str) -> None:
    with pytest.raises(BadConfiguration, match=complaint):
        read(file, environ=environ)


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("split: {rows: 2}")
    with pytest.raises(BadConfiguration, match=r"x\.yaml: 'name' is missing"):
        read(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("a: [", "is not YAML"), ("- a", "must hold a mapping"), ("", "must hold a mapping"), ("a: \xff", "is not YAML")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "x.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadConfiguration, match=complaint):
        read(tmp_path / "x.yaml")


def test_a_missing_file_and_an_unknown_profile_are_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"cannot read the configuration .*none\.yaml: No such file"):
        read(tmp_path / "none.yaml")
    with pytest.raises(BadConfiguration, match="has no profile 'moon'; it has: aws, local"):
        read(file, "moon")


def test_settings_cannot_be_changed_once_read(file: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read(file).split.rows = 5  # type: ignore[misc]


def test_every_variable_that_is_listed_sets_its_setting(file: Path) -> None:
    assert settings.variables(Settings) == [
        "MLOPS_PLATFORM__OBJECTS",
        "MLOPS_PLATFORM__ONLINE",
        "MLOPS_PLATFORM__JOURNAL",
        "MLOPS_PLATFORM__LEDGER",
        "MLOPS_PLATFORM__TRACKING",
        "MLOPS_PLATFORM__ARTIFACTS",
        "MLOPS_SPLIT__TRAIN",
        "MLOPS_SPLIT__ROWS",
        "MLOPS_NAME",
    ]
    found = read(file, environ={"MLOPS_PLATFORM__ARTIFACTS": "elsewhere", "MLOPS_NAME": "mine"})
    assert (found.platform.artifacts, found.name) == ("elsewhere", "mine")


@given(st.integers(0, 10_000), st.sampled_from(sorted(SECONDS)))
def test_a_length_of_time_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert seconds(f"{number}{unit}") == number * SECONDS[unit]


@given(st.text(max_size=6))
def test_anything_else_is_no_length_of_time(text: str) -> None:
    if text[:-1].isdecimal() and text[-1] in SECONDS:
        return
    with pytest.raises(ValueError, match="no length of time"):
        seconds(text)
