"""Alerts: told once when something begins, once when it has ended, to everybody, whatever dies in between."""

import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path

import boto3
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from mlops import logs
from mlops.alerting import alarms, alerts, messages
from mlops.alerting.alarms import Alarms
from mlops.alerting.alerts import Alert, Alerting
from mlops.alerting.messages import Letter, Queue
from mlops.errors import BadConfiguration, BadData, BadInput, NotFound, StorageFailed, Unreachable
from mlops.journaling.ledger import Ledger
from tests.conftest import ROOT

NAME = "fraud_detection"
HOUR = 3_600_000_000
quickly = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.at = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.at


class Shelf:
    """A sink that keeps what it gets, and can be out of order."""

    def __init__(self, name: str = "shelf") -> None:
        self.url = f"{name}://"
        self.letters: list[Letter] = []
        self.broken: Exception | None = None

    def send(self, letter: Letter) -> None:
        if self.broken:
            raise self.broken
        self.letters.append(letter)

    @property
    def messages(self) -> list[list[Alert]]:
        return [alerts.read(letter.text) for letter in self.letters]

    @property
    def alerts(self) -> list[Alert]:
        return [alert for message in self.messages for alert in message]


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    opened = Ledger(database)
    yield opened
    opened.journal.verify()
    opened.close()


@pytest.fixture
def queue(bucket: str) -> str:
    """The URL of an empty queue; with the bucket comes an environment in which boto3 finds the server."""
    boto3.client("sqs").create_queue(QueueName=bucket)
    return f"sqs://{bucket}"


@pytest.fixture
def topic(queue: str) -> str:
    """The URL of a topic that the queue is subscribed to."""
    arn = boto3.client("sns").create_topic(Name=queue.removeprefix("sqs://"))["TopicArn"]
    subscribe(arn, queue)
    return f"sns://{arn}"


@pytest.fixture
def namespace(bucket: str) -> str:
    """The URL of an empty namespace of metrics."""
    return f"cloudwatch://{bucket}"


def measured(namespace: str, kind: str) -> tuple[int, float]:
    """How many values the metric of a kind has, and their sum."""
    now = datetime.now(UTC)
    points = boto3.client("cloudwatch").get_metric_statistics(
        Namespace=namespace.removeprefix("cloudwatch://"), MetricName="alerts", Period=60,
        Dimensions=[{"Name": "module", "Value": NAME}, {"Name": "kind", "Value": kind}],
        StartTime=now - timedelta(hours=1), EndTime=now + timedelta(hours=1), Statistics=["SampleCount", "Sum"],
    )["Datapoints"]  # fmt: skip
    return int(sum(point["SampleCount"] for point in points)), sum(point["Sum"] for point in points)


def subscribe(topic_arn: str, queue: str, **attributes: str) -> None:
    endpoint = topic_arn.replace(":sns:", ":sqs:").rpartition(":")[0] + ":" + queue.removeprefix("sqs://")
    boto3.client("sns").subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=endpoint, Attributes=attributes)


def told(ledger: Ledger) -> list[Alert]:
    """Every alert in the ledger, in its order."""
    return [alerts.decode(row.entry.body) for row in ledger.journal.since(0) if row.entry.kind == "alert"]


def taken(queue: str) -> list[str]:
    """Take everything out of a queue; the bodies."""
    found, opened = [], Queue(queue)
    while received := opened.receive(0):
        for one in received:
            found.append(one.body)
            opened.delete(one.receipt)
    return found


def unwrapped(bodies: list[str]) -> list[Alert]:
    return [alert for body in bodies for alert in alerts.read(json.loads(body)["Message"])]


class TestEpisodes:
    @quickly
    @given(looks=st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=40), calm=st.integers(1, 4))
    def test_an_episode_begins_once_and_ends_once_whoever_looks(
        self, ledger: Ledger, looks: list[tuple[int, bool]], calm: int
    ) -> None:
        """Against the law itself: raised at the first that fires, cleared at the last of `calm` that do not."""
        what = str(ledger.journal.head().count)
        both = [Alarms(ledger, NAME, [], Clock(), calm) for _ in range(2)]
        expected: list[str] = []
        still, said = None, []
        for who, firing in looks:
            still = 0 if firing else None if still is None or still + 1 == calm else still + 1
            state = "raised" if still is not None else "cleared"
            if state != (expected[-1] if expected else "cleared"):
                expected.append(state)
            if alert := both[who].say("drift", what, firing, "as it is"):
                said.append(alert)
        assert [alert.state for alert in said] == expected
        assert said == [alert for alert in told(ledger) if alert.what == what]
        assert [alert.episode for alert in said] == [1 + place // 2 for place in range(len(said))]
        for one in both:
            assert [alert.what == what for alert in one.open()].count(True) == len(expected) % 2

    def test_an_alert_says_everything_about_itself(self, ledger: Ledger) -> None:
        clock = Clock()
        opened = Alarms(ledger, NAME, [], clock, calm=1)
        values = {"amount": np.float32(0.25), "n": np.int64(7), "country": "größer", "nothing": float("nan")}
        raised = opened.say("drift", "amount", True, "PSI\nis 0.31", values, "s3://b/report.html", 3)
        clock.at += 1
        cleared = opened.say("drift", "amount", False, "PSI is 0.1")
        assert raised is not None
        assert cleared is not None
        kept, end = told(ledger)
        assert (kept.id, kept.title, kept.link, kept.version) == (raised.id, "PSI is 0.31", "s3://b/report.html", 3)
        assert kept.values == {"amount": 0.25, "n": 7.0, "country": "größer", "nothing": None}
        assert (kept.episode, end.episode, end.at - kept.at) == (1, 1, 1)
        assert end.id == cleared.id != raised.id
        assert ledger.journal.find(bytes.fromhex(kept.id)) is not None

    def test_things_and_modules_do_not_touch_each_other(self, ledger: Ledger) -> None:
        one, other = Alarms(ledger, NAME, [], Clock()), Alarms(ledger, "triage", [], Clock())
        for kind, what in (("drift", "a"), ("drift", "b"), ("latency", "a")):
            assert one.say(kind, what, True, "x") is not None
        assert other.open() == []
        assert other.say("drift", "a", True, "x") is not None
        assert [(alert.kind, alert.what) for alert in one.open()] == [("drift", "a"), ("drift", "b"), ("latency", "a")]
        assert len({alert.id for alert in told(ledger)}) == 4

    @pytest.mark.parametrize("word", ["", "two\nlines", "x" * 201, "\ud800"])
    def test_a_name_that_cannot_be_shown_is_refused(self, ledger: Ledger, word: str) -> None:
        opened = Alarms(ledger, NAME, [])
        for kind, what in ((word, "a"), ("drift", word)):
            with pytest.raises(BadInput, match="an alert cannot be of"):
                opened.say(kind, what, True, "x")

    def test_processes_that_find_the_same_make_one_alert_of_it(self, database: str) -> None:
        program = f"""
import sys
from mlops.alerting.alarms import Alarms
from mlops.journaling.ledger import Ledger
opened = Alarms(Ledger(sys.argv[1]), "{NAME}", [], calm=1)
print("ready", flush=True)
sys.stdin.readline()
said = 0
for number in range(40):
    said += opened.say("drift", str(number), True, "x") is not None
print(said, flush=True)
"""
        Ledger(database).close()
        running = [python(program, database) for _ in range(3)]
        for one in running:
            assert line_of(one) == "ready"
        for one in running:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        assert sum(int(one.communicate(timeout=120)[0]) for one in running) == 40
        opened = Ledger(database)
        assert sorted(int(alert.what) for alert in told(opened)) == list(range(40))
        opened.close()


class TestDelivery:
    def test_every_sink_gets_every_alert_once_in_order(self, ledger: Ledger) -> None:
        shelves = [Shelf("one"), Shelf("two")]
        both = [Alarms(ledger, NAME, shelves, Clock(), 1, 100) for _ in range(2)]
        for number in range(12):
            both[number % 2].say("drift", "a", number % 2 == 0, f"{number}")
            if number % 5 == 0:
                assert both[number % 3 % 2].deliver() == {}
        both[0].deliver()
        both[1].deliver()
        for shelf in shelves:
            assert [alert.title for alert in shelf.alerts] == [str(number) for number in range(12)]

    @pytest.mark.parametrize("error", [Unreachable("no answer"), TypeError("a bug")])
    def test_a_sink_that_fails_keeps_its_own_and_stops_no_other(self, ledger: Ledger, error: Exception) -> None:
        broken, whole = Shelf("broken"), Shelf("whole")
        broken.broken = error
        opened = Alarms(ledger, NAME, [broken, whole], Clock(), 1)
        for number in range(5):
            opened.say("drift", str(number), True, "x")
        assert opened.deliver() == {"broken://": str(error)}
        assert (len(broken.alerts), len(whole.alerts)) == (0, 5)
        broken.broken = None
        again = Alarms(ledger, NAME, [broken, whole], Clock(), 1)
        assert again.deliver() == {}
        assert broken.alerts == whole.alerts == told(ledger)

    def test_a_new_sink_hears_of_what_is_raised_from_then_on(self, ledger: Ledger) -> None:
        Alarms(ledger, NAME, [Shelf("old")], Clock()).say("drift", "before", True, "x")
        new = Shelf("new")
        Alarms(ledger, NAME, [new], Clock()).say("drift", "after", True, "x")
        Alarms(ledger, NAME, [new], Clock()).deliver()
        assert [alert.what for alert in new.alerts] == ["after"]

    def test_a_storm_becomes_a_few_messages_and_loses_nothing(self, ledger: Ledger) -> None:
        clock, shelf = Clock(), Shelf()
        opened = Alarms(ledger, NAME, [shelf], clock, calm=1, most=5)
        for number in range(60):
            opened.say("drift", f"feature {number}", True, "x")
        for number in range(6):
            opened.say("latency", "p99", number % 2 == 0, "x")
        opened.deliver()
        assert [len(message) for message in shelf.messages] == [1] * 5 + [61]
        line = shelf.letters[-1].line
        assert line.startswith(f"{NAME}: 58 alerts raised and 3 cleared: latency 'p99' (6), drift 'feature 5' (1), ")
        assert line.endswith(" and 46 more")
        assert shelf.letters[-1].attributes == {
            "name": [NAME], "kind": ["drift", "latency"], "state": ["cleared", "raised"],
        }  # fmt: skip
        opened.say("drift", "late", True, "x")
        clock.at += HOUR - 1
        opened.deliver()
        assert len(shelf.messages) == 6
        clock.at += 1
        opened.deliver()
        assert [len(message) for message in shelf.messages[6:]] == [1]
        assert shelf.alerts == told(ledger)

    def test_after_an_hour_messages_come_one_by_one_again(self, ledger: Ledger) -> None:
        """Also while what was gathered in between is not an hour old."""
        clock, shelf = Clock(), Shelf()
        begin, opened = clock.at, Alarms(ledger, NAME, [shelf], clock, most=2)
        for minute, raised in ((0, 2), (30, 3), (60, 2)):
            clock.at = begin + minute * HOUR // 60
            for number in range(raised):
                opened.say("drift", f"{minute} {number}", True, "x")
            opened.deliver()
        assert [len(message) for message in shelf.messages] == [1, 1, 3, 1, 1]

    @quickly
    @given(rounds=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6), st.booleans()), max_size=15))
    def test_no_hour_brings_more_than_was_allowed(self, ledger: Ledger, rounds: list[tuple[int, int, bool]]) -> None:
        """Minutes go by, alerts come, the sink works or not: few messages an hour, and at the end each alert once."""
        most, numbers = 3, count(ledger.journal.head().count)
        clock, shelf, sent = Clock(), Shelf(f"s{next(numbers)}"), []
        opened = Alarms(ledger, NAME, [shelf], clock, most=most)
        for minutes, raised, broken in [*rounds, (60, 0, False), (60, 0, False)]:
            clock.at += minutes * HOUR // 60
            shelf.broken = StorageFailed("full") if broken else None
            expected = [opened.say("drift", f"{shelf.url} {next(numbers)}", True, "x") for _ in range(raised)]
            assert None not in expected
            before = len(shelf.messages)
            opened.deliver()
            sent += [clock.at] * (len(shelf.messages) - before)
        for first, later in zip(sent, sent[most + 1 :], strict=False):
            assert later - first >= HOUR
        assert shelf.alerts == [alert for alert in told(ledger) if alert.what.startswith(shelf.url)]

    def test_a_gathering_that_is_too_long_comes_in_parts_that_a_queue_takes(self, ledger: Ledger, queue: str) -> None:
        opened = Alarms(ledger, NAME, [messages.connect(queue)], Clock(), most=1)
        for number in range(100):
            opened.say("drift", f"{number} {'ä' * 190}", True, "\N{GRINNING FACE}" * 500, {"x": "y" * 500}, "ü" * 500)
        assert opened.deliver() == {}
        found = [alerts.read(body) for body in taken(queue)]
        assert 3 < len(found) < 10
        assert sorted(alert.id for part in found for alert in part) == sorted(alert.id for alert in told(ledger))

    def test_values_for_which_there_is_no_room_stay_in_the_ledger(self, ledger: Ledger, queue: str) -> None:
        opened = Alarms(ledger, NAME, [messages.connect(queue)], Clock())
        opened.say("drift", "all", True, "x", {f"feature {number}": "y" * 1_000 for number in range(1_500)})
        assert opened.deliver() == {}
        (alert,) = alerts.read(taken(queue)[0])
        assert (alert.what, alert.values) == ("all", {})
        assert len(told(ledger)[0].values) == 1_500


class TestSinks:
    def test_a_message_reads_well_for_people_and_for_machines(self, ledger: Ledger, topic: str, queue: str) -> None:
        opened = Alarms(ledger, NAME, [messages.connect(topic)], Clock())
        said = opened.say("drift", "größe", True, "PSI\0is 0.31", {"größe": "\ufffe\x7f\x01"}, version=3)
        assert opened.deliver() == {}
        (body,) = taken(queue)
        envelope = json.loads(body)
        assert envelope["Subject"] == f"{NAME}: drift 'gr??e' raised: PSI is 0.31"
        line, nothing, *rest = envelope["Message"].split("\n")
        assert (line, nothing) == (f"{NAME}: drift 'größe' raised: PSI is 0.31", "")
        assert said is not None
        (read,) = json.loads("\n".join(rest))
        # What AWS refuses in a message is replaced.
        assert (read["id"], read["values"]) == (said.id, {"größe": "\ufffd\x7f\x01"})
        assert envelope["MessageAttributes"] == {
            name: {"Type": "String", "Value": value}
            for name, value in {"name": NAME, "kind": "drift", "state": "raised"}.items()
        }

    def test_a_filter_lets_through_what_it_names_and_what_gathers_it(self, ledger: Ledger, topic: str) -> None:
        arn, filtered = topic.removeprefix("sns://"), topic.rpartition(":")[2] + "-latency"
        boto3.client("sqs").create_queue(QueueName=filtered)
        policy = json.dumps({"name": [NAME], "kind": ["latency"]})
        subscribe(arn, filtered, FilterPolicy=policy)
        opened = Alarms(ledger, NAME, [messages.connect(topic)], Clock(), most=2)
        for number, kind in enumerate(["latency", "drift", "latency", "drift", "errors"]):
            opened.say(kind, str(number), True, "x")
        assert opened.deliver() == {}
        found = [alerts.read(json.loads(body)["Message"]) for body in taken(f"sqs://{filtered}")]
        assert [[alert.what for alert in message] for message in found] == [["0"], ["2", "3", "4"]]

    def test_what_a_dead_topic_did_not_take_arrives_in_order_when_it_lives(
        self, ledger: Ledger, topic: str, queue: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        opened = Alarms(ledger, NAME, [messages.connect(topic)], Clock(), most=100)
        opened.say("drift", "0", True, "x")
        assert opened.deliver() == {}
        server.stop()
        for number in range(1, 7):
            opened.say("drift", str(number), True, "x")
        (problem,) = opened.deliver().values()
        assert "does not answer" in problem
        revived = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        revived.start()
        assert opened.deliver() == {}
        assert [alert.what for alert in unwrapped(taken(queue))] == [str(number) for number in range(7)]
        revived.stop()

    def test_an_unknown_topic_or_queue_is_named_and_gets_all_once_it_is_there(self, ledger: Ledger, queue: str) -> None:
        name = queue.removeprefix("sqs://")
        urls = [f"sns://arn:aws:sns:us-east-1:123456789012:{name}", f"sqs://{name}-late"]
        opened = Alarms(ledger, NAME, [messages.connect(url) for url in urls], Clock())
        for number in range(3):
            opened.say("drift", str(number), True, "x")
        assert opened.deliver() == {
            url: f"there is no {url}; create it or correct its name in the settings" for url in urls
        }
        subscribe(boto3.client("sns").create_topic(Name=name)["TopicArn"], queue)
        boto3.client("sqs").create_queue(QueueName=f"{name}-late")
        assert opened.deliver() == {}
        assert unwrapped(taken(queue)) == told(ledger)
        assert [alerts.read(body) for body in taken(urls[1])] == [[alert] for alert in told(ledger)]

    def test_a_queue_can_be_named_by_its_arn(self, queue: str) -> None:
        arn = f"arn:aws:sqs:us-east-1:123456789012:{queue.removeprefix('sqs://')}"
        messages.connect(f"sqs://{arn}").send(Letter("line", "[]", {"name": [NAME]}))
        assert taken(queue) == ["line\n\n[]"]

    def test_the_log_is_a_sink(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        written = io.StringIO()
        monkeypatch.setattr(messages, "log", logs.start("alerts of a test", written))
        opened = alarms.connect(Alerting(), ledger, NAME, Clock())
        opened.say("errors", "predict", True, "5 in 100 failed")
        assert opened.deliver() == {}
        line = json.loads(written.getvalue())
        assert (line["level"], line["message"]) == ("warning", f"{NAME}: errors 'predict' raised: 5 in 100 failed")
        assert line["alerts"][0]["id"] == told(ledger)[0].id

    @pytest.mark.parametrize(
        "url",
        [
            "", "log", "log://x", "sns://topic", "sqs://", "sqs://a b", "sqs://https://x/y", "sns://arn:aws:sqs:x", "x",
            "cloudwatch://", "cloudwatch://a b", "cloudwatch://AWS/EC2", "cloudwatch://:x", "cloudwatch://größe",
        ],
    )  # fmt: skip
    def test_a_url_that_names_no_sink_is_refused(self, url: str) -> None:
        with pytest.raises(BadConfiguration, match=r"write .*(sns|sqs|cloudwatch)://"):
            messages.connect(url)

    def test_a_metric_is_1_from_the_alert_on_and_0_after_its_end(self, ledger: Ledger, namespace: str) -> None:
        opened = Alarms(ledger, NAME, [messages.connect(namespace)], Clock(), calm=1)
        opened.say("drift", "data", True, "PSI is 0.31")
        assert opened.deliver() == {}
        assert measured(namespace, "drift") == (1, 1)
        opened.say("drift", "data", False, "PSI is 0.01")
        assert opened.deliver() == {}
        assert measured(namespace, "drift") == (2, 1)
        assert measured(namespace, "latency") == (0, 0)

    def test_a_gathering_puts_the_latest_of_each_kind(self, ledger: Ledger, namespace: str) -> None:
        opened = Alarms(ledger, NAME, [messages.connect(namespace)], Clock(), calm=1, most=0)
        # One thing has ended and another has not; a kind that came and went; a kind that cannot be written as it is.
        for kind, what, firing in (
            ("drift", "a", True), ("drift", "b", True), ("drift", "b", False), ("latency", "a", True),
            ("latency", "a", False), ("größe", "a", True),
        ):  # fmt: skip
            opened.say(kind, what, firing, "x")
        assert opened.deliver() == {}
        assert [measured(namespace, kind) for kind in ("drift", "latency", "gr??e")] == [(1, 1), (1, 0), (1, 1)]

    def test_what_a_dead_metric_did_not_take_is_put_when_it_lives(
        self, ledger: Ledger, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        living = os.environ["AWS_ENDPOINT_URL"]
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        dead = Alarms(ledger, NAME, [messages.connect(namespace)], Clock())
        dead.say("drift", "data", True, "x")
        assert f"{namespace} does not answer: " in dead.deliver()[namespace]
        monkeypatch.setenv("AWS_ENDPOINT_URL", living)
        assert Alarms(ledger, NAME, [messages.connect(namespace)], Clock()).deliver() == {}
        assert measured(namespace, "drift") == (1, 1)

    def test_a_queue_in_no_region_is_told_at_the_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
        with pytest.raises(BadConfiguration, match="sqs://alerts is in no region"):
            messages.connect("sqs://alerts")

    def test_what_aws_refuses_is_told_as_ours(self, queue: str) -> None:
        with pytest.raises(StorageFailed, match=f"{queue}: "):
            Queue(queue).delete("no receipt")
        with pytest.raises(NotFound, match="there is no sqs://nobody"):
            Queue("sqs://nobody").receive(0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "line\n\n",
        "line\n\n[]",
        "line\n\n{}",
        'line\n\n[{"name": "x"}]',
        'line\n\n[{"values": {"a": ' + "[" * 100_000,
        "a\n\n\ud800",
    ],
    ids=["empty", "prose", "no JSON", "no alert", "no list", "half", "deep", "surrogate"],
)
def test_what_is_no_message_of_alerts_is_refused(text: str) -> None:
    with pytest.raises(BadData, match="this is no message of alerts"):
        alerts.read(text)


def test_an_alert_with_a_wrong_id_is_refused(ledger: Ledger) -> None:
    opened = Alarms(ledger, NAME, [])
    said = opened.say("drift", "a", True, "x")
    assert said is not None
    text = alerts.letter([said]).text
    assert alerts.read(text) == [said]
    for wrong in ("", "zz" * 16, said.id[:-2]):
        with pytest.raises(BadData, match="this is no message of alerts"):
            alerts.read(text.replace(said.id, wrong))


class TestKilled:
    def test_one_killed_before_or_after_any_message_loses_none(self, database: str, tmp_path: Path) -> None:
        """It ends at every place in turn: raised and not sent, sent and not written down, in the middle of a list."""
        program = f"""
import os, signal, sys
from mlops.alerting.alarms import Alarms
from mlops.journaling.ledger import Ledger

class File:
    url = "file://"
    left = int(sys.argv[3])

    def send(self, letter):
        self.fall()
        with open(sys.argv[2], "a") as file:
            file.write(letter.text.replace("\\n", " ") + "\\n")
        self.fall()

    def fall(self):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

opened = Alarms(Ledger(sys.argv[1]), "{NAME}", [File()], calm=1, most=1000)
for number in range(6):
    opened.say("drift", str(number), True, "x")
opened.deliver()
"""
        for fall in (0, 1, 2, 5, 0, 1, 4, 100):
            running = python(program, database, str(tmp_path / "sent"), str(fall))
            running.communicate(timeout=60)
            assert running.returncode == (0 if fall == 100 else -signal.SIGKILL)
        lines = (tmp_path / "sent").read_text().splitlines()
        found = [json.loads(line[line.index("[") :])[0] for line in lines]
        # In order, and again only what was sent by one that fell before it wrote that down: three times.
        assert [int(one["what"]) for one in found] == [0, 0, 1, 2, 3, 3, 3, 4, 5]
        opened = Ledger(database)
        assert list(dict.fromkeys(one["id"] for one in found)) == [alert.id for alert in told(opened)]
        assert opened.verify().count == 1 + 6 + 6
        opened.close()

    def test_however_often_it_is_killed_the_queue_gets_all(self, database: str, queue: str) -> None:
        """Six processes raise and deliver without end and are killed at any moment; a last one delivers the rest."""
        program = f"""
import sys
from mlops.alerting import messages
from mlops.alerting.alarms import Alarms
from mlops.journaling.ledger import Ledger
opened = Alarms(Ledger(sys.argv[1]), "{NAME}", [messages.connect(sys.argv[2])], calm=1, most=10**9)
number = 0
while True:
    for place in range(3):
        opened.say("drift", f"{{place}}", number % 2 == 0, f"{{number}}")
    print(opened.deliver(), flush=True)
    number += 1
"""
        draw = random.Random(5)
        for _ in range(6):
            running = python(program, database, queue)
            for _ in range(draw.randrange(1, 8)):
                assert line_of(running) == "{}"
            running.send_signal(signal.SIGKILL)
            running.communicate(timeout=60)
        opened = Ledger(database)
        assert Alarms(opened, NAME, [messages.connect(queue)], most=10**9).deliver() == {}
        raised, found = told(opened), [alert for body in taken(queue) for alert in alerts.read(body)]
        assert {alert.id for alert in found} == {alert.id for alert in raised}
        assert len({alert.id for alert in raised}) == len(raised) <= len(found) <= len(raised) + 6
        for place in range(3):
            states = [alert.state for alert in raised if alert.what == str(place)]
            assert states[0] == "raised"
            assert all(one != other for one, other in pairwise(states))
        opened.verify()
        opened.close()


def python(program: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line_of(running: "subprocess.Popen[str]") -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()
