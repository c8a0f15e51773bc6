"""Object stores by fsspec: opened in each process for itself, with errors that say what to do.

A file system of fsspec has its connections, and s3fs and gcsfs a thread with an event loop. None of it lives through a
fork: it is closed before one, and each process opens its own when it first needs it. No listing is kept.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.errors import ArtifactError, SettingsError

# Seconds, and tries of one request by the library itself; longer outages are [storage] tries and retry_delay.
CONNECT_SECONDS, READ_SECONDS, TRIES = 10, 60, 3
CLOSE_SECONDS = 5
_S3 = {
    "connect_timeout": CONNECT_SECONDS,
    "read_timeout": READ_SECONDS,
    "retries": {"mode": "standard", "total_max_attempts": TRIES},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"use_listings_cache": False, "config_kwargs": _S3},
    "s3a": {"use_listings_cache": False, "config_kwargs": _S3},
    "gs": {"use_listings_cache": False},
    "gcs": {"use_listings_cache": False},
}
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hdfs": "hdfs"}
# What the libraries call that there was no answer, or none to the end; botocore's are no OSError.
_NO_ANSWER = (
    "ConnectionError",
    "ConnectTimeoutError",
    "EndpointConnectionError",
    "HTTPClientError",
    "ClientError",  # aiohttp's; botocore's of that name has an answer
    "IncompleteRead",
    "ResponseParserError",
    "TimeoutError",
    "FSTimeoutError",
)
_BUSY = (409, 429, 500, 502, 503, 504)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")

_opened: dict[tuple[str, str], Any] = {}  # by scheme and host or bucket
_loop: list[tuple[Any, threading.Thread]] = []  # of this process, once it is needed


def filesystem(url: str) -> Any:
    """Return the file system of a URL, the same within a process; raises SettingsError where its library is missing."""
    import fsspec

    scheme, _, rest = url.partition("://")
    key = scheme, rest.partition("/")[0]
    if key not in _opened:
        try:
            kind = fsspec.get_filesystem_class(scheme)
            options = dict(OPTIONS.get(scheme, {}))
            if getattr(kind, "async_impl", False):
                options["loop"] = _event_loop()
            _opened[key] = kind(**kind._get_kwargs_from_urls(url), **options, skip_instance_cache=True)
        except ImportError as error:
            extra = EXTRAS.get(scheme)
            remedy = f"pip install 'tagladder[{extra}]'" if extra else "install it"
            raise SettingsError(f"{url}: needs a library that is not installed ({error}); {remedy}") from None
        except ValueError as error:
            raise SettingsError(f"{url}: {error}; there are s3://, gs://, hdfs:// and paths") from None
        except OSError as error:  # libhdfs says so when it is loaded
            raise SettingsError(f"{url}: cannot be opened ({error}); see README, Results on an object store") from None
    return _opened[key]


@contextmanager
def told(url: str, *, absent_passes: bool = False) -> Iterator[None]:
    """Turn what a library raises into an ArtifactError that says what to do; FileNotFoundError may pass.

    Of one that comes from a failure which may pass by itself the cause is an OSError that says so.
    """
    try:
        yield
    except (ArtifactError, SettingsError):
        raise
    except FileNotFoundError as error:
        if absent_passes:
            raise
        raise ArtifactError(f"{url}: there is no such bucket or object ({_words(error)}); make the bucket") from error
    except Exception as error:
        raise explained(url, error) from cause_of(error)


def explained(url: str, error: BaseException) -> ArtifactError:
    """Return what to say of a request that failed."""
    text = _words(error)
    if isinstance(error, PermissionError) or any(_is_a(each, _NO_CREDENTIALS) for each in _chain(error)):
        return ArtifactError(
            f"{url}: is refused ({text}); credentials come from the environment, a profile or a role, as the library "
            "of this store reads them, and need leave to list, read, write and delete there"
        )
    if isinstance(cause_of(error), OSError) and cause_of(error) is not error:
        return ArtifactError(f"{url}: there is no answer ({text}); run the same command again when there is")
    return ArtifactError(f"{url}: {text}; see README, Results on an object store")


def cause_of(error: BaseException) -> BaseException:
    """Return an OSError that tells of a failure which may pass by itself, else the error.

    >>> cause_of(TimeoutError()).errno == errno.ETIMEDOUT, cause_of(ValueError("x"))
    (True, ValueError('x'))
    """
    for each in _chain(error):
        status = status_of(each)
        if status in _BUSY or (status is None and _is_a(each, _NO_ANSWER)):
            return OSError(errno.ETIMEDOUT, _words(each))
    return error


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an answer that was an error, None where there was no answer (or no HTTP)."""
    for each in _chain(error):
        answer = getattr(each, "response", None)
        if isinstance(answer, dict):  # botocore
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return None if status is None else int(status)
        code = getattr(each, "status", None) or getattr(each, "code", None)
        if isinstance(code, int | str) and str(code).isdigit():  # aiohttp; gcsfs
            return int(code)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_a(error: BaseException, names: tuple[str, ...]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _words(error: BaseException) -> str:
    """Return what an error says, in one line that is not too long."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def _event_loop() -> Any:
    """Return the event loop of this process, which runs in a thread of its own."""
    if not _loop:
        import asyncio

        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="object store", daemon=True)
        thread.start()
        _loop.append((loop, thread))
    return _loop[0][0]


def close() -> None:
    """Close what this process has opened: connections, event loop and its thread. They are opened again when needed."""
    for loop, _ in _loop:
        for opened in _opened.values():
            _close_connections(opened, loop)
    _opened.clear()
    for loop, thread in _loop:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    _loop.clear()


def _close_connections(opened: Any, loop: Any) -> None:
    """Close the connections of s3fs or gcsfs, which have no function for it that waits."""
    import asyncio

    client, session = getattr(opened, "_s3creator", None), getattr(opened, "_session", None)
    with suppress(Exception):  # What cannot be closed ends with the process.
        if client is not None:
            asyncio.run_coroutine_threadsafe(client.__aexit__(None, None, None), loop).result(CLOSE_SECONDS)
        elif session is not None:
            asyncio.run_coroutine_threadsafe(session.close(), loop).result(CLOSE_SECONDS)


os.register_at_fork(before=close)
