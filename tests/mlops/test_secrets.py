"""Secrets: where they come from, when they are read again, and that nobody sees them."""

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import psycopg
import pytest
from sqlalchemy.engine import make_url

from mlops.errors import BadConfiguration, MlopsError, NotFound, StorageFailed, Unreachable
from mlops.journaling import journal
from mlops.journaling.group_commit import GroupCommit
from mlops.journaling.journal import Entry
from mlops.releasing import tracking
from mlops.secrets import KEPT, PAUSE, Secrets, variable
from tests.between import Answer, Asked, Between, Forward

VALUE = "redis://:hunter2-with-umlaut-ü@10.0.0.7:6379/0"


class Clock:
    """A clock that goes on when it is told to."""

    at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def name(bucket: str) -> str:
    """The name of a secret of the test's own, which is not there yet."""
    return f"mlops/{bucket}"


def put(name: str, text: str) -> None:
    """Put a secret, or another value into it."""
    manager = boto3.client("secretsmanager")
    try:
        manager.create_secret(Name=name, SecretString=text)
    except manager.exceptions.ResourceExistsException:
        manager.put_secret_value(SecretId=name, SecretString=text)


def denied(_: Asked, __: Forward) -> Answer:
    body = json.dumps({"__type": "AccessDeniedException", "Message": "not you"}).encode()
    return Answer(400, {"Content-Type": "application/x-amz-json-1.1", "Content-Length": str(len(body))}, body)


def broken(_: Asked, __: Forward) -> None:
    """The connection breaks off."""


class TestWhereFrom:
    def test_a_secret_comes_from_secrets_manager(self, name: str) -> None:
        put(name, f"{VALUE}\n")
        assert Secrets({}).get(name) == VALUE

    def test_the_environment_stands_above_it(self, name: str) -> None:
        put(name, VALUE)
        assert Secrets({variable(name): "redis://elsewhere"}).get(name) == "redis://elsewhere"
        assert Secrets({variable(name): " "}).get(name) == VALUE

    def test_the_variable_cannot_be_taken_for_a_setting(self) -> None:
        assert variable("mlops/redis-url") == "SECRET_MLOPS_REDIS_URL"
        assert not variable("mlops/redis-url").startswith("MLOPS_")

    def test_a_url_stands_for_itself_or_for_a_secret(self, name: str) -> None:
        put(name, VALUE)
        assert Secrets({}).resolve("redis://h:1/0") == "redis://h:1/0"
        assert Secrets({}).resolve(f"secret://{name}") == VALUE

    def test_a_field_of_a_secret_that_is_json_is_taken(self, name: str) -> None:
        put(name, json.dumps({"url": VALUE, "port": 5432}))
        assert Secrets({}).resolve(f"secret://{name}#url") == VALUE
        assert Secrets({variable(name): '{"url": "x"}'}).resolve(f"secret://{name}#url") == "x"


class TestWhenAgain:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def kept(self, name: str, between: Between, clock: Clock) -> Secrets:
        """Secrets that have read theirs once."""
        put(name, "first")
        between.passed.clear()
        found = Secrets({}, clock)
        assert found.get(name) == "first"
        return found

    def test_it_is_read_once_while_it_is_kept(self, kept: Secrets, name: str, between: Between, clock: Clock) -> None:
        put(name, "second")
        asked = len(between.passed)
        clock.at = KEPT - 1
        assert kept.get(name) == "first"
        assert len(between.passed) == asked

    def test_it_is_read_again_after_a_while(self, kept: Secrets, name: str, clock: Clock) -> None:
        put(name, "second")
        clock.at = KEPT
        assert kept.get(name) == "second"

    def test_one_that_is_refused_is_read_again_at_once(self, kept: Secrets, name: str, clock: Clock) -> None:
        put(name, "second")
        clock.at = PAUSE
        kept.refused(name)
        assert kept.get(name) == "second"

    def test_one_that_is_refused_again_and_again_is_read_now_and_then(
        self, kept: Secrets, name: str, between: Between, clock: Clock
    ) -> None:
        for _ in range(100):
            clock.at += PAUSE / 10
            kept.refused(name)
            assert kept.get(name) == "first"
        assert len(between.passed) <= 1 + 10

    @pytest.mark.parametrize("deed", [broken, denied])
    def test_where_it_cannot_be_read_again_it_goes_on_to_count(
        self, kept: Secrets, name: str, between: Between, clock: Clock, deed: Callable[..., None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        between.plan("POST", deed, times=99)
        clock.at = KEPT
        assert [kept.get(name), kept.get(name)] == ["first", "first"]
        (record,) = [record for record in caplog.records if record.name == "secrets"]
        assert (record.levelno, record.secret) == (logging.WARNING, name)  # type: ignore[attr-defined]
        asked = len(between.passed)
        clock.at = KEPT + PAUSE
        assert kept.get(name) == "first"
        assert len(between.passed) > asked

    def test_one_that_was_taken_away_is_told(self, kept: Secrets, name: str, clock: Clock) -> None:
        boto3.client("secretsmanager").delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        clock.at = KEPT
        with pytest.raises(NotFound, match=f"there is no secret '{name}'"):
            kept.get(name)

    def test_many_that_ask_at_once_ask_once(self, name: str, between: Between) -> None:
        put(name, "first")
        between.passed.clear()
        found, ready, got = Secrets({}), threading.Barrier(8), list[str]()

        def ask() -> None:
            ready.wait()
            got.append(found.get(name))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (got, len(between.passed)) == (["first"] * 8, 1)


class TestComplaints:
    """Each in one line that names the secret and how to put it, and never shows it."""

    def test_a_missing_one(self, name: str) -> None:
        way = f"put it: aws secretsmanager create-secret --name {name} --secret-string VALUE, or set {variable(name)}"
        with pytest.raises(NotFound, match=f"there is no secret '{name}'; {way}"):
            Secrets({}).get(name)

    def test_one_that_has_no_value_yet(self, name: str) -> None:
        boto3.client("secretsmanager").create_secret(Name=name)
        with pytest.raises(NotFound, match=f"there is no secret '{name}'"):
            Secrets({}).get(name)

    @pytest.mark.parametrize("value", [{"SecretString": " \n"}, {"SecretBinary": b"\x00"}])
    def test_one_without_text(self, name: str, value: dict[str, object]) -> None:
        boto3.client("secretsmanager").create_secret(Name=name, **value)  # type: ignore[arg-type]
        way = f"put it: aws secretsmanager put-secret-value --secret-id {name} --secret-string VALUE"
        with pytest.raises(BadConfiguration, match=f"secret '{name}' holds no text; {way}"):
            Secrets({}).get(name)

    def test_one_that_is_denied(self, name: str, between: Between) -> None:
        between.plan("POST", denied)
        with pytest.raises(StorageFailed, match=f"secret '{name}': these credentials may not do GetSecretValue"):
            Secrets({}).get(name)

    def test_one_that_cannot_be_asked_for(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(Unreachable, match=f"secret '{name}' does not answer: Could not connect"):
            Secrets({}).get(name)

    def test_one_in_no_region(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable_ in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
            monkeypatch.delenv(variable_, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
        with pytest.raises(BadConfiguration, match=f"secret '{name}' is in no region; set AWS_DEFAULT_REGION"):
            Secrets({}).get(name)

    @pytest.mark.parametrize(
        "text", ["hunter2", "[]", '{"user": "hunter2"}', '{"url": 7}', '{"url": ""}', "[" * 99_999]
    )
    def test_one_without_the_field(self, name: str, text: str) -> None:
        complaint = f"secret '{name}' is no JSON object with a text in 'url'; correct it or the setting"
        with pytest.raises(BadConfiguration) as caught:
            Secrets({variable(name): text}).resolve(f"secret://{name}#url")
        assert str(caught.value) == complaint

    @pytest.mark.parametrize("url", ["secret://", "secret://#url", "secret://a b", "secret://größe"])
    def test_a_url_that_names_none(self, url: str) -> None:
        with pytest.raises(BadConfiguration, match="names no secret; write secret://NAME or secret://NAME#FIELD"):
            Secrets({}).resolve(url)


class TestNobodySees:
    def test_what_holds_secrets_does_not_show_them(self, name: str) -> None:
        put(name, VALUE)
        found = Secrets({})
        found.get(name)
        assert "hunter2" not in f"{found!r} {found} {found._held!r} {found._held}"

    def test_a_text_is_told_without_them(self) -> None:
        found = Secrets({"SECRET_A": f'{{"url": "{VALUE}"}}', "SECRET_B": "10.0.0.7"})
        for url in ("secret://a#url", "secret://b", "plain"):
            found.resolve(url)
        assert found.hidden(f"cannot ask {VALUE}/api at 10.0.0.7") == "cannot ask secret://a#url/api at secret://b"

    def test_mlflows_complaints_do_not_show_where_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET_MLFLOW", "http://user:hunter2@127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(Unreachable, match="secret://mlflow") as caught:
            tracking.connect("secret://mlflow", "")
        assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"

    @pytest.mark.parametrize("text", ["mysql://user:hunter2@h/db", "hunter2", "sqlite://hunter2"])
    def test_a_database_that_is_none_is_refused_and_not_shown(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("SECRET_DATABASE", text)
        with pytest.raises(BadConfiguration, match="is no database's URL") as caught:
            journal.connect("secret://database")
        assert "hunter2" not in str(caught.value)


def entry(number: int) -> Entry:
    return Entry("x", number.to_bytes(16, "big"), b"{}", number)


class TestDatabases:
    def test_a_journal_is_found_through_a_secret_also_by_the_process_that_writes(
        self, tmp_path: Path, name: str
    ) -> None:
        put(name, json.dumps({"url": f"sqlite:///{tmp_path}/named.db"}))
        url = f"secret://{name}#url"

        async def write() -> None:
            group = GroupCommit(url)
            await group.keep([entry(1)])
            await group.close()

        asyncio.run(write())
        assert journal.connect(f"sqlite:///{tmp_path}/named.db").head().count == 1

    def test_a_server_whose_user_was_changed_is_reached_with_the_new_one(
        self, postgres: Callable[[], str], name: str
    ) -> None:
        url = make_url(postgres())
        users = [f"user_{'ab'[number]}_{os.getpid()}" for number in range(2)]
        admin = psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)
        for user in users:
            admin.execute(f"CREATE ROLE {user} LOGIN SUPERUSER")
        put(name, url.set(username=users[0]).render_as_string(hide_password=False))
        opened = journal.connect(f"secret://{name}")
        opened.append([entry(1)])
        admin.execute(f"ALTER ROLE {users[0]} NOLOGIN")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [users[0]])
        with pytest.raises(MlopsError, match="not permitted to log in"):
            opened.append([entry(2)])
        put(name, url.set(username=users[1]).render_as_string(hide_password=False))
        deadline = time.monotonic() + 20
        while not appended(opened, entry(2)):
            assert time.monotonic() < deadline, "the new user was never tried"
        assert [row.entry for row in opened.since(0)] == [entry(1), entry(2)]
        opened.close()
        for user in users:
            admin.execute(f"REASSIGN OWNED BY {user} TO CURRENT_USER")
            admin.execute(f"DROP ROLE {user}")
        admin.close()


def appended(opened: journal.Journal, one: Entry) -> bool:
    try:
        return opened.append([one])[0].row.entry == one
    except MlopsError:
        return False
