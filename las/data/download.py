"""Address -> file on disk (resumed, verified) -> folder (unpacked safely): the archives that corpora are published as.

HTTP/1.1 ranges (RFC 9110, section 14). Nothing here trusts a short or changed file: what the publisher says
(SHA-256, size) is checked, and where he says nothing, the first download is recorded beside the file and every
later use is compared with it.
"""

import contextlib
import hashlib
import http.client
import json
import lzma
import os
import re
import shutil
import stat
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from las.errors import UserError
from las.files import write_json

Report: TypeAlias = Callable[[int, int | None], None]  # bytes so far, bytes in all (None: not known)

TIMEOUT = 30.0  # s without a byte
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # s before each retry; a retry that brings bytes starts again at the first
BLOCK = 1 << 18  # bytes


def fetch(
    url: str, folder: str | Path, sha256: str | None = None, size: int | None = None, progress: Report | None = None
) -> Path:
    """Download `url` into `folder` under its own name, once -> the file's path.

    A cut download stays as `<name>.part` and is continued, by this call (with pauses between tries) or a later one.
    `<name>.sha256.json` records url, bytes, sha256 and when; a file that is already there is compared with `sha256`
    and `size` where given and with that record, and returned without touching the network.
    progress(bytes so far, bytes in all or None) is called per block; by default a bar on stderr, if that is a terminal.
    Not for two processes at once on the same file. Raises UserError: an address that is not http(s) or names no file,
    a refusal by the server, no connection after all retries, no room on the disk, a size or checksum that is not the
    wanted or recorded one, a file of which nothing is known.
    """
    path = Path(folder) / _file_name(url)
    record = _read_record(path)
    wanted_hash = sha256.lower() if sha256 else record.get("sha256")
    wanted_size = size if size is not None else record.get("bytes")
    if path.exists():
        if wanted_hash is None and wanted_size is None:
            raise UserError(
                f"{path}: found {path.stat().st_size} bytes, but no size or checksum to compare with; "
                "delete it, then it is downloaded and recorded"
            )
        found = _verify(path, wanted_hash, wanted_size, "delete it, then it is downloaded again")
        if not record:
            write_json(_record_path(path), _record(url, path, found))
        return path

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with _reporting(path.name, progress) as report:
        _download(url, part, wanted_size, report)
    try:
        found = _verify(part, wanted_hash, wanted_size, f"run again; if it stays so, the publisher changed {url}")
    except UserError:
        part.unlink()  # so that "run again" starts afresh
        raise
    write_json(_record_path(path), _record(url, part, found))
    os.replace(part, path)
    _state_path(part).unlink(missing_ok=True)
    return path


def corpus_folder(given: Path | None, name: str, url: str, output: Path, *, offline: bool = False) -> Path:
    """Where a recipe finds its corpus: `given`, else $LAS_CORPORA/`name`, else `url` unpacked in OUTPUT/corpus/`name`.

    Raises `UserError` where it would have to be downloaded but `offline` forbids that, and as `fetch` and `unpack` do.
    """
    if local := local_corpus(given, name):
        return local
    if offline and not (output / "corpus" / name).is_dir():
        raise UserError("--offline was given")
    return unpacked(url, output, name)


def unpacked(url: str, output: Path, name: str) -> Path:
    """An archive, downloaded into OUTPUT/download and unpacked once as OUTPUT/corpus/`name` -> that folder.

    A folder that is there is whole and needs no network, nor the archive: OUTPUT/download may be deleted.
    """
    folder = output / "corpus" / name
    if not folder.is_dir():
        print(f"{folder} is not there: downloading {url}", file=sys.stderr)
        unpack(fetch(url, output / "download"), folder)
    return folder


def local_corpus(given: Path | None, name: str) -> Path | None:
    """`given`, else $LAS_CORPORA/`name` where that is a folder, else None: it is to be downloaded."""
    shared = os.environ.get("LAS_CORPORA")
    if given is None and shared and (Path(shared) / name).is_dir():
        return Path(shared) / name
    return given


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """Unpack a tar (plain, gz, xz, bz2) or zip, told by content, so that `folder` holds its members -> `folder`.

    `folder` appears whole or not at all, so one that is there is complete. Only names and contents are kept: no
    owners, modes or times. Links that stay inside are made, after all files. Raises UserError: missing, damaged, cut
    or encrypted archive, `folder` in use, a member that would leave the folder (absolute path, "..", link), a device.
    """
    archive, folder = Path(archive), Path(folder)
    if not archive.is_file():
        raise UserError(f"{archive}: there is no such file; wanted a tar or zip archive")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: already there; use it, or delete it to unpack {archive.name} again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".unpacking", dir=folder.parent) as room:
        root = Path(room) / "content"  # made with the user's usual mode, which the temporary folder is not
        root.mkdir()
        try:
            with open(archive, "rb") as file:
                is_zip = file.read(2) == b"PK"
            if is_zip:
                _unpack_zip(archive, root)
            else:
                _unpack_tar(archive, root)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            member = Path(str(error.filename)).relative_to(root)
            raise UserError(f"{archive}: member {str(member)!r} is both a file and a folder") from None
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's; gzip's and bz2's have no number
                raise
            what = str(error).partition("\n")[0]
            raise UserError(f"{archive}: not a whole tar or zip archive ({what}); delete it, fetch it again") from None
        os.replace(root, folder)
    return folder


# --- downloading


class Interrupted(Exception):
    """The connection failed in a way that another try may mend."""


def _file_name(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"{url}: not an address to download from; wanted http://... or https://...")
    name = urllib.parse.unquote(parts.path).rsplit("/", 1)[-1]
    if name in ("", ".", "..") or "\\" in name or "\0" in name:
        raise UserError(f"{url}: the address names no file; wanted .../name")
    return name


def _download(url: str, part: Path, wanted_size: int | None, report: Report) -> None:
    """Fill `part` to its end, however often the connection breaks."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _continue(url, part, wanted_size, report)
        except Interrupted as error:
            found = part.stat().st_size if part.exists() else 0
            failures = 0 if found > before else failures
            if failures == len(PAUSES):
                raise UserError(
                    f"{url}: {error}; gave up after {failures + 1} tries; "
                    f"{found} bytes are kept in {part}: run again to continue"
                ) from None
            time.sleep(PAUSES[failures])
            failures += 1


def _continue(url: str, part: Path, wanted_size: int | None, report: Report) -> None:
    """One connection: the bytes that `part` lacks, or all of them where the server or the file has changed."""
    have = part.stat().st_size if part.exists() else 0
    state = _read_json(_state_path(part)) if have else {}
    headers = {"User-Agent": "las", "Accept-Encoding": "identity"}
    if have and state.get("url") == url and have == state.get("bytes"):
        return
    if have and state.get("url") == url and state.get("validator"):
        headers |= {"Range": f"bytes={have}-", "If-Range": state["validator"]}
    with _answer(url, headers) as answer:
        have = have if answer.status == 206 else 0
        total = _total(answer, have, url)
        if total is None and wanted_size is None and not answer.chunked:
            raise UserError(f"{url}: the server does not say how long the file is, so a cut would not be seen")
        if None not in (total, wanted_size) and total != wanted_size:
            raise UserError(f"{url}: the server has {total} bytes; wanted {wanted_size}: the publisher changed it")
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - have > free:
            raise UserError(f"{part.parent}: {total - have} bytes to download, {free} free; make room, run again")
        if have == 0:
            write_json(_state_path(part), {"url": url, "validator": _validator(answer), "bytes": total})
        with open(part, "ab" if have else "wb") as file:
            report(have, total)
            while block := _read_block(answer):
                file.write(block)
                have += len(block)
                report(have, total)
    expected = total if total is not None else wanted_size
    if expected is not None and have < expected:
        raise Interrupted(f"the connection ended after {have} of {expected} bytes")


def _answer(url: str, headers: dict[str, str]) -> Any:
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and "Range" in headers:  # nothing lies beyond what we have, so it is not this file's start
            return _answer(url, {name: headers[name] for name in headers if name not in ("Range", "If-Range")})
        raise refusal(url, error) from None
    except urllib.error.URLError as error:
        raise Interrupted(f"no connection ({error.reason})") from None
    except (http.client.HTTPException, OSError) as error:
        raise Interrupted(f"no connection ({error!r})") from None


def refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    """What an error status means: `Interrupted` where another try may help, else a `UserError`."""
    answer = f"the server answers {error.code} {error.reason}"
    if error.code >= 500 or error.code in (408, 429):
        return Interrupted(answer)
    return UserError(f"{url}: {answer}; check the address")


def _read_block(answer: Any) -> bytes:
    try:
        return answer.read(BLOCK)
    except (http.client.HTTPException, OSError) as error:
        raise Interrupted(f"the connection broke ({error.__class__.__name__})") from None


def _total(answer: Any, have: int, url: str) -> int | None:
    """Bytes of the whole file, by the server."""
    if answer.status != 206:
        length = answer.headers.get("Content-Length")
        return int(length) if length and length.isdigit() else None
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", "").strip())
    if not match or int(match[1]) != have:
        raise UserError(
            f"{url}: asked for bytes from {have}, got {answer.headers.get('Content-Range')!r}; delete .part"
        )
    return int(match[2])


def _validator(answer: Any) -> str | None:
    """What tells this version of the file from another (RFC 9110, 13.1.5: a weak ETag does not)."""
    tag = answer.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


@contextlib.contextmanager
def _reporting(name: str, progress: Report | None) -> Iterator[Report]:
    if progress is not None:
        yield progress
        return
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# --- what is known of a file


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256.json")


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _record(url: str, path: Path, sha256: str) -> dict[str, Any]:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"url": url, "bytes": path.stat().st_size, "sha256": sha256, "when": when}


def _read_record(path: Path) -> dict[str, Any]:
    record = _read_json(_record_path(path))
    if record and not (isinstance(record.get("sha256"), str) and isinstance(record.get("bytes"), int)):
        raise UserError(f"{_record_path(path)}: no record of bytes and sha256; delete it and {path.name}, run again")
    return record


def _read_json(path: Path) -> dict[str, Any]:
    """{} where there is no file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); delete it, run again") from None
    return value if isinstance(value, dict) else {"": value}


def _verify(path: Path, sha256: str | None, size: int | None, way_out: str) -> str:
    """The file's SHA-256, once size and hash are the wanted ones (None: whatever they are)."""
    found = path.stat().st_size
    if size is not None and found != size:
        raise UserError(f"{path}: {found} bytes found, {size} wanted; {way_out}")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and digest != sha256:
        raise UserError(f"{path}: SHA-256 {digest} found, {sha256} wanted; {way_out}")
    return digest


# --- unpacking


def _unpack_tar(archive: Path, root: Path) -> None:
    copies: dict[str, str] = {}  # member -> the member it is a hard link to
    links: dict[str, str] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            target = _target(archive, root, member.name)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                _write_member(target, content)
            elif member.islnk():
                copies[member.name] = member.linkname
            elif member.issym():
                links[member.name] = member.linkname
            else:
                raise UserError(f"{archive}: member {member.name!r} is a device or pipe; wanted files and folders")
        stream: Any = tar.fileobj
        if stream.tell() < tar.offset + tarfile.BLOCKSIZE:  # it ended where a header or the end mark should be
            raise tarfile.ReadError("no end mark: it is cut between two members")
        while stream.read(BLOCK):  # to the end, where gzip, xz and bz2 keep their checksums
            pass
    for name, source in copies.items():
        original = _target(archive, root, source)
        if not original.is_file():
            raise UserError(f"{archive}: member {name!r} is a link to {source!r}, which is not in the archive")
        with open(original, "rb") as file:
            _write_member(_target(archive, root, name), file)
    _make_links(archive, root, links)


def _unpack_zip(archive: Path, root: Path) -> None:
    links: dict[str, str] = {}
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            target, mode = _target(archive, root, member.filename), member.external_attr >> 16
            if member.flag_bits & 1:
                raise UserError(f"{archive}: member {member.filename!r} is encrypted; unpack it by hand")
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif stat.S_ISLNK(mode):
                links[member.filename] = packed.read(member).decode("utf-8", "surrogateescape")
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise UserError(f"{archive}: member {member.filename!r} is a device or pipe; wanted files and folders")
            else:
                with packed.open(member) as content:
                    _write_member(target, content)
    _make_links(archive, root, links)


def _target(archive: Path, root: Path, name: str) -> Path:
    """Where a member goes. No link exists while files are written, so the name alone decides where that is."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", name):
        raise UserError(f"{archive}: member {name!r} has an absolute path; nothing was unpacked")
    if ".." in re.split(r"[/\\]", name):
        raise UserError(f"{archive}: member {name!r} would leave the folder; nothing was unpacked")
    return root / name


def _write_member(target: Path, content: IO[bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as file:
        shutil.copyfileobj(content, file, BLOCK)


def _make_links(archive: Path, root: Path, links: dict[str, str]) -> None:
    """Symbolic links; none may lead out, on its own or through others, and none is made through one that does."""
    inside = root.resolve()

    def out(name: str) -> UserError:
        found = f"{archive}: member {name!r} is a link out of the folder, to {links[name]!r}"
        return UserError(f"{found}; nothing was unpacked")

    for name, source in links.items():
        target = _target(archive, root, name)
        if os.path.isabs(source) or not _leads_inside(target.parent, inside):
            raise out(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            raise UserError(f"{archive}: member {name!r} is both a link and something else")
        target.symlink_to(source)
    for name in links:
        if not _leads_inside(root / name, inside):
            raise out(name)


def _leads_inside(path: Path, inside: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(inside)
