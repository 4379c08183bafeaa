"""Bytes of a file where it lies: on disk, behind http(s), or in an object store that fsspec knows (s3://, gs://, ...).

Reads are ranges (RFC 9110, section 14), so that one sample of a shard costs one request. http has a time limit and
retries of its own; for object stores fsspec's package of that store has them.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import fsspec

from las.data.download import Interrupted, refusal
from las.errors import UserError

TIMEOUT = 30.0  # s without a byte
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # s before each retry
PIECE = 1 << 23  # bytes fetched at once for the cache
ERRORS_OF_STORES = (
    ("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"), ("azure.core.exceptions", "AzureError"), ("aiohttp", "ClientError"),
)  # fmt: skip


def is_remote(place: str) -> bool:
    """Whether a place is an address and no path.

    >>> is_remote("https://host/shards"), is_remote("data/shards")
    (True, False)
    """
    return "://" in place


def join(root: str, name: str) -> str:
    """The place of a file in a folder."""
    return f"{root.rstrip('/')}/{name}" if is_remote(root) else os.path.join(root, name)


def read(place: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`, fewer where the file ends. Raises `UserError` where they cannot be had."""
    if place.startswith(("http://", "https://")):
        return _patiently(place, {"Range": f"bytes={offset}-{offset + size - 1}"}, size)
    if is_remote(place):
        return _from_object_store(place, offset, size)
    try:
        with open(place, "rb", buffering=0) as file:
            return os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise UserError(f"{place}: cannot read: {error.strerror}") from error


def read_whole(place: str) -> bytes:
    """All of a small file. Raises `UserError`, for a local file that is not there FileNotFoundError."""
    if place.startswith(("http://", "https://")):
        return _patiently(place, {}, None)
    return _from_object_store(place, 0, None) if is_remote(place) else Path(place).read_bytes()


def keep(place: str, size: int, sha256: str, cache: Path) -> str:
    """The path of a local copy of a remote file, fetched at the first call; several processes may ask at once.

    Raises `UserError` as `read` does, and where what comes has another SHA-256.
    """
    path = cache / f"{sha256}.tar"
    if path.is_file():
        return str(path)
    cache.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():  # nobody fetched it while we waited
            _fetch(place, size, sha256, path)
    return str(path)


def digest(place: str, size: int) -> str:
    """SHA-256 of a file of `size` bytes."""
    found = hashlib.sha256()
    for piece in _pieces(place, size):
        found.update(piece)
    return found.hexdigest()


def _pieces(place: str, size: int) -> Iterator[bytes]:
    for offset in range(0, size, PIECE):
        yield read(place, offset, min(PIECE, size - offset))


def _fetch(place: str, size: int, sha256: str, path: Path) -> None:
    part = path.with_suffix(".part")
    found = hashlib.sha256()
    try:
        with open(part, "wb") as file:
            for piece in _pieces(place, size):
                found.update(piece)
                file.write(piece)
        if found.hexdigest() != sha256:
            raise UserError(f"{place}: SHA-256 {found.hexdigest()}, but the index says {sha256}; it is damaged there")
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{part}: cannot write the cache: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _patiently(url: str, headers: dict[str, str], size: int | None) -> bytes:
    for pause in (*PAUSES, None):
        try:
            return _ask(url, headers, size)
        except Interrupted as error:
            if pause is None:
                raise UserError(f"{url}: {error}; gave up after {len(PAUSES) + 1} tries") from None
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _ask(url: str, headers: dict[str, str], size: int | None) -> bytes:
    address = quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # any script, and spaces; what is quoted already stays
    request = urllib.request.Request(address, headers={"User-Agent": "las", "Accept-Encoding": "identity", **headers})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if headers and answer.status != 206:
                raise UserError(
                    f"{url}: the server does not give parts of files; download the shards and name the folder"
                )
            data: bytes = answer.read() if size is None else answer.read(size + 1)  # no more than was asked for
            expected = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        error.close()
        raise refusal(url, error) from None
    except urllib.error.URLError as error:
        raise Interrupted(f"no connection ({error.reason})") from None
    except (http.client.HTTPException, OSError) as error:
        raise Interrupted(f"the connection broke ({error.__class__.__name__})") from None
    if size is not None and len(data) > size:
        raise UserError(f"{url}: asked for {size} bytes, got more; the server does not keep to ranges")
    if expected is not None and expected.isdigit() and len(data) != int(expected):
        raise Interrupted(f"the connection ended after {len(data)} of {expected} bytes")
    return data


def _from_object_store(place: str, offset: int, size: int | None) -> bytes:
    try:
        store, path = fsspec.core.url_to_fs(place)
        end = None if size is None else offset + size
        data: bytes = store.cat_file(path, start=offset, end=end)
    except ImportError as error:
        raise UserError(f"{place}: {error}") from None  # names the package to install
    except FileNotFoundError:
        raise UserError(f"{place}: no such file there") from None
    except _errors_of_stores() as error:
        raise UserError(f"{place}: cannot read: {error}") from None
    return data


def _errors_of_stores() -> tuple[type[Exception], ...]:
    """What a store and the package behind it, where it is loaded, may raise: no credentials, no answer."""
    loaded = [(sys.modules.get(module), name) for module, name in ERRORS_OF_STORES]
    return OSError, ValueError, *(getattr(module, name) for module, name in loaded if module is not None)
