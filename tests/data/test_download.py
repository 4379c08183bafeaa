"""A server on 127.0.0.1 that misbehaves on order; archives that try to get out."""

import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from loopback import serve

from las.data import download
from las.data.download import fetch, unpack
from las.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Publisher:
    """Serves `content` at any path that ends in .bin, unless `plan` has an answer for the next request.

    plan items: a status to answer with; "cut" sends the headers and a third of what was asked for.
    """

    def __init__(self):
        self.content, self.tag, self.ranges, self.length = CONTENT, '"v1"', True, True
        self.plan: list = []
        self.requests: list[dict] = []
        self.server, self.address = serve(lambda request: self.answer(request))  # a test may put another in its place

    def answer(self, request):
        self.requests.append(dict(request.headers))
        order = self.plan.pop(0) if self.plan else None
        if isinstance(order, int):
            return request.send_error(order)
        if not request.path.partition("?")[0].endswith(".bin"):
            return request.send_error(404)
        start, body = 0, self.content
        asked = request.headers.get("Range")
        if self.ranges and asked and request.headers.get("If-Range") == self.tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                return request.send_error(416)
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        body = body[start:]
        if self.length:
            request.send_header("Content-Length", str(len(body)))
        if self.tag:
            request.send_header("ETag", self.tag)
        request.end_headers()
        request.wfile.write(body[: len(body) // 3] if order == "cut" else body)
        return None


@pytest.fixture
def publisher(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    publisher = Publisher()
    yield publisher
    publisher.server.shutdown()
    publisher.server.server_close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_download_is_recorded_and_then_needs_no_network(publisher, tmp_path):
    seen = []
    path = fetch(
        f"{publisher.address}/x/a.bin", tmp_path / "new", progress=lambda done, total: seen.append((done, total))
    )
    assert path == tmp_path / "new" / "a.bin"
    assert path.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    record = json.loads((path.parent / "a.bin.sha256.json").read_text())
    assert set(record) == {"url", "bytes", "sha256", "when"}
    assert (record["url"], record["bytes"], record["sha256"]) == (
        f"{publisher.address}/x/a.bin",
        len(CONTENT),
        SHA256,
    )
    assert names(path.parent) == ["a.bin", "a.bin.sha256.json"]
    assert fetch(f"{publisher.address}/x/a.bin", path.parent) == path
    assert len(publisher.requests) == 1


def test_the_bar_goes_to_stderr_and_the_checksum_may_be_given(publisher, tmp_path, capsys):
    fetch(f"{publisher.address}/a.bin", tmp_path, sha256=SHA256.upper(), size=len(CONTENT))
    assert capsys.readouterr().out == ""


def test_names_are_decoded(publisher, tmp_path):
    assert fetch(f"{publisher.address}/%ED%95%9C%20%EA%B8%80.bin?x=1", tmp_path).name == "한 글.bin"


def test_a_cut_connection_is_continued_where_it_broke(publisher, tmp_path):
    publisher.plan = ["cut", "cut"]
    path = fetch(f"{publisher.address}/a.bin", tmp_path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert [request.get("Range") for request in publisher.requests] == [None, "bytes=100000-", "bytes=166666-"]


def test_a_later_call_continues(publisher, tmp_path):
    publisher.plan = ["cut", 503, 503, 503, 503]
    with pytest.raises(
        UserError, match=r"503 Service Unavailable; gave up after 4 tries; 100000 bytes are kept in .*a\.bin\.part"
    ):
        fetch(f"{publisher.address}/a.bin", tmp_path)
    assert not (tmp_path / "a.bin").exists()
    assert fetch(f"{publisher.address}/a.bin", tmp_path).read_bytes() == CONTENT
    assert publisher.requests[-1]["Range"] == "bytes=100000-"


def test_a_part_that_was_whole_is_taken(publisher, tmp_path):
    publisher.plan = ["cut", 404]
    with pytest.raises(UserError, match="404 Not Found; check the address"):
        fetch(f"{publisher.address}/a.bin", tmp_path)
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert fetch(f"{publisher.address}/a.bin", tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert len(publisher.requests) == 2


def test_a_part_longer_than_the_file_starts_afresh(publisher, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    state = {"url": f"{publisher.address}/a.bin", "validator": '"v1"', "bytes": None}
    (tmp_path / "a.bin.part.json").write_text(json.dumps(state))
    assert fetch(f"{publisher.address}/a.bin", tmp_path).read_bytes() == CONTENT


def test_a_part_nothing_is_known_of_starts_afresh(publisher, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1_000)
    assert fetch(f"{publisher.address}/a.bin", tmp_path).read_bytes() == CONTENT
    assert "Range" not in publisher.requests[0]


@pytest.mark.parametrize("change", [{"ranges": False}, {"tag": None}, {"tag": 'W/"weak"'}])
def test_a_server_that_cannot_continue_starts_afresh(publisher, tmp_path, change):
    for name, value in change.items():
        setattr(publisher, name, value)
    publisher.plan = ["cut"]
    assert fetch(f"{publisher.address}/a.bin", tmp_path, sha256=SHA256).read_bytes() == CONTENT


def test_a_file_that_changes_between_two_tries_is_not_glued_together(publisher, tmp_path):
    publisher.plan = ["cut", 404]
    with pytest.raises(UserError, match="404"):
        fetch(f"{publisher.address}/a.bin", tmp_path)
    publisher.content, publisher.tag = CONTENT[::-1], '"v2"'
    assert fetch(f"{publisher.address}/a.bin", tmp_path).read_bytes() == CONTENT[::-1]


def test_errors_of_the_server_are_retried_and_refusals_are_not(publisher, tmp_path):
    publisher.plan = [500, 429, 503]
    assert fetch(f"{publisher.address}/a.bin", tmp_path).read_bytes() == CONTENT
    with pytest.raises(UserError, match=r"/none: the server answers 404 Not Found; check the address"):
        fetch(f"{publisher.address}/none", tmp_path)
    assert len(publisher.requests) == 5


def test_no_connection(publisher, tmp_path):
    publisher.server.shutdown()
    publisher.server.server_close()
    with pytest.raises(UserError, match=r"no connection \(.*refused.*\); gave up after 4 tries; 0 bytes"):
        fetch(f"{publisher.address}/a.bin", tmp_path)


def test_a_server_that_hides_the_length(publisher, tmp_path):
    publisher.length = False
    with pytest.raises(UserError, match="does not say how long the file is, so a cut would not be seen"):
        fetch(f"{publisher.address}/a.bin", tmp_path)
    publisher.plan = ["cut"]
    assert fetch(f"{publisher.address}/a.bin", tmp_path, size=len(CONTENT)).read_bytes() == CONTENT


def test_a_wrong_range_is_refused(publisher, tmp_path, monkeypatch):
    publisher.plan = ["cut", 404]
    with pytest.raises(UserError, match="404"):
        fetch(f"{publisher.address}/a.bin", tmp_path)
    whole = publisher.answer

    def shifted(request):
        send = request.send_header
        request.send_header = lambda name, value: send(name, "bytes 7-9/10" if name == "Content-Range" else value)
        whole(request)

    monkeypatch.setattr(publisher, "answer", shifted)
    with pytest.raises(UserError, match=r"asked for bytes from 100000, got 'bytes 7-9/10'; delete \.part"):
        fetch(f"{publisher.address}/a.bin", tmp_path)


def test_a_wrong_checksum_leaves_nothing(publisher, tmp_path):
    with pytest.raises(UserError, match=rf"a\.bin\.part: SHA-256 {SHA256} found, 0000 wanted; run again; if it stays"):
        fetch(f"{publisher.address}/a.bin", tmp_path, sha256="0000")
    assert not (tmp_path / "a.bin").exists()
    assert not (tmp_path / "a.bin.part").exists()


def test_a_wrong_size_is_seen_before_the_download(publisher, tmp_path):
    with pytest.raises(UserError, match=r"the server has 300000 bytes; wanted 7: the publisher changed it"):
        fetch(f"{publisher.address}/a.bin", tmp_path, size=7)


def test_a_file_that_changed_on_disk_is_refused(publisher, tmp_path):
    path = fetch(f"{publisher.address}/a.bin", tmp_path)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"a\.bin: 299999 bytes found, 300000 wanted; delete it, then it is downloaded"):
        fetch(f"{publisher.address}/a.bin", tmp_path)
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    with pytest.raises(UserError, match=rf"a\.bin: SHA-256 \w+ found, {SHA256} wanted; delete it"):
        fetch(f"{publisher.address}/a.bin", tmp_path)


def test_a_publisher_that_changed_the_file_is_seen_by_the_record(publisher, tmp_path):
    fetch(f"{publisher.address}/a.bin", tmp_path).unlink()
    publisher.content = CONTENT[::-1]
    with pytest.raises(UserError, match=rf"{SHA256} wanted; run again; if it stays so, the publisher changed"):
        fetch(f"{publisher.address}/a.bin", tmp_path)


def test_a_file_put_there_by_hand(publisher, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    with pytest.raises(UserError, match=r"a\.bin: found 300000 bytes, but no size or checksum to compare with"):
        fetch(f"{publisher.address}/a.bin", tmp_path)
    assert fetch(f"{publisher.address}/a.bin", tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert fetch(f"{publisher.address}/a.bin", tmp_path).read_bytes() == CONTENT  # recorded now
    assert publisher.requests == []


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("{}x", "not JSON"), ('{"a": 1}', "no record of")])
def test_a_broken_record(publisher, tmp_path, text, message):
    path = fetch(f"{publisher.address}/a.bin", tmp_path)
    (tmp_path / "a.bin.sha256.json").write_text(text)
    with pytest.raises(UserError, match=rf"a\.bin\.sha256\.json: {message}"):
        fetch(f"{publisher.address}/a.bin", path.parent)


def test_no_room(publisher, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=5))
    with pytest.raises(UserError, match="300000 bytes to download, 5 free; make room, run again"):
        fetch(f"{publisher.address}/a.bin", tmp_path)


@pytest.mark.parametrize("url", ["ftp://a/b.bin", "file:///etc/passwd", "a.bin", "http:///x"])
def test_addresses_that_are_not(url, tmp_path):
    with pytest.raises(UserError, match="not an address to download from"):
        fetch(url, tmp_path)


@pytest.mark.parametrize("url", ["http://a", "http://a/", "http://a/b/..", "http://a/%2e%2e", "http://a/..%5Cx"])
def test_addresses_without_a_file_name(url, tmp_path):
    with pytest.raises(UserError, match="the address names no file"):
        fetch(url, tmp_path)


def test_an_encoded_slash_does_not_leave_the_folder(publisher, tmp_path):
    assert fetch(f"{publisher.address}/..%2F..%2Fa.bin", tmp_path) == tmp_path / "a.bin"


# --- unpacking

FILES = {"a.txt": b"one", "음성/b c.wav": b"two" * 50_000, "d/e/f": b""}


def tar_of(path: Path, mode: str = "w", members: list[tarfile.TarInfo] | None = None) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in members or []:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def zip_of(path: Path, extra: dict[zipfile.ZipInfo, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in FILES.items():
            packed.writestr(name, content)
        packed.writestr("empty/", b"")
        for member, content in (extra or {}).items():
            packed.writestr(member, content)
    return path


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_tars(mode, tmp_path):
    folder = tmp_path / "풀린 것" / "here"
    assert unpack(tar_of(tmp_path / "any name", mode, [info("empty", tarfile.DIRTYPE)]), folder) == folder
    assert contents(folder) == FILES
    assert (folder / "empty").is_dir()
    assert names(folder.parent) == ["here"]
    assert folder.stat().st_mode == folder.parent.stat().st_mode


def test_zips(tmp_path):
    folder = unpack(zip_of(tmp_path / "any name"), tmp_path / "out")
    assert contents(folder) == FILES
    assert (folder / "empty").is_dir()


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path):
    inner = zip_of(tmp_path / "inner.zip").read_bytes()
    with tarfile.open(tmp_path / "outer.tar", "w") as tar:
        member = tarfile.TarInfo("inner.zip")
        member.size = len(inner)
        tar.addfile(member, io.BytesIO(inner))
    assert names(unpack(tmp_path / "outer.tar", tmp_path / "out")) == ["inner.zip"]


def test_links_that_stay_inside(tmp_path):
    members = [
        info("hard", tarfile.LNKTYPE, "a.txt"),
        info("d/soft", tarfile.SYMTYPE, "../a.txt"),
        info("to folder", tarfile.SYMTYPE, "음성"),
    ]
    folder = unpack(tar_of(tmp_path / "a.tar", "w", members), tmp_path / "out")
    assert (folder / "hard").read_bytes() == (folder / "d" / "soft").read_bytes() == b"one"
    assert (folder / "to folder" / "b c.wav").read_bytes() == FILES["음성/b c.wav"]
    soft = zipfile.ZipInfo("soft")
    soft.external_attr = 0o120777 << 16
    folder = unpack(zip_of(tmp_path / "a.zip", {soft: b"a.txt"}), tmp_path / "out2")
    assert os.readlink(folder / "soft") == "a.txt"


def test_each_of_many_links_is_looked_at_twice(tmp_path, monkeypatch):
    looked, leads_inside = [], download._leads_inside
    monkeypatch.setattr(download, "_leads_inside", lambda *place: looked.append(place) or leads_inside(*place))
    unpack(tar_of(tmp_path / "a.tar", "w", [info(f"{n}", tarfile.SYMTYPE, "a.txt") for n in range(50)]), tmp_path / "o")
    assert len(looked) == 100


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([info("/tmp/evil")], "member '/tmp/evil' has an absolute path"),
        ([info("C:/evil")], "member 'C:/evil' has an absolute path"),
        ([info("../evil")], r"member '\.\./evil' would leave the folder"),
        ([info("a/../../evil")], r"member 'a/\.\./\.\./evil' would leave the folder"),
        ([info("..\\evil")], "would leave the folder"),
        ([info("l", tarfile.SYMTYPE, "/etc/passwd")], "member 'l' is a link out of the folder, to '/etc/passwd'"),
        ([info("l", tarfile.SYMTYPE, "../../secret")], "member 'l' is a link out of the folder"),
        ([info("l", tarfile.SYMTYPE, ".."), info("l/evil")], "member 'l' is both|is a link out of the folder"),
        ([info("l", tarfile.SYMTYPE, "/tmp"), info("l/m", tarfile.SYMTYPE, "x")], "is a link out of the folder"),
        (
            [info("p/q/r/up", tarfile.SYMTYPE, "../../.."), info("p/q/r/out", tarfile.SYMTYPE, "up/..")],
            "member 'p/q/r/out' is a link out of the folder",
        ),
        (
            [
                info("first", tarfile.SYMTYPE, "x/.."),
                info("x", tarfile.SYMTYPE, "."),
                info("y", tarfile.SYMTYPE, "x/.."),
            ],
            "is a link out of the folder",
        ),
        (  # what is made later turns p/q/r/first from p to the folder that the archive lies in
            [
                info("p/q/r/first", tarfile.SYMTYPE, "x/../../.."),
                info("p/q/r/x", tarfile.SYMTYPE, "../../.."),
                info("p/q/r/first/evil/l", tarfile.SYMTYPE, "a"),
            ],
            "member 'p/q/r/first/evil/l' is a link out of the folder",
        ),
        ([info("h", tarfile.LNKTYPE, "../../etc/passwd")], "would leave the folder"),
        ([info("h", tarfile.LNKTYPE, "/etc/passwd")], "member '/etc/passwd' has an absolute path"),
        ([info("h", tarfile.LNKTYPE, "none")], "member 'h' is a link to 'none', which is not in the archive"),
        ([info("a.txt", tarfile.SYMTYPE, "d")], r"member 'a\.txt' is both a link and something else"),
        ([info("a.txt/x")], r"member 'a\.txt(/x)?' is both a file and a folder"),
        ([info("d")], "member 'd' is both a file and a folder"),
        ([info("dev", tarfile.CHRTYPE)], "member 'dev' is a device or pipe"),
        ([info("pipe", tarfile.FIFOTYPE)], "member 'pipe' is a device or pipe"),
    ],
)
def test_evil_tars(members, message, tmp_path):
    (tmp_path / "box").mkdir()
    archive = tar_of(tmp_path / "evil.tar", "w", members)
    with pytest.raises(UserError, match=rf"evil\.tar: .*({message})"):
        unpack(archive, tmp_path / "box" / "out")
    assert names(tmp_path / "box") == []
    assert names(tmp_path) == ["box", "evil.tar"]


def zip_info(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        (zip_info("/tmp/evil"), b"", "has an absolute path"),
        (zip_info("../evil"), b"", "would leave the folder"),
        (zip_info("l", 0o120777), b"../..", "is a link out of the folder"),
        (zip_info("pipe", 0o010644), b"", "is a device or pipe"),
    ],
)
def test_evil_zips(member, content, message, tmp_path):
    archive = zip_of(tmp_path / "evil.zip", {member: content})
    with pytest.raises(UserError, match=message):
        unpack(archive, tmp_path / "out")
    assert names(tmp_path) == ["evil.zip"]


def test_encrypted_zip(tmp_path):
    data = bytearray(zip_of(tmp_path / "a.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"member 'a\.txt' is encrypted; unpack it by hand"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2", "zip"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_cut_archives(mode, share, tmp_path):
    archive = zip_of(tmp_path / "a") if mode == "zip" else tar_of(tmp_path / "a", mode)
    data = archive.read_bytes()
    if mode == "w":
        data = data[: data.rindex(b"d/e/f")]  # without the zeros that fill the last block
    archive.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="not a whole tar or zip archive") as caught:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["a"]


def test_a_tar_cut_between_two_members(tmp_path):
    archive = tar_of(tmp_path / "a.tar")
    data = archive.read_bytes()
    archive.write_bytes(data[: data.rindex(b"d/e/f")])
    with pytest.raises(UserError, match="no end mark: it is cut between two members"):
        unpack(archive, tmp_path / "out")


def test_damaged_archives(tmp_path):
    data = bytearray(tar_of(tmp_path / "a.tgz", "w:gz").read_bytes())
    data[-6] ^= 1  # the checksum
    (tmp_path / "a.tgz").write_bytes(data)
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"not a tar" * 100))
    (tmp_path / "c.zip").write_bytes(b"PK" + CONTENT[:5_000])
    (tmp_path / "d.html").write_bytes(b"<html>not found</html>")
    data = bytearray(tar_of(tmp_path / "e.bz2", "w:bz2").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "e.bz2").write_bytes(data)
    data = bytearray(zip_of(tmp_path / "f.zip").read_bytes())
    data[data.index(b"a.txt") + len("a.txt")] ^= 0xFF
    (tmp_path / "f.zip").write_bytes(data)
    for name in ("a.tgz", "b.gz", "c.zip", "d.html", "e.bz2", "f.zip"):
        with pytest.raises(UserError, match=rf"{name}: not a whole tar or zip archive \("):
            unpack(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_touched(tmp_path):
    archive = tar_of(tmp_path / "a.tar")
    (tmp_path / "empty").mkdir()
    assert contents(unpack(archive, tmp_path / "empty")) == FILES
    (tmp_path / "empty" / "mine").touch()
    with pytest.raises(UserError, match=r"empty: already there; use it, or delete it to unpack a\.tar again"):
        unpack(archive, tmp_path / "empty")
    with pytest.raises(UserError, match=r"none\.tar: there is no such file"):
        unpack(tmp_path / "none.tar", tmp_path / "out")
    with pytest.raises(UserError, match=r"a\.tar: already there"):
        unpack(archive, archive)
    assert (tmp_path / "empty" / "mine").exists()
