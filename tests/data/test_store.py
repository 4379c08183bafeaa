"""Shards behind a server on 127.0.0.1 that stalls, cuts off and answers 500 on order, and in fsspec's memory."""

import hashlib
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import fsspec
import pytest
from loopback import Host

from las.data import store
from las.data.loader import Loader, LoaderConfig
from las.data.shards import read_index, read_sample, verify
from las.errors import UserError
from las.text.tokenizer import Tokenizer


@pytest.fixture
def host(monkeypatch, corpus):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(store, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(store, "TIMEOUT", 0.3)
    host = Host(corpus / "shards" / "train")
    yield host
    host.server.shutdown()
    host.server.server_close()


def batches(index, corpus):
    tokenizer = Tokenizer.load(corpus / "tokenizer.model")
    loader = Loader(index, tokenizer, 8000, LoaderConfig(workers=0), shuffle=True, seed=3)
    return [(batch.ids, batch.waves.sum().item()) for batch in loader.epoch(0)]


def test_batches_are_the_same_from_disk_from_a_server_and_from_its_cache(host, corpus, tmp_path):
    local = read_index(corpus / "shards" / "train")
    wanted = batches(local, corpus)
    assert batches(read_index(host.address), corpus) == wanted
    assert len({asked for name, asked in host.asked if name != "index.json"}) == len(local)  # a range for each
    host.asked.clear()
    cached = read_index(host.address, str(tmp_path / "cache"))
    for _ in range(2):
        assert batches(cached, corpus) == wanted
    assert [name for name, _ in host.asked] == ["index.json", "shard-000000.tar"]
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".lock", ".tar"]


def test_an_object_store(corpus):
    memory = fsspec.filesystem("memory")
    for path in (corpus / "shards" / "train").iterdir():
        memory.pipe(f"/bucket/train/{path.name}", path.read_bytes())
    index = read_index("memory://bucket/train")
    assert batches(index, corpus) == batches(read_index(corpus / "shards" / "train"), corpus)
    verify(index)
    with pytest.raises(UserError, match=r"memory://bucket/nothing/index\.json: no such file there"):
        read_index("memory://bucket/nothing")


def test_a_store_without_credentials(monkeypatch):
    """What the package of a store raises is no OSError."""

    class BotoCoreError(Exception):
        pass

    def refuse(*_, **__):
        raise BotoCoreError("Unable to locate credentials")

    package = SimpleNamespace(BotoCoreError=BotoCoreError, ClientError=BotoCoreError)
    monkeypatch.setitem(sys.modules, "botocore.exceptions", package)
    monkeypatch.setattr(fsspec.filesystem("memory"), "cat_file", refuse)
    with pytest.raises(
        UserError, match=r"memory://bucket/train/index\.json: cannot read: Unable to locate credentials"
    ):
        read_index("memory://bucket/train")


def test_addresses_in_any_script(host, tmp_path):
    (tmp_path / "말 뭉치").mkdir()
    (tmp_path / "말 뭉치" / "a%b.bin").write_bytes(b"0123")
    own = Host(tmp_path)
    for address in ("말 뭉치/a%25b.bin", "%EB%A7%90%20%EB%AD%89%EC%B9%98/a%25b.bin"):
        assert store.read(f"{own.address}/{address}", 1, 2) == b"12"
    own.server.shutdown()
    own.server.server_close()


@pytest.mark.parametrize("trouble", [[500], [503, 429], ["cut"], ["stall"], [500, "cut"]])
def test_trouble_that_passes(host, corpus, trouble):
    index = read_index(host.address)
    host.plan = list(trouble)
    entry = index.entries[0]
    assert read_sample(index, entry) == read_sample(read_index(corpus / "shards" / "train"), entry)
    assert host.plan == []


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ([500] * 3, r"shard-000000\.tar: the server answers 500 .*; gave up after 3 tries"),
        (["cut"] * 3, r"shard-000000\.tar: the connection ended after \d+ of \d+ bytes; gave up after 3 tries"),
        (["stall"] * 3, r"shard-000000\.tar: the connection broke \(.*\); gave up after 3 tries"),
        ([403], r"shard-000000\.tar: the server answers 403 Forbidden; check the address"),
        (["whole"], r"shard-000000\.tar: the server does not give parts of files; download the shards and name the fo"),
        (["more"], r"shard-000000\.tar: asked for \d+ bytes, got more; the server does not keep to ranges"),
        (["flood"], r"shard-000000\.tar: asked for \d+ bytes, got more; the server does not keep to ranges"),
    ],
)
def test_trouble_that_stays(host, trouble, message):
    index = read_index(host.address)
    host.plan = list(trouble)
    with pytest.raises(UserError, match=message):
        read_sample(index, index.entries[0])


def test_no_server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(store, "PAUSES", (0.0,))
    with pytest.raises(UserError, match=r"index\.json: no connection \(.*refused\); gave up after 2 tries"):
        read_index("http://127.0.0.1:9/train")


def test_a_place_that_nothing_knows():
    with pytest.raises(UserError, match=r"pipe://cat/index\.json: .*[Pp]rotocol not known"):
        read_index("pipe://cat")


def test_several_at_once_fetch_a_shard_once(host, tmp_path):
    index = read_index(host.address, str(tmp_path))
    host.asked.clear()
    with ThreadPoolExecutor(4) as pool:
        samples = list(pool.map(lambda entry: read_sample(index, entry).id, index.entries))
    assert samples == [entry.id for entry in index.entries]
    assert len(host.asked) == 1


def test_a_shard_that_is_damaged_there_is_not_kept(host, corpus, tmp_path, monkeypatch):
    index = read_index(host.address, str(tmp_path / "cache"))
    monkeypatch.setattr(store, "read", lambda place, offset, size: bytes(size))
    wrong = hashlib.sha256(bytes(index.shards[0].bytes)).hexdigest()
    with pytest.raises(UserError, match=rf"shard-000000\.tar: SHA-256 {wrong}, but the index says .* damaged there"):
        read_sample(index, index.entries[0])
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    with pytest.raises(UserError, match=rf"{re.escape(index.place(0))}: SHA-256 {wrong}, but"):
        verify(index)


def test_a_cache_that_cannot_be_written(host, tmp_path, monkeypatch):
    index = read_index(host.address, str(tmp_path))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_pieces", full)
    with pytest.raises(UserError, match=r"\.part: cannot write the cache: No space left on device"):
        read_sample(index, index.entries[0])
