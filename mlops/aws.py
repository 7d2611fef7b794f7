"""The clients of AWS: how long they wait, how often they try again, and what AWS's complaints mean."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import Any, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NotConnected

from mlops.errors import BadConfiguration, Damaged, MlopsError, NotFound, StorageFailed, Unreachable

PATIENCE = 2.0
"""Seconds to wait for a connection; an answer may take twice as long."""
TRIES = 3
PAUSE = 0.1
"""Seconds of the longest wait before a second try; it doubles with each."""
LONGEST = 300
"""Characters of what AWS says that are told."""

SILENT = (NotConnected, HTTPClientError, IncompleteReadError)
NOBODY = (
    CredentialRetrievalError, NoAuthTokenError, NoCredentialsError, PartialCredentialsError, SSOError,
    TokenRetrievalError,
)  # fmt: skip
DENIED = frozenset(
    {
        "403", "AccessDenied", "AccessDeniedException", "AccessForbidden", "AuthorizationError", "Forbidden",
        "KMS.AccessDeniedException", "UnauthorizedOperation",
    }
)  # fmt: skip
REFUSED = frozenset(
    {
        "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken",
        "RequestExpired", "SignatureDoesNotMatch", "UnrecognizedClientException",
    }
)  # fmt: skip
BUSY = frozenset(
    {
        "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled",
        "RequestThrottledException", "RequestTimeout", "SlowDown", "ThrottledException", "Throttling",
        "ThrottlingException", "TooManyRequestsException",
    }
)  # fmt: skip

T = TypeVar("T")

_making = Lock()


def client(
    service: str, place: str, region: str | None = None, patience: float = PATIENCE, answer: float = 2 * PATIENCE,
    tries: int = TRIES, connections: int = 10,
) -> Any:  # fmt: skip
    """Make a client of a service; `place` names in errors what it is for.

    It waits `patience` seconds for a connection and `answer` seconds for each piece of an answer, and tries `tries`
    times; between two tries it waits for a random while that grows. Raises `BadConfiguration` where there is no region.
    """
    # It takes a tenth of a second to import, and a platform on a laptop never needs it.
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=patience, read_timeout=answer, retries={"mode": "standard", "total_max_attempts": tries},
        max_pool_connections=connections,
    )  # fmt: skip
    try:
        # The session behind it may be used by one thread at a time; a client may be used by all.
        with _making:
            return boto3.client(service, region_name=region, config=config)  # type: ignore[call-overload]
    except NoRegionError:
        raise BadConfiguration(f"{place} is in no region; set AWS_DEFAULT_REGION") from None
    except (BotoCoreError, ValueError) as error:
        raise BadConfiguration(f"{place}: {_line(error)}") from None


def patiently(action: Callable[[], T], again: Callable[[Exception], bool], tries: int = TRIES) -> T:
    """Do something and return its result; do it again, after a random while that grows, where `again` says so.

    It is for what the clients themselves do not try again: an answer that breaks off, a conflict of two writers.
    """
    for number in range(1, tries):
        try:
            return action()
        except (ClientError, BotoCoreError) as error:
            if not again(error):
                raise
        time.sleep(random.uniform(0, PAUSE * 2**number))  # noqa: S311 - spreads tries, hides nothing
    return action()


@contextlib.contextmanager
def translated(place: str, gone: Mapping[str, str]) -> Iterator[None]:
    """Turn AWS's complaints about a place into ours, in one line; `gone` are the codes that mean `NotFound`."""
    try:
        yield
    except ClientError as error:
        raise _ours(place, error, gone) from None
    except NOBODY as error:
        way = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
        raise StorageFailed(f"{place}: there are no AWS credentials ({_line(error)}); {way}") from None
    except SILENT as error:
        raise Unreachable(f"{place} does not answer: {_line(error)}") from None
    except FlexibleChecksumError as error:
        raise Damaged(f"{place} arrives with other bytes than were sent: {_line(error)}; try again") from None
    except BotoCoreError as error:
        raise StorageFailed(f"{place}: {_line(error)}") from None


def code(error: Exception) -> str:
    """The short name of what AWS complains about; empty for what did not come from AWS."""
    return str(error.response["Error"].get("Code", "")) if isinstance(error, ClientError) else ""


def _ours(place: str, error: ClientError, gone: Mapping[str, str]) -> MlopsError:
    found, asked = code(error), error.operation_name
    if found in gone:
        return NotFound(gone[found])
    if found in DENIED:
        return StorageFailed(f"{place}: these credentials may not do {asked} ({found}); allow it in their policy")
    if found in REFUSED:
        return StorageFailed(f"{place}: AWS does not take these credentials ({found}); renew them")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if found in BUSY or status >= 500:
        return Unreachable(f"{place}: AWS was too busy for {asked} at every try ({found}); try again later")
    return StorageFailed(f"{place}: {found} {_line(error.response['Error'].get('Message', ''))}")


def _line(said: object) -> str:
    return " ".join(str(said).split())[:LONGEST]
