import dataclasses
import errno
import io
import json
import os
import re
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from las.data import sharding as module
from las.data.manifest import Utterance
from las.data.sharding import write_shards
from las.data.shards import Entry, Index, Shard, iterate, read_index, read_sample, read_text, verify
from las.errors import UserError
from las.ledger import Ledger

RATE = 8_000
ODD_IDS = [
    *("a.b.c", "../../etc/passwd", "with space", 'it\'s "quoted"', "하나/둘.셋", "two\nlines", "CON:\\x", "a", "A"),
    *("\u00e9", "e\u0301"),  # NFC and NFD: two ids
]


def recording(number: int, samples: int = 800) -> np.ndarray:
    """Noise of its own for each number."""
    return np.random.default_rng(number).integers(-3000, 3000, samples, dtype=np.int16)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A function that makes a list of utterances with recordings 0.1 s long."""
    folder = tmp_path_factory.mktemp("corpus")

    def make(ids, suffix="wav"):
        utterances = []
        for number, id in enumerate(ids):
            path = folder / f"{number}.{suffix}"
            if not path.exists():
                soundfile.write(path, recording(number), RATE)
            utterances.append(Utterance(id, str(path), f"말 {number}", speaker=f"s{number % 2}"))
        return utterances

    return make


@pytest.fixture(scope="module")
def ten(corpus):
    return corpus([f"u{number}" for number in range(10)])


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_layout_one_sees_with_tar(ten, tmp_path):
    index = write_shards(ten, tmp_path / "s", seed=None, shard_utterances=4, rate=RATE)
    assert sorted(os.listdir(tmp_path / "s")) == ["index.json", *(f"shard-00000{n}.tar" for n in range(3))]
    with tarfile.open(tmp_path / "s" / "shard-000001.tar") as tar:
        members = tar.getmembers()
        assert [member.name for member in members[:4]] == [
            "00000004.txt", "00000004.json", "00000004.flac", "00000005.txt",
        ]  # fmt: skip
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        assert tar.extractfile(members[0]).read().decode() == "말 4"
        about = json.loads(tar.extractfile(members[1]).read())
        assert about == {"id": "u4", "seconds": 0.1, "speaker": "s0", "rate": RATE}
        wave, rate = soundfile.read(tar.extractfile(members[2]), dtype="int16")
    assert rate == RATE
    assert wave.tolist() == recording(4).tolist()
    assert [shard.utterances for shard in index.shards] == [4, 4, 2]
    assert (len(index), index.seconds) == (10, pytest.approx(1.0))


def test_index_says_what_the_disk_holds(ten, tmp_path):
    written = write_shards(ten, tmp_path / "s", shard_utterances=4)
    index = read_index(tmp_path / "s")
    assert index == written
    verify(index)
    record = json.loads((tmp_path / "s" / "index.json").read_text("utf-8"))
    assert list(record) == ["format", "shards", "utterances"]
    assert list(record["shards"][0]) == ["name", "bytes", "sha256", "utterances"]
    assert list(record["utterances"][0]) == ["id", "shard", "offset", "size", "crc32", "seconds", "characters"]
    for entry in index.entries:  # the span, cut out by hand, is a tar of one sample
        data = Path(index.place(entry.shard)).read_bytes()[entry.offset : entry.offset + entry.size]
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            audio = tar.extractfile(tar.getmembers()[2]).read()
            assert len(tar.getmembers()) == 3
        assert zlib.crc32(audio) == entry.crc32


def test_every_sample_is_read_back_by_index_and_by_webdataset(ten, tmp_path):
    index = write_shards(ten, tmp_path / "s", shard_utterances=3)
    wanted = {utterance.id: utterance for utterance in ten}
    samples = {entry.id: read_sample(index, entry) for entry in index.entries}
    assert samples.keys() == wanted.keys()
    for entry in index.entries:
        sample, utterance = samples[entry.id], wanted[entry.id]
        assert (sample.id, sample.text, sample.speaker) == (utterance.id, utterance.text, utterance.speaker)
        assert sample.seconds == entry.seconds == 0.1
        assert read_text(index, entry) == utterance.text
    rows = [row for number in range(len(index.shards)) for row in iterate(index.place(number))]
    assert [row["__key__"] for row in rows] == [f"{number:08d}" for number in range(10)]
    for row, entry in zip(rows, index.entries, strict=True):
        assert json.loads(row["json"])["id"] == entry.id
        assert row["txt"].decode() == samples[entry.id].text
        assert row["flac"] == samples[entry.id].audio_bytes


def test_original_keeps_the_bytes_and_asks_for_no_rate(corpus, tmp_path):
    utterances = corpus(["a", "b"], suffix="ogg")
    index = write_shards(utterances, tmp_path / "s", encode="original", seed=None)
    for utterance, entry in zip(utterances, index.entries, strict=True):
        assert read_sample(index, entry).audio_bytes == Path(utterance.audio).read_bytes()
        assert entry.seconds == pytest.approx(0.1)
    assert [set(row) for row in iterate(index.place(0))] == [{"__key__", "__url__", "txt", "json", "ogg"}] * 2


def test_flac_at_another_rate(ten, tmp_path):
    index = write_shards(ten[:1], tmp_path / "s", rate=16_000)
    info = soundfile.info(io.BytesIO(read_sample(index, index.entries[0]).audio_bytes))
    assert (info.samplerate, info.frames, info.channels, info.subtype) == (16_000, 1600, 1, "PCM_16")
    assert index.entries[0].seconds == pytest.approx(0.1)


def test_same_input_same_bytes_whatever_the_workers(ten, tmp_path):
    for name, workers in (("one", 1), ("again", 1), ("three", 3)):
        write_shards(ten, tmp_path / name, shard_utterances=4, workers=workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "again") == contents(tmp_path / "three")


def test_seed_shuffles_and_none_keeps_the_order(ten, tmp_path):
    orders = [
        [entry.id for entry in write_shards(ten, tmp_path / str(seed), seed=seed).entries] for seed in (None, 0, 1)
    ]
    assert orders[0] == [utterance.id for utterance in ten]
    assert orders[0] != orders[1] != orders[2]
    assert set(map(tuple, map(sorted, orders))) == {tuple(sorted(orders[0]))}


def test_a_shard_ends_with_the_utterance_that_fills_it(ten, tmp_path):
    index = write_shards(ten, tmp_path / "s", shard_bytes=1)
    assert [shard.utterances for shard in index.shards] == [1] * 10
    assert {entry.offset for entry in index.entries} == {0}


def test_texts_are_stored_as_nfc(ten, tmp_path):
    index = write_shards([dataclasses.replace(ten[0], text="e\u0301")], tmp_path / "s")
    assert read_text(index, index.entries[0]) == read_sample(index, index.entries[0]).text == "é"
    assert index.entries[0].characters == 1


@given(ids=st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip), min_size=1, unique=True))
@settings(max_examples=40, deadline=None)
def test_any_id_survives(ids, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids")
    with pytest.MonkeyPatch.context() as patch:  # decoding is not what this is about
        patch.setattr(module, "_prepare", lambda *_: module._Prepared("말", b"fLaC", "flac", 0.1, RATE))
        index = write_shards([Utterance(id, "a.wav", "말") for id in ids], folder / "s", seed=None)
    again = read_index(folder / "s")
    assert [entry.id for entry in again.entries] == ids
    assert [read_sample(again, entry).id for entry in again.entries] == ids
    assert len(list(iterate(index.place(0)))) == len(ids)


def test_odd_ids_survive(corpus, tmp_path):
    index = write_shards(corpus(ODD_IDS), tmp_path / "한글 폴더")
    assert {read_sample(index, entry).id for entry in index.entries} == set(ODD_IDS)
    assert sorted(os.listdir(tmp_path)) == ["한글 폴더"]


def test_progress_counts_utterances_and_shards(ten, tmp_path):
    calls = []
    index = write_shards(ten, tmp_path / "s", shard_utterances=5, progress=lambda *call: calls.append(call))
    verify(index, progress=lambda *call: calls.append(call))
    assert calls == [(done, 10) for done in range(1, 11)] + [(1, 2), (2, 2)]


# ------------------------------------------------------------------------------------------- what is left out and why


def test_what_cannot_be_used_is_left_out_counted_and_named(ten, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"not audio at all")
    utterances = [
        *ten,
        Utterance("silent", ten[0].audio, " \n"),
        Utterance("broken", str(broken), "x"),
        Utterance("gone", str(tmp_path / "gone.wav"), "x"),
        Utterance("long", ten[0].audio, "x", seconds=2.0),
    ]
    ledger = Ledger()
    index = write_shards(utterances, tmp_path / "s", ledger=ledger, limit=0.5, workers=2)
    assert len(index) == 10
    assert {cause: list(ids) for cause, ids in ledger.cases.items()} == {
        "empty text": ["silent"],
        "audio cannot be decoded": ["broken"],
        "audio cannot be read": ["gone"],
        "audio is not as long as the manifest says": ["long"],
    }
    assert ledger.cases["audio cannot be decoded"]["broken"].startswith(f"{broken}: not audio")
    assert "0.10 s decoded, 2.00 s in the manifest" in str(ledger)
    with pytest.raises(UserError, match=r"4 of 14 utterances left out, more than 1.0% .*correct the recordings"):
        write_shards(utterances, tmp_path / "t")
    assert not list(tmp_path.glob("t*"))


def test_a_hopeless_run_stops_early(tmp_path):
    gone = [Utterance(str(number), str(tmp_path / "gone.wav"), "x") for number in range(500)]
    calls = []
    with pytest.raises(UserError, match=r"20 of 500 utterances left out"):
        write_shards(gone, tmp_path / "s", progress=lambda *call: calls.append(call), workers=2)
    assert len(calls) == 19


def test_nothing_left(ten, tmp_path):
    with pytest.raises(UserError, match=r"no utterance is left to write .*empty text: 1"):
        write_shards([dataclasses.replace(ten[0], text="")], tmp_path / "s", limit=1.0)
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------------------ refused and failed


def test_what_cannot_be_meant_is_refused_before_any_work(ten, tmp_path):
    with pytest.raises(UserError, match="encode is 'mp3'; wanted flac or original"):
        write_shards(ten, tmp_path / "s", encode="mp3")
    with pytest.raises(UserError, match="rate is 16000, but encode=original keeps"):
        write_shards(ten, tmp_path / "s", encode="original", rate=16_000)
    with pytest.raises(UserError, match="no utterances to write"):
        write_shards([], tmp_path / "s")
    with pytest.raises(UserError, match="the id 'u0' is there twice"):
        write_shards([ten[0], ten[0]], tmp_path / "s")
    with pytest.raises(UserError, match="is a mount point"):
        module._check_request(ten, Path("/proc"), "flac", None)
    assert os.listdir(tmp_path) == []


def test_a_folder_in_use_is_refused_and_kept(ten, tmp_path):
    write_shards(ten[:1], tmp_path / "s")
    before = contents(tmp_path / "s")
    with pytest.raises(UserError, match="holds shards already"):
        write_shards(ten, tmp_path / "s")
    assert contents(tmp_path / "s") == before
    (tmp_path / "other").mkdir()
    write_shards(ten[:1], tmp_path / "other")  # empty: taken
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "photo.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="holds other things"):
        write_shards(ten, tmp_path / "third")
    (tmp_path / "fourth.part").mkdir()
    with pytest.raises(UserError, match=r"fourth\.part is there: another run .* delete it"):
        write_shards(ten, tmp_path / "fourth")
    assert (tmp_path / "fourth.part").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot write shards: File exists"):
        write_shards(ten, tmp_path / "file" / "s")


@pytest.mark.filterwarnings("error")
def test_full_disk(ten, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module._Hashing, "write", full)
    with pytest.raises(UserError, match=r"s: the disk is full; free some space"):
        write_shards(ten, tmp_path / "s")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_leaves_nothing(ten, tmp_path, workers):
    def interrupt(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(ten, tmp_path / "s", shard_utterances=2, progress=interrupt, workers=workers)
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------------------ a damaged index


@pytest.fixture
def made(ten, tmp_path):
    return write_shards(ten[:4], tmp_path / "s", shard_utterances=2)


def change(index, edit):
    path = Path(index.root) / "index.json"
    record = json.loads(path.read_text("utf-8"))
    edit(record)
    path.write_text(json.dumps(record), "utf-8")


EDITS = [
    (lambda r: r.update(format=2), r"index.json: format 2, but this version of las reads format 1; make"),
    (lambda r: r.pop("format"), "not an index of shards"),
    (lambda r: r.pop("shards"), "no list 'shards' in it"),
    (lambda r: r.update(utterances={}), "no list 'utterances' in it"),
    (lambda r: r["utterances"][1].pop("crc32"), r"utterances\[1\] is \{.*; wanted id, shard, offset"),
    (lambda r: r["utterances"].append(3), r"utterances\[4\] is 3; wanted"),
    (lambda r: r["shards"][0].update(bytes="10"), r"shards\[0\] is .*: a value of another type"),
    (lambda r: r["utterances"][0].update(offset=True), r"utterances\[0\] is .*: a value of another type"),
    (lambda r: r["shards"][0].update(name="../x.tar"), r"the shard name '../x.tar' is not one las writes"),
    (lambda r: r["shards"][0].update(sha256="../x"), r"'../x' is no SHA-256 of shard-000000.tar"),
    (lambda r: r["utterances"][0].update(shard=2), "lies in no shard"),
    (lambda r: r["utterances"][0].update(shard=-1), "lies in no shard"),
    (lambda r: r["utterances"][0].update(size=-1), "lies in no shard"),
    (lambda r: r["utterances"][0].update(offset=10**9), "lies past the end of shard-000000.tar"),
    (lambda r: r["utterances"][0].update(seconds=float("nan")), r"has nan s and \d+ characters"),
    (lambda r: r["utterances"][0].update(seconds=0.0), "has 0.0 s and"),
    (lambda r: r["utterances"][0].update(characters=-1), "and -1 characters"),
    (lambda r: r["utterances"][0].update(id=r["utterances"][1]["id"]), "an id is there twice"),
    (lambda r: r["utterances"].pop(), "shard-000001.tar has 2 utterances, but 1 are listed"),
    (lambda r: r["shards"][0].update(bytes=10**6), r"shard-000000.tar: 10240 bytes, but the index says 1000000"),
]


@pytest.mark.parametrize(("edit", "message"), EDITS, ids=[message for _, message in EDITS])
def test_damaged_index(made, edit, message):
    change(made, edit)
    with pytest.raises(UserError, match=message):
        read_index(made.root)


def test_index_that_is_not_there_or_not_json(made, tmp_path):
    with pytest.raises(UserError, match=r"nowhere/index.json: no index here; `las shard MANIFEST"):
        read_index(tmp_path / "nowhere")
    (Path(made.root) / "index.json").write_bytes(b'{"format": 1, "sha')
    with pytest.raises(UserError, match=r"index\.json: not JSON"):
        read_index(made.root)
    (Path(made.root) / "index.json").write_bytes(b"[]")
    with pytest.raises(UserError, match="not an index of shards"):
        read_index(made.root)
    (Path(made.root) / "index.json").unlink()
    (Path(made.root) / "index.json").mkdir()
    with pytest.raises(UserError, match="cannot read the index: Is a directory"):
        read_index(made.root)


def test_missing_and_shortened_shards(made):
    path = Path(made.place(1))
    path.write_bytes(path.read_bytes()[:2048])
    for check in (lambda: read_index(made.root), lambda: verify(made)):
        with pytest.raises(UserError, match=r"shard-000001.tar: 2048 bytes, but the index says"):
            check()
    entry = made.entries[3]
    with pytest.raises(UserError, match=rf"shard-000001.tar, offset {entry.offset}, utterance '{entry.id}': .* early"):
        read_sample(made, entry)
    path.unlink()
    with pytest.raises(UserError, match=r"shard-000001.tar: the index names this shard, .*No such file"):
        read_index(made.root)
    with pytest.raises(UserError, match="cannot read: No such file"):
        read_text(made, entry)


# ------------------------------------------------------------------------------------------------ a damaged shard


def patch(index, entry, position, data):
    with Path(index.place(entry.shard)).open("r+b") as file:
        file.seek(entry.offset + position)
        file.write(data)


def test_a_flipped_byte_anywhere_in_the_audio_is_found(made):
    entry = made.entries[1]
    size = len(read_sample(made, entry).audio_bytes)
    data = bytearray(Path(made.place(0)).read_bytes())
    start = entry.offset + 5 * 512  # behind two small members and the audio's header
    assert data[start : start + 4] == b"fLaC"
    for position in range(start, start + size):
        with Path(made.place(0)).open("r+b") as file:
            file.seek(position)
            file.write(bytes([data[position] ^ (1 << position % 8)]))
            file.flush()
            with pytest.raises(
                UserError, match=rf"offset {entry.offset}, utterance '{entry.id}': the audio is damaged"
            ):
                read_sample(made, entry)
            file.seek(position)
            file.write(data[position : position + 1])
    read_sample(made, entry)


def test_a_flipped_byte_anywhere_in_the_shard_is_found_by_verify(made):
    data = Path(made.place(1)).read_bytes()
    for position in range(0, len(data), 97):
        Path(made.place(1)).write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(UserError, match=r"shard-000001.tar: SHA-256 \S*, but the index says \S*: damaged"):
            verify(made)


def test_a_flipped_byte_in_a_header_is_an_error_of_ours(made):
    entry = made.entries[0]
    data = Path(made.place(0)).read_bytes()
    for header in (0, 1024, 2048):
        for position in {*range(header, header + 512, 5)} - {*range(header + 148, header + 156)}:  # the sum itself
            patch(made, entry, position, bytes([data[entry.offset + position] ^ 1]))
            with pytest.raises(UserError, match=re.escape(made.place(0))):
                read_sample(made, entry)
            patch(made, entry, position, data[entry.offset + position : entry.offset + position + 1])


def test_what_lies_there_is_another_thing(made):
    first, second = made.entries[:2]
    with pytest.raises(UserError, match=rf"utterance '{first.id}': the audio is damaged"):
        read_sample(made, dataclasses.replace(second, id=first.id, crc32=first.crc32))
    with pytest.raises(UserError, match=rf"utterance 'other': the sample there is '{first.id}'"):
        read_sample(made, dataclasses.replace(first, id="other"))
    with pytest.raises(UserError, match=r"found \['json', 'flac'\] there"):
        read_sample(made, dataclasses.replace(first, offset=first.offset + 1024, size=first.size - 1024))
    with pytest.raises(UserError, match=r"found \[('txt'|'json'|'flac'|, )+\] there"):
        read_sample(made, dataclasses.replace(first, size=first.size + second.size))
    with pytest.raises(UserError, match="no transcript there"):
        read_text(made, dataclasses.replace(first, offset=first.offset + 1024))
    with pytest.raises(UserError, match="no sample there"):
        read_text(made, dataclasses.replace(first, offset=first.offset + 512))
    with pytest.raises(UserError, match="no sample there"):
        read_sample(made, dataclasses.replace(first, size=0))


def test_a_member_that_says_it_is_larger_than_the_shard_is_not_unpacked(tmp_path):
    """GNU's sparse files: ten kilobytes of tar may say that they are gigabytes of zeros."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member, holes = tarfile.TarInfo("00000000.txt"), b"1\n0\n0\n".ljust(512, b"\0")
        member.size = len(holes)
        facts = {"major": "1", "minor": "0", "name": "00000000.txt", "realsize": str(1 << 40)}
        member.pax_headers = {f"GNU.sparse.{name}": value for name, value in facts.items()}
        tar.addfile(member, io.BytesIO(holes))
    (tmp_path / "a.tar").write_bytes(content.getvalue())
    size = len(content.getvalue())
    index = Index(str(tmp_path), (Shard("a.tar", size, "", 1),), (Entry("u", 0, 0, size, 0, 1.0, 1),))
    with pytest.raises(UserError, match=r"found \[\] there"):
        read_sample(index, index.entries[0])


def test_damaged_text_and_json(made):
    entry = made.entries[0]
    data = Path(made.place(0)).read_bytes()[entry.offset : entry.offset + entry.size]
    patch(made, entry, 512, b"\xff")
    for read in (read_sample, read_text):
        with pytest.raises(UserError, match="the transcript is damaged"):
            read(made, entry)
    patch(made, entry, 512, data[512:1024])
    with pytest.raises(UserError, match="the transcript has 3 characters, but the index says 2"):
        read_text(made, dataclasses.replace(entry, characters=2))
    for damage in (b"[", b"[1]" + b" " * 500):
        patch(made, entry, 1536, damage[: data[1536:2048].rstrip(b"\0").__len__()])
        with pytest.raises(UserError, match="the JSON member is damaged"):
            read_sample(made, entry)


def test_a_text_is_read_without_the_audio(made):
    wanted = read_text(made, made.entries[0])
    with Path(made.place(0)).open("r+b") as file:
        file.truncate(1024)  # a header and a block of text
    assert read_text(made, made.entries[0]) == wanted


def test_a_long_text(ten, tmp_path):
    text = "가나다 😀" * 500
    index = write_shards([dataclasses.replace(ten[0], text=text)], tmp_path / "s")
    assert read_text(index, index.entries[0]) == read_sample(index, index.entries[0]).text == text


def test_an_index_of_300_000_utterances_is_read_in_3_seconds(tmp_path):
    per, size = 10_000, 20_480
    shards = [Shard(f"shard-{number:06d}.tar", per * size, "0" * 64, per) for number in range(30)]
    entries = [Entry(f"1089-134686-{n:06d}", n // per, n % per * size, size, n, 12.5, 180) for n in range(300_000)]
    for shard in shards:
        with (tmp_path / shard.name).open("wb") as file:
            file.truncate(shard.bytes)
    module._write_index(tmp_path, shards, entries)
    start = time.process_time()
    index = read_index(tmp_path)
    assert time.process_time() - start < 3
    assert index == Index(str(tmp_path), tuple(shards), tuple(entries))
