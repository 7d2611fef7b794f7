"""The Lambda door: records of a Kinesis stream in, decisions by the API or by a SageMaker endpoint; no model is inside.

This file is shipped alone and imports nothing of ours. An event that comes twice is decided once: a decision's id comes
from the id of its transaction, and the journal behind the scorer gives an id once and repeats its answer from then on.

It is configured by the environment: DEAD_LETTERS=s3://BUCKET[/PREFIX]; TARGET=api with API_URL=http(s)://HOST[:PORT]
and API_KEY, or API_KEY_SECRET with the name of a secret that holds the key; or TARGET=sagemaker with ENDPOINT_NAME.
"""

import base64
import json
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ssl import SSLError
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

MARGIN = 1.0
"""Seconds of the function's time that are kept for its own answer."""
PATIENCE = 10.0
"""Seconds that a scorer, a secret or a bucket may keep silent."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds: a pause before another try is at most the first, then at most twice as long each time."""
SHORTEST = 0.3
"""Seconds below which it is not worth trying again."""
KEY_AGE = 300.0
"""Seconds after which a key is read from its secret again."""
MAX_BATCH, MAX_BODY = 100, 262_144
"""Records and bytes that a call may have, as `serving.max_batch` and `serving.max_body` say."""
OPENING, CLOSING = b'{"transactions":[', b"]}"
POISON = (400, 409, 413, 422)

T = TypeVar("T")


class BadConfiguration(Exception):
    """A variable of the environment is missing or wrong."""


class Failed(Exception):
    """Something was not done, and not for a reason in the record; `again` tells whether to try it within this call."""

    def __init__(self, reason: str, again: bool = True) -> None:
        super().__init__(reason)
        self.again = again


class Refusal(NamedTuple):
    """Why a record, or a whole call, is not decided, as the scorer says it."""

    field: str | None
    reason: str
    status: int


Answer = bool | Refusal
"""Whether a decision had been made before; or why there is none."""


class Record(NamedTuple):
    """A record of a stream, and its refusal where it is known before anybody is asked."""

    stream: str
    shard: str
    sequence: str
    data: bytes
    refusal: Refusal | None


class Platform(NamedTuple):
    """What the function is connected to: who decides, and where dead letters go."""

    target: "Api | Endpoint"
    s3: Any
    bucket: str
    prefix: str


def handler(event: dict[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
    """Decide the records of a Kinesis event in order; name the first that is not done, from which AWS goes on.

    A record that the scorer refuses becomes a dead letter, and is done. Raises `BadConfiguration`.
    """
    began = time.monotonic()
    deadline = began + context.get_remaining_time_in_millis() / 1_000 - MARGIN
    records = [_read(one) for one in event["Records"]]
    work = Work(_connected(), deadline)
    reason = work.do(records)
    left = records[work.done.total() :]
    said = {name: work.done[name] for name in ("decided", "replayed", "dead_letters")}
    took = round((time.monotonic() - began) * 1_000)
    print(json.dumps({"records": len(records), **said, "failed": len(left), "milliseconds": took, "reason": reason}))
    return {"batchItemFailures": [{"itemIdentifier": record.sequence} for record in left[:1]]}


class Work:
    """The work of one call. Records are done strictly in order: what is `done` is always the beginning of them all."""

    def __init__(self, platform: Platform, deadline: float) -> None:
        self._platform, self._deadline = platform, deadline
        self.done: Counter[str] = Counter()

    def do(self, records: Sequence[Record]) -> str | None:
        """Do all records, or return what keeps the next one from being done."""
        try:
            for batch in _cut(records):
                self._decide(batch)
        except Failed as failed:
            return str(failed)
        return None

    def _decide(self, batch: Sequence[Record]) -> None:
        """Try until a batch is done or time is over."""
        pause = FIRST_PAUSE
        while batch:
            before = self.done.total()
            try:
                self._once(batch)
            except Failed as failed:
                if not failed.again:
                    raise
                self._wait(random.uniform(0, pause), str(failed))  # noqa: S311 - it spreads calls, it guards nothing
                pause = min(2 * pause, LONGEST_PAUSE)
            batch = batch[self.done.total() - before :]

    def _once(self, batch: Sequence[Record]) -> None:
        sent = [record.data for record in batch if record.refusal is None]
        answers = self._ask(sent) if sent else []
        if isinstance(answers, Refusal) and len(sent) > 1:
            # One of them spoils the body of all.
            half = len(batch) // 2
            self._decide(batch[:half])
            self._decide(batch[half:])
            return
        answered = iter([answers] if isinstance(answers, Refusal) else answers)
        for record in batch:
            self._settle(record, record.refusal or next(answered))

    def _ask(self, sent: Sequence[bytes]) -> Sequence[Answer] | Refusal:
        body = OPENING + b",".join(sent) + CLOSING
        status, said = self._within(lambda: self._platform.target.ask(body, self._left))
        return _understood(status, said, len(sent))

    def _settle(self, record: Record, answer: Answer) -> None:
        if isinstance(answer, bool):
            self.done["replayed" if answer else "decided"] += 1
        elif answer.status in POISON:
            self._bury(record, answer)
            self.done["dead_letters"] += 1
        else:
            raise _failed(answer.status, answer.reason)

    def _bury(self, record: Record, refusal: Refusal) -> None:
        """Keep a record, whole, for people to look at; the same record takes the same place again."""
        letter = {
            "stream": record.stream, "shard": record.shard, "sequence": record.sequence,
            "data": base64.b64encode(record.data).decode(), **refusal._asdict(), "at": time.time_ns() // 1_000,
        }  # fmt: skip
        _, s3, bucket, prefix = self._platform
        key = f"{prefix}monitoring/dead_letters/{record.stream}/{record.shard}/{record.sequence}.json"
        body = json.dumps(letter).encode()
        try:
            self._within(lambda: s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json"))
        except (BotoCoreError, ClientError) as error:
            raise Failed(f"s3://{bucket}/{key} could not be written: {_code(error)}", again=False) from None

    @property
    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _wait(self, pause: float, reason: str) -> None:
        if pause + SHORTEST >= self._left:
            raise Failed(reason, again=False)
        time.sleep(pause)

    def _within(self, call: Callable[[], T]) -> T:
        """Make a call and wait no longer than time is left, be it for a name, for a handshake or for one more byte."""
        if not self._left:
            raise Failed("no time is left", again=False)
        answer: Future[T] = Future()
        threading.Thread(target=_fill, args=(answer, call), daemon=True).start()
        try:
            return answer.result(self._left)
        except TimeoutError:
            raise Failed("no answer came while there was time", again=False) from None


class Api:
    """The API's `/predict/batch`, over a connection that is kept. `key` gives the key, on demand read anew."""

    def __init__(self, url: str, key: Callable[[bool], str]) -> None:
        self._url, self._key = urlsplit(url), key
        self._kept: HTTPConnection | None = None

    def ask(self, body: bytes, seconds: float) -> tuple[int, bytes]:
        """Send a batch; return status and body of the answer. Raises `Failed`."""
        key = self._key(False)
        status, said = self._send(body, key, seconds)
        if status == 401 and (other := self._key(True)) != key:
            return self._send(body, other, seconds)
        return status, said

    def _send(self, body: bytes, key: str, seconds: float) -> tuple[int, bytes]:
        kept, self._kept = self._kept, None
        kind = HTTPSConnection if self._url.scheme == "https" else HTTPConnection
        try:
            if kept is not None:
                # The other side lets idle connections go.
                with suppress(ConnectionError, HTTPException, SSLError):
                    return self._exchange(kept, body, key, seconds)
            return self._exchange(kind(self._url.hostname or "", self._url.port), body, key, seconds)
        except (OSError, HTTPException) as error:
            raise Failed(f"the API does not answer: {type(error).__name__}") from None

    def _exchange(self, connection: HTTPConnection, body: bytes, key: str, seconds: float) -> tuple[int, bytes]:
        connection.timeout = min(seconds, PATIENCE)
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        try:
            connection.request("POST", f"{self._url.path.rstrip('/')}/predict/batch", body, headers)
            response = connection.getresponse()
            said = response.read()
        except BaseException:
            connection.close()
            raise
        self._kept = connection
        return response.status, said


class Secret:
    """A key that is kept in Secrets Manager."""

    def __init__(self, name: str) -> None:
        self._name, self._manager = name, _client("secretsmanager")
        self._key, self._until = "", 0.0

    def __call__(self, anew: bool) -> str:
        """Give the key. Raises `Failed`."""
        if anew or time.monotonic() >= self._until:
            try:
                key = self._manager.get_secret_value(SecretId=self._name).get("SecretString", "").strip()
            except (BotoCoreError, ClientError) as error:
                raise Failed(f"the secret '{self._name}' could not be read: {_code(error)}") from None
            if not _is_key(key):
                raise Failed(f"the secret '{self._name}' holds no key; write one line of printable ASCII", again=False)
            self._key, self._until = key, time.monotonic() + KEY_AGE
        return self._key


class Endpoint:
    """A SageMaker endpoint, whose container answers `/invocations`."""

    def __init__(self, name: str) -> None:
        self._name, self._runtime = name, _client("sagemaker-runtime")

    def ask(self, body: bytes, _seconds: float) -> tuple[int, bytes]:
        """Send a batch; return status and body of the container's answer. Raises `Failed`."""
        try:
            answer = self._runtime.invoke_endpoint(EndpointName=self._name, ContentType="application/json", Body=body)
            return 200, answer["Body"].read()
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and _code(error) == "ModelError":
                response: Any = error.response
                return int(response["OriginalStatusCode"]), response["OriginalMessage"].encode()
            raise Failed(f"the endpoint '{self._name}' does not answer: {_code(error)}") from None


@cache
def _connected() -> Platform:
    """Connect what the environment names, once in the life of a process. Raises `BadConfiguration`."""
    bucket, prefix = _variable("DEAD_LETTERS", r"s3://([a-z0-9][a-z0-9.-]+)((?:/[^/]+)*)/?", "s3://BUCKET[/PREFIX]")
    if _variable("TARGET", "(api|sagemaker)", "api or sagemaker")[0] == "sagemaker":
        target: Api | Endpoint = Endpoint(_variable("ENDPOINT_NAME", "([a-zA-Z0-9-]{1,63})", "an endpoint's name")[0])
    else:
        address = r"(https?://(?:[\w.-]+|\[[\da-fA-F:]+\])(?::\d{1,5})?(?:/[\w./~-]*)?)"
        target = Api(_variable("API_URL", address, "https://HOST[:PORT]")[0], _key())
    return Platform(target, _client("s3"), bucket, f"{prefix}/".lstrip("/"))


def _key() -> Callable[[bool], str]:
    key, secret = os.environ.get("API_KEY", ""), os.environ.get("API_KEY_SECRET", "")
    if bool(key) == bool(secret):
        which = "both API_KEY and API_KEY_SECRET are" if key else "neither API_KEY nor API_KEY_SECRET is"
        raise BadConfiguration(f"{which} set; set one: a key, or the name of its secret")
    if secret:
        return Secret(secret)
    if not _is_key(key):
        raise BadConfiguration("API_KEY is no key; write one line of printable ASCII")
    return lambda _: key


def _variable(name: str, pattern: str, way_out: str) -> Sequence[str]:
    """Return the groups of a variable. Its value stays out of the error: a password may have slipped in."""
    found = re.fullmatch(pattern, os.environ.get(name, ""), re.ASCII)
    if found is None:
        what = "is not what it has to be" if os.environ.get(name) else "is not set"
        raise BadConfiguration(f"{name} {what}; write {way_out}")
    return found.groups()


def _is_key(text: str) -> bool:
    # Anything else would come back in the words of an error about a header.
    return re.fullmatch("[!-~]+", text) is not None


def _client(service: Any) -> Any:
    """A client that gives up soon; between its three tries it waits for a random while that grows."""
    retries = {"mode": "standard", "total_max_attempts": 3}
    config = Config(connect_timeout=2, read_timeout=PATIENCE, retries=retries)  # type: ignore[arg-type]
    return boto3.client(service, config=config)


def _code(error: BotoCoreError | ClientError) -> str:
    return str(error.response["Error"].get("Code")) if isinstance(error, ClientError) else type(error).__name__


def _fill(answer: Future[T], call: Callable[[], T]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:
        answer.set_exception(error)


def _read(one: dict[str, Any]) -> Record:
    stream = one["eventSourceARN"].partition(":stream/")[2].partition("/")[0]
    data = base64.b64decode(one["kinesis"]["data"])
    return Record(stream, one["eventID"].partition(":")[0], one["kinesis"]["sequenceNumber"], data, _refusal(data))


def _refusal(data: bytes) -> Refusal | None:
    """Refuse what is more than a call may carry, or could be more or less than one element of a list."""
    if len(OPENING) + len(data) + len(CLOSING) > MAX_BODY:
        return Refusal(None, f"the body has more than {MAX_BODY} bytes", 413)
    try:
        json.loads(data.decode(), parse_int=str, parse_float=str, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return Refusal(None, "the body is not one JSON object in UTF-8", 400)
    return None


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _cut(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Cut records, in order, into batches that a call may carry."""
    batch: list[Record] = []
    size = 0
    for record in records:
        more = 0 if record.refusal else len(record.data) + 1
        if batch and (len(batch) == MAX_BATCH or len(OPENING) + size + more + len(CLOSING) > MAX_BODY):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += more
    if batch:
        yield batch


def _understood(status: int, said: bytes, count: int) -> Sequence[Answer] | Refusal:
    """Read what was said of `count` records. Raises `Failed`, also for what a scorer would never say."""
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        document = json.loads(said)
        if status != 200:
            refusal = Refusal(document["error"]["field"], str(document["error"]["reason"]), status)
            if status in POISON:
                return refusal
            raise _failed(status, refusal.reason)
        if len(document["results"]) == count:
            return [_answer(one) for one in document["results"]]
    # A proxy, or another program at this address: no record may become a dead letter by its word.
    raise _failed(status, "is not the answer of a scorer")


def _answer(result: dict[str, Any]) -> Answer:
    if "error" not in result:
        return bool(result["replayed"])
    error = result["error"]
    return Refusal(error["field"], str(error["reason"]), int(error["status"]))


def _failed(status: int, reason: str) -> Failed:
    return Failed(f"{status} {reason}", again=status == 429 or status >= 500)
