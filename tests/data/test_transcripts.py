"""Lists of transcripts beside recordings; what the recipes' own tests do not show."""

import pytest

from las.data.transcripts import by_stem, pair, read_lines, read_transcripts, read_tree
from las.errors import UserError


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_only_a_line_feed_ends_a_line(tmp_path):
    path = write(tmp_path / "list", "\ufeffa eins\u2028zwei \r\n\n  b\t둘\n".encode())
    assert [line for _, line in read_lines(path)] == ["a eins\u2028zwei", "b\t둘"]
    assert read_transcripts(path) == {"a": "eins\u2028zwei", "b": "둘"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a \xff\n", "not UTF-8, in which it is published"),
        (b"a\n", "line 1: 'a' has no text; wanted `ID TEXT`"),
        (b"a x\na y\n", "line 2: the id a was there already"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path, content, complaint):
    with pytest.raises(UserError, match=complaint):
        read_transcripts(write(tmp_path / "list", content))


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"list: cannot be read: No such file or directory; the copy is not whole"):
        list(read_lines(tmp_path / "list"))


def test_audio_files_by_stem(tmp_path):
    paths = [tmp_path / name for name in ("b.FLAC", "a.wav", "a.txt")]
    assert list(by_stem(paths)) == ["a", "b"]
    with pytest.raises(UserError, match=r"a\.wav: the id is also that of .*a\.flac; remove one"):
        by_stem([*paths, tmp_path / "a.flac"])


def test_both_sides_must_be_whole(tmp_path):
    with pytest.raises(UserError, match="2 recordings without a line in list: a, b; the copy is not whole"):
        pair(tmp_path, {}, {"b": tmp_path, "a": tmp_path}, "list", str)
    with pytest.raises(UserError, match="1 lines of list without a recording: a; the copy is not whole"):
        pair(tmp_path, {"a": "x"}, {}, "list", str)


def test_a_folder_that_is_no_such_tree(tmp_path):
    with pytest.raises(UserError, match=r"no SCRIPT/SPEAKER/SPEAKER_SCRIPT\.trans\.txt in it; the copy is not whole"):
        read_tree(tmp_path, "SCRIPT/SPEAKER/SPEAKER_SCRIPT.trans.txt")
    write(tmp_path / "003/104/104_003_0000.flac", b"")
    with pytest.raises(UserError, match=r"1 no such transcripts: 003/104/104_003\.trans\.txt; the copy is not whole"):
        read_tree(tmp_path, "SCRIPT/SPEAKER/SPEAKER_SCRIPT.trans.txt")
