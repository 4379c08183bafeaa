from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from las.audio import write_flac
from las.data.augment import change_speed
from las.data.manifest import read_manifest
from las.errors import UserError
from las.recipe.models import open_model
from las.text.tokenizer import BLANK, BOS, EOS
from las.transcribe import recognizer as module
from las.transcribe.recognizer import batches


@pytest.fixture(scope="module")
def able(trained):
    """A recognizer that knows the three tones."""
    return open_model(trained / "model", "cpu")[0]


@pytest.fixture(scope="module")
def recordings(corpus):
    return [(utterance.audio, utterance.text) for utterance in read_manifest(corpus / "valid.jsonl")]


def test_transcripts_come_in_the_order_of_the_sources(able, recordings):
    for order in (recordings, recordings[::-1]):
        found = able.transcribe([path for path, _ in order])
        assert [(one.source, one.text) for one in found] == order
        assert all(one.complete for one in found)


def test_a_batch_gives_what_single_recordings_give(able, recordings):
    paths = [path for path, _ in recordings]
    together = able.transcribe(paths)
    for path, one in zip(paths, together, strict=True):
        (alone,) = able.transcribe([path])
        assert alone.text == one.text
        assert alone.score == pytest.approx(one.score, abs=1e-4)
    small = able.transcribe(paths, batch_seconds=0.5)
    assert [one.text for one in small] == [one.text for one in together]


def test_every_kind_of_source(able, recordings, tools, tmp_path):
    path, text = recordings[1]
    content = Path(path).read_bytes()
    wave = tools.sing(text, 101)
    with open(path, "rb") as file:
        found = able.transcribe([path, Path(path), content, io.BytesIO(content), file, (wave, tools.rate),
                                 (wave.numpy(), tools.rate), write_flac(wave, tools.rate)])  # fmt: skip
    assert [one.text for one in found] == [text] * 8
    assert [one.source for one in found] == [
        path, path, "<bytes>", "<BytesIO>", path, "<tuple>", "<tuple>", "<bytes>",
    ]  # fmt: skip


def test_one_path_alone_and_a_generator_are_sources_too(able, recordings):
    path, text = recordings[0]
    assert [one.text for one in able.transcribe(path)] == [text]
    assert [one.text for one in able.transcribe(Path(path))] == [text]
    assert [one.text for one in able.transcribe(path for path, _ in recordings[:2])] == [
        recordings[0][1],
        recordings[1][1],
    ]
    assert able.transcribe([]) == []


def test_another_rate_and_two_channels_give_the_same_text(able, tools, recordings):
    text = recordings[1][1]
    wave = tools.sing(text, 7).repeat_interleave(2)
    assert able.transcribe([(torch.stack([wave, wave]), 2 * tools.rate)])[0].text == text


def test_seconds_are_those_of_the_recording(able, recordings, tools):
    for one, (_, text) in zip(able.transcribe([path for path, _ in recordings]), recordings, strict=True):
        assert one.seconds == pytest.approx(0.12 * len(text))


def test_beam_overrides_the_models_own(able, recordings, monkeypatch):
    seen = []
    search = module.beam_search
    monkeypatch.setattr(module, "beam_search", lambda *a: seen.append(a[2].beam) or search(*a))
    able.transcribe([recordings[0][0]])
    able.transcribe([recordings[0][0]], beam=1)
    able.transcribe([recordings[0][0]], beam=5)
    assert seen == [2, 1, 5]
    assert able.search.beam == 2


def test_as_many_alternatives_as_asked_for_best_first(able, recordings):
    (one,) = able.transcribe([recordings[0][0]], beam=4, best=3)
    assert len(one.alternatives) == len(set(one.alternatives)) == 3
    assert one.alternatives[0] == one.text == recordings[0][1]
    assert able.transcribe([recordings[0][0]], beam=4)[0].alternatives == ()


def test_a_source_that_cannot_be_read_raises_or_is_handed_over(able, recordings, tmp_path):
    broken = tmp_path / "부서진.wav"
    broken.write_bytes(b"RIFF, perhaps")
    sources = [recordings[0][0], str(broken), b"", recordings[1][0], str(tmp_path / "missing.wav")]
    with pytest.raises(UserError, match=r"부서진\.wav"):
        able.transcribe(sources)
    handed = []
    found = able.transcribe(sources, on_error=lambda source, error: handed.append((source, str(error))))
    assert [one.text for one in found] == [recordings[0][1], recordings[1][1]]
    assert [source for source, _ in handed] == [str(broken), b"", str(tmp_path / "missing.wav")]
    assert "there is no such file" in handed[2][1]


def test_a_damaged_sample_is_the_recording_s(able, recordings):
    wave = torch.zeros(8000)
    wave[4000] = 1e20
    handed = []
    sources = [recordings[0][0], (wave, 8000)]
    found = able.transcribe(sources, on_error=lambda source, error: handed.append(str(error)))
    assert [one.text for one in found] == [recordings[0][1]]
    assert "a sample of 1e+20; wanted sound, about -1 to 1" in handed[0]


def test_very_short_and_silent_recordings(able, tools):
    sources = [(torch.zeros(int(seconds * tools.rate)), tools.rate) for seconds in (1 / tools.rate, 0.01, 0.05, 3.0)]
    found = able.transcribe(sources)
    assert len(found) == 4
    assert all(isinstance(one.text, str) and one.score <= 0 for one in found)
    assert [one.text for one in found] == [able.transcribe([source])[0].text for source in sources]


def test_a_long_recording_is_cut_where_it_is_quiet(able, tools, monkeypatch):
    able = module.Recognizer(able.model, able.tokenizer, replace(able.search, whole=1.5, piece=1.5))
    pause = torch.zeros(int(0.4 * tools.rate))
    words = ["abc", "cab", "ba", "bb", "abc", "cab"]
    wave = torch.cat([part for word in words for part in (tools.sing(word, 3), pause)])  # 4.3 s
    decoded = []
    decode = able._decode
    monkeypatch.setattr(able, "_decode", lambda batch, asked: decoded.append(batch) or decode(batch, asked))
    lengths = []
    moved = []
    (one,) = able.transcribe(
        [(wave, tools.rate)],
        on_progress=lambda done: moved.append(done) or lengths.extend(len(piece.wave) for piece in decoded[-1]),
    )
    assert max(lengths) <= 1.5 * tools.rate
    assert sum(lengths) == len(wave)
    assert one.seconds == pytest.approx(len(wave) / tools.rate) == pytest.approx(sum(moved))
    assert "  " not in one.text
    assert one.alternatives == ()
    assert [segment.end for segment in one.segments[:-1]] == [segment.start for segment in one.segments[1:]]
    assert one.segments[-1].end == one.seconds
    monkeypatch.undo()
    (timed,) = able.transcribe([(wave, tools.rate)], words=True)
    assert timed.text == one.text == " ".join(word.text for word in timed.words)
    assert len(timed.words) > 2
    for segment in timed.segments:
        times = [segment.start, *(time for word in segment.words for time in (word.start, word.end)), segment.end]
        assert times == sorted(times)


def test_lengths_of_training_utterances_say_what_is_cut():
    lengths = [2.0] * 89 + [8.0] * 10 + [10.0]
    plain = module.SearchConfig()
    found = module.known_lengths(lengths, plain)
    assert (found.whole, found.piece) == (10.0, 8.0)
    assert module.known_lengths([*lengths, 0.5, 0.5], plain).piece == 8.0
    asked = module.known_lengths(lengths, replace(plain, piece=5.0))
    assert (asked.whole, asked.piece) == (10.0, 5.0)
    asked = module.known_lengths(lengths, replace(plain, whole=4.0))
    assert (asked.whole, asked.piece) == (4.0, 4.0)
    for seconds, expected in ((0.5, 3.0), (40.0, 30.0)):
        found = module.known_lengths([seconds], plain)
        assert (found.whole, found.piece) == (expected, expected)


@pytest.fixture
def breaking(monkeypatch):
    """Recordings of more than 20,000 samples break off at their end; the function that reads them so."""
    stream = module.audio.stream

    def read(source, rate):
        yield from stream(source, rate)
        if len(source[0]) > 20_000:
            raise UserError("damaged")

    monkeypatch.setattr(module.audio, "stream", read)
    return read


@pytest.mark.usefixtures("breaking")
def test_a_file_that_breaks_off_is_left_out_whole(able, tools, monkeypatch):
    """Its first pieces were decoded already; what came before and after it stays."""
    monkeypatch.setattr(module, "AHEAD", 0)
    short = (tools.sing("ab"), tools.rate)
    long = (0.01 * torch.randn(8 * tools.rate), tools.rate)
    errors = []
    found = able.transcribe([short, long, short], on_error=lambda _, error: errors.append(str(error)))
    assert [one.text for one in found] == ["ab", "ab"]
    assert errors == ["damaged"]


def test_two_of_one_name_are_told_apart(able, tools, breaking, monkeypatch):
    monkeypatch.setattr(able, "_cut", lambda source: breaking(source, able.rate))
    long = (0.01 * torch.randn(20_001), tools.rate)  # one piece, as that before it
    found = able.transcribe([(tools.sing("ab"), tools.rate), long], on_error=lambda *_: None)
    assert [one.text for one in found] == ["ab"]


def test_a_recording_beyond_thirty_seconds_is_cut(able, tools):
    (one,) = able.transcribe([(0.01 * torch.randn(31 * tools.rate), tools.rate)], beam=1)
    assert one.seconds == 31.0


@pytest.mark.slow
def test_an_hour_is_transcribed_in_pieces(able, tools):
    moved = []
    wave = 0.01 * torch.randn(3600 * tools.rate, generator=torch.Generator().manual_seed(0))
    (one,) = able.transcribe([(wave, tools.rate)], beam=1, on_progress=moved.append)
    assert one.seconds == pytest.approx(sum(moved)) == 3600.0
    assert len(moved) >= 3600 / 120


def test_pieces_are_joined_in_order_with_their_recording(able, tools, monkeypatch, recordings):
    """Pieces of two recordings share batches, and come back to their own."""
    waves = [torch.cat([tools.sing(text, 1) for text in texts]) for texts in (("abc", "bb "), ("cab", "ba "))]
    alone = [[able.transcribe([(half, tools.rate)])[0].text for half in wave.chunk(2)] for wave in waves]
    monkeypatch.setattr(module.segments, "pieces", lambda blocks, *_: torch.cat(list(blocks)).chunk(2))
    found = able.transcribe([(wave, tools.rate) for wave in waves])
    assert [one.text for one in found] == [" ".join(texts) for texts in alone]
    assert len({text for texts in alone for text in texts}) == 4


def test_progress_is_told_in_seconds_of_audio(able, recordings):
    moved = []
    found = able.transcribe([path for path, _ in recordings], on_progress=moved.append, batch_seconds=1.0)
    assert sum(moved) == pytest.approx(sum(one.seconds for one in found))
    assert len(moved) > 1


def test_transcripts_are_handed_out_before_all_is_read(able, recordings):
    """16 batches' worth is read ahead, not more."""
    read = []

    def sources():
        for number in range(40):
            read.append(number)
            yield recordings[1][0]  # 0.6 s each

    next(able.stream(sources(), batch_seconds=0.6))
    assert len(read) in (16, 17)  # sums of 0.6 are rounded


@pytest.mark.parametrize("budget", [0.5, 1.0, 3.0, 100.0])
def test_batches_hold_every_recording_once_within_the_budget(budget):
    seconds = [0.3, 1.2, 0.1, 0.7, 0.7, 2.0]
    found = list(batches(seconds, budget))
    assert sorted(number for batch in found for number in batch) == list(range(6))
    assert all(len(batch) == 1 or len(batch) * max(seconds[n] for n in batch) <= budget for batch in found)


def test_a_model_without_ctc_transcribes(run_config, random_model, tmp_path, recordings):
    """And one whose search does without the CTC branch that it has."""
    with_branch, _ = open_model(random_model, "cpu", ["search.ctc_weight=0"])
    assert len(with_branch.transcribe([recordings[0][0]])) == 1


def test_what_begins_or_ends_loud_is_heard_with_quiet_around(able, tools):
    """Each as if it were alone, and frame for frame as long as it is."""
    loud, hop = tools.sing("ab", 3), 160  # samples of a listener frame
    calm, late = functional.pad(loud, (1600, 1600)), functional.pad(loud, (1600, 0))
    quiet = math.ceil(module.QUIET * tools.rate / hop)
    found = able.listen([loud, calm, late])
    for row, (wave, before, after) in enumerate([(loud, quiet, quiet), (calm, 0, 0), (late, 0, quiet)]):
        longer = functional.pad(wave, (before * hop, after * hop))
        heard = able.model.listen(longer[None], torch.tensor([len(longer)]))
        frames = min(math.ceil(len(wave) / hop), int(heard.lengths) - before)
        assert int(found.lengths[row]) == frames
        assert torch.allclose(found.frames[row, :frames], heard.frames[0, before : before + frames], atol=1e-5)
        assert not found.valid[row, frames:].any()
        assert not found.frames[row, frames:].any()


def test_silence_has_no_transcript(trained, tools, recordings):
    able = module.Recognizer(*opened(trained), thresholds=module.Thresholds(0.0, 0.0, 1.0, -5.0))
    text, quiet = recordings[1][1], torch.zeros(tools.rate)
    found = able.transcribe([(quiet, tools.rate), recordings[1][0]], words=True, best=2, beam=2)
    assert [(one.text, one.verdict.name) for one in found] == [("", "silence"), (text, "ok")]
    assert (found[0].words, found[0].segments[0].alternatives, found[0].score) == ((), (), 0.0)
    assert [str(one) for one in found[0].complaints] == ["silence at 0.0 s: no speech to read"]
    assert found[1].complaints == ()
    assert str(module.Transcript("x", 0.0, ()).verdict) == "silence at 0.0 s: no sample in it"


def opened(trained):
    able, _ = open_model(trained / "model", "cpu")
    return able.model, able.tokenizer, able.search


def test_a_pause_is_no_complaint_and_places_are_the_recordings(able, tools, monkeypatch):
    """Pieces of 1 s: speech, silence, and speech that a verdict is bad on."""
    monkeypatch.setattr(module.segments, "pieces", lambda blocks, *_: torch.cat(list(blocks)).chunk(3))
    verdicts = iter(["low", "silence", "ok"])  # batches begin with the longest, which are equal: in order
    monkeypatch.setattr(module, "judge", lambda *_: module.Verdict(next(verdicts), 0.25, "why"))
    (one,) = able.transcribe([(torch.randn(3 * tools.rate), tools.rate)])
    assert [segment.verdict.name for segment in one.segments] == ["low", "silence", "ok"]
    assert [segment.verdict.place for segment in one.segments] == [0.25, 1.25, 2.25]
    assert one.complaints == (one.verdict,) == (one.segments[0].verdict,)


@pytest.mark.parametrize(
    ("verdicts", "weights", "kept"),
    [
        (["ok"], [0.3], ["ok"]),
        (["loop", "ok"], [0.3, 0.65], ["ok"]),
        (["loop", "low", "ok", "ok"], [0.3, 0.65, 0.3], ["ok", "ok"]),
        (["loop", "low", "skipped", "ok"], [0.3, 0.65, 0.3], ["skipped", "ok"]),
        (["loop", "silence", "ok", "low"], [0.3, 0.65, 0.3], ["ok", "low"]),
    ],
)
def test_what_has_a_bad_verdict_is_decoded_again(able, tools, monkeypatch, verdicts, weights, kept):
    seen, left = [], iter(verdicts)
    spell = able.spell
    monkeypatch.setattr(
        able, "spell", lambda heard, search, *a: seen.append(search.ctc_weight) or spell(heard, search, *a)
    )
    monkeypatch.setattr(module, "judge", lambda *_: module.Verdict(next(left)))
    (one,) = able.transcribe([(tools.sing("ab cab"), tools.rate)], retry=True)
    assert seen == pytest.approx(weights)
    assert [segment.verdict.name for segment in one.segments] == kept
    assert one.segments[-1].end == pytest.approx(one.seconds)


def test_an_empty_transcript_of_speech_never_stands_better():
    cut, still = module.Verdict("truncated"), module.Verdict("silence")
    empty, said = module.Segment("", 0, 2, 0, True, verdict=cut), module.Segment("ab", 0, 2, -3, True, verdict=cut)
    said = replace(said, confidence=0.3)
    silent = module.Segment("", 2, 3, 0, True, verdict=still, confidence=0.9)
    assert module._standing([empty]) < module._standing([said]) == module._standing([said, silent])
    assert module._standing([silent]) == (-1, 0)


def test_las_load_gives_a_recognizer(random_model, recordings):
    import las

    (one,) = las.load(str(random_model), device="cpu").transcribe([recordings[0][0]])
    assert one.source == recordings[0][0]


def test_hot_words_are_heard_where_the_bonus_is_large(able, recordings):
    path, text = recordings[0]
    assert able.transcribe([path], hot_words=["ab"])[0].text == text
    eager = open_model_with(able, "hot_word_bonus", 16.0)
    assert "cc" in eager.transcribe([path], hot_words=["cc", ""])[0].text
    assert eager.transcribe([path], hot_words=[" "])[0].text == text


def open_model_with(able, name, value):
    return module.Recognizer(able.model, able.tokenizer, replace(able.search, **{name: value}))


def test_a_hot_word_that_cannot_be_written_is_named(able, recordings):
    assert able.phrases(["A-b", "ab"]) == able.phrases(["a b", "ab"])  # lower case, as the model writes
    with pytest.raises(UserError, match="hot word '서울': the model's tokens cannot write '서울'"):
        able.transcribe([recordings[0][0]], hot_words=["ab", "서울"])


@pytest.mark.parametrize(("name", "value"), [("coverage", 0.01), ("internal_weight", 0.1), ("shortest", 0.01)])
def test_other_scorers_leave_a_sure_model_sure(able, recordings, name, value):
    path, text = recordings[0]
    assert open_model_with(able, name, value).transcribe([path])[0].text == text


def test_a_language_model_has_its_part(able, recordings):
    """One that wants no b."""

    class NoB:
        def __init__(self, batch):
            self.batch = batch

        def start(self):
            return None

        def step(self, tokens, state):
            scores = torch.zeros(*tokens.shape, able.tokenizer.size)
            scores[..., able.tokenizer.encode("b")] = -100.0
            return scores, state

        def select(self, state, utterances, parents):
            return state

    with_it = module.Recognizer(
        able.model, able.tokenizer, able.search, language_models=[lambda batch: module.Part("lm", NoB(batch), 0.5)]
    )
    paths = [path for path, _ in recordings]
    assert all("b" not in one.text for one in with_it.transcribe(paths))
    with_it.search = replace(able.search, beam=8, rescore=2)
    few = with_it.transcribe(paths)
    many = with_it.transcribe(paths, best=8)  # two are ranked anew, whatever number is asked for
    assert [one.text for one in few] == [one.text for one in many]


def test_bfloat16_gives_the_same_texts(trained, recordings):
    rounded, _ = open_model(trained / "model", "cpu", ["search.bfloat16=true"])
    assert rounded.model.precision == torch.bfloat16
    assert rounded.model.frontend.mean.dtype == torch.float32
    found = rounded.transcribe([path for path, _ in recordings])
    assert sum(one.text == text for one, (_, text) in zip(found, recordings, strict=True)) >= 7


@torch.no_grad()
def test_tokens_are_traced_in_order(able, recordings, tools):
    text = recordings[1][1]
    wave = tools.sing(text, 7)
    listened = able.model.listen(wave[None], torch.tensor([len(wave)]))
    ids = able.tokenizer.encode(text)
    [(_, traced)] = able.weigh(listened, [ids], [wave])
    assert len(traced.spans) == len(traced.peaks) == len(ids)
    assert [first for first, _ in traced.spans] == sorted(first for first, _ in traced.spans)
    torch.testing.assert_close(traced.weights.sum(1), torch.ones(len(ids) + 1))


@pytest.mark.parametrize(
    ("settings", "hot_words", "patience"),
    [
        ({}, [], 0.0),
        ({}, ["ab"], 1.0),
        ({"patience": 2.0}, ["ab"], 2.0),
        ({"internal_weight": 0.1}, [], 1.0),
        ({"token_reward": 0.1}, [], 1.0),
        ({"token_reward": -0.1}, [], 0.0),
    ],
)
def test_search_does_not_wait_for_what_could_always_win(able, recordings, monkeypatch, settings, hot_words, patience):
    seen = []
    search = module.beam_search
    monkeypatch.setattr(module, "beam_search", lambda *a: seen.append(a[2].patience) or search(*a))
    changed = module.Recognizer(able.model, able.tokenizer, replace(able.search, **settings))
    changed.transcribe([recordings[0][0]], hot_words=hot_words)
    assert seen == [patience]


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 4])
def test_the_search_goes_by_the_mean_of_all_speeds(able, recordings, tools, beam):
    search = replace(able.search, beam=beam, ctc_weight=0.4, other_speeds=(0.95, 1.1))
    wave = tools.sing(recordings[1][1], 7)
    hearings = able.hear([wave], search)
    slower, faster = (len(change_speed(wave, speed, able.rate)) for speed in search.other_speeds)
    assert faster < len(wave) < slower
    [[best, *_]] = able.spell(hearings, search)
    ids = torch.tensor([[BOS, *best.tokens, EOS]])
    spelled, heard = [], []
    for one in hearings:
        logits = able.model.speller(ids[:, :-1], able.model.remember(one))[0]
        logits[..., list(module.NEVER)] = -torch.inf
        spelled.append(float(logits.log_softmax(2).gather(2, ids[:, 1:, None]).sum()))
        likely = able.model.ctc(one.frames).log_softmax(2).transpose(0, 1)
        text, sizes = torch.tensor([best.tokens]), torch.tensor([len(best.tokens)])
        heard.append(-float(nn.functional.ctc_loss(likely, text, one.lengths, sizes, BLANK, reduction="sum")))
    assert len(set(spelled)) == len(set(heard)) == 3
    assert best.scores["speller"] == pytest.approx(sum(spelled) / 3, abs=1e-3)
    assert best.scores["ctc"] == pytest.approx(sum(heard) / 3, abs=1e-3)
