"""ESPnet's RNN encoder-decoder with CTC on the lists of egs/mini_librispeech, within a budget of processor time.

    pip install torch==2.11.0 torchaudio==2.11.0 soundfile sentencepiece jiwer numpy nltk einops
    pip install --no-deps espnet==202511 ci_sdr fast-bss-eval==0.1.3 asteroid-filterbanks==0.4.0
    pip install typeguard configargparse humanfriendly kaldiio h5py librosa torch_complex hydra-core opt-einsum
    pip install editdistance pyyaml packaging
    python tools/peer_espnet.py DATA OUTPUT --cpu-seconds 9000 --plain-lstm

DATA holds train.jsonl, dev.jsonl, glance.jsonl and tokenizer.model. Model, features, SpecAugment, batches, losses and
beam search are ESPnet's own; the loop around them is ours, so that a run can be limited by processor time and resumed
amid an epoch by the same command. `--plain-lstm` computes the encoder's LSTM unpacked, with the same weights and
outputs: torch's backward pass of a packed one grows with the square of the length on a CPU. One thread. In the end
dev.jsonl is decoded without a language model.
"""

import argparse
import json
import logging
import os
import random
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock

os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("g2p_en", "jamo", "jaconv", "tacotron_cleaner", "tacotron_cleaner.cleaners"):
    sys.modules[name] = MagicMock()  # text cleaners for speech synthesis: imported by ESPnet, not used here

# ruff: noqa: E402
import jiwer
import numpy as np
import soundfile
import torch
import torchaudio
import yaml
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.bin.asr_inference import Speech2Text
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from espnet2.samplers.folded_batch_sampler import FoldedBatchSampler
from espnet2.tasks.asr import ASRTask
from sentencepiece import SentencePieceProcessor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

RATE, SPEEDS, SEED = 16000, (0.9, 1.0, 1.1), 0
FOLD = (80000, 150)  # asr.sh: --asr_speech_fold_length 800 (x 100 samples), --asr_text_fold_length 150
BATCH_SIZE, GRAD_CLIP = 30, 5.0  # egs2/{an4,wsj}: batch_type folded, batch_size 30; grad_clip is ESPnet's default
STATE = {
    "epoch": 1,
    "batch": 0,
    "updates": 0,
    "cpu": 0.0,
    "heard": 0.0,
    "best": -1.0,
    "best_updates": 0,
    "stopped": 0.0,
    "epochs": 0.0,
}


def settings(options, tokenizer, stats_file):
    """ESPnet's defaults for ASRTask, plus what egs2/wsj and egs2/an4 train_asr_rnn.yaml say, with smaller layers."""
    argv, sys.argv = sys.argv, sys.argv[:1]
    config = ASRTask.get_default_config()
    sys.argv = argv
    pieces = SentencePieceProcessor(str(tokenizer))
    special = {pieces.unk_id(), pieces.bos_id(), pieces.eos_id(), pieces.pad_id()}
    tokens = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size()) if i not in special]
    encoder = {"rnn_type": "lstm", "bidirectional": True, "use_projection": True, "num_layers": 4, "dropout": 0.0}
    units = 256 if options.encoder == "vgg_rnn" else 384
    encoder.update(hidden_size=units, output_size=units)
    if options.encoder == "rnn":
        encoder.update(subsample=[2, 2, 1, 1])  # ESPnet's default pyramid
    config.update(
        token_type="bpe", bpemodel=str(tokenizer), token_list=["<blank>", "<unk>", *tokens, "<sos/eos>"],
        frontend="default", frontend_conf={"fs": RATE, "n_mels": 80, "hop_length": 128},
        normalize="global_mvn", normalize_conf={"stats_file": str(stats_file)},
        encoder=options.encoder, encoder_conf=encoder,
        decoder="rnn", decoder_conf={"rnn_type": "lstm", "num_layers": 1, "hidden_size": 320, "dropout": 0.0},
        model_conf={"ctc_weight": 0.5, "lsm_weight": 0.1, "length_normalized_loss": False},
        init="xavier_uniform", seed=SEED,
    )  # fmt: skip
    if options.specaug:  # egs2/librispeech_100 tuning/train_asr_conformer.yaml; ESPnet's RNN recipes have none
        config.update(specaug="specaug", specaug_conf={
            "apply_time_warp": True, "time_warp_window": 5, "time_warp_mode": "bicubic",
            "apply_freq_mask": True, "freq_mask_width_range": [0, 30], "num_freq_mask": 2,
            "apply_time_mask": True, "time_mask_width_range": [0, 40], "num_time_mask": 2,
        })  # fmt: skip
    return config


def read(path, dtype="float32"):
    speech, rate = soundfile.read(path, dtype=dtype)
    assert (rate, speech.ndim) == (RATE, 1), path
    return speech


def rows_of(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


class Corpus:
    """One list as ESPnet's data set: (uid, {speech, text}); decoded audio is kept in memory as 16 bit."""

    def __init__(self, path, output, preprocess, speeds=(1.0,)):
        self.rows, self.seconds, self.audio, self.preprocess = {}, {}, {}, preprocess
        self.resample = {s: torchaudio.transforms.Resample(round(RATE * s), RATE) for s in speeds if s != 1.0}
        shapes = [str(output / f"{path.stem}.{kind}_shape") for kind in ("speech", "text")]
        with open(shapes[0], "w") as speech, open(shapes[1], "w") as text:
            for row in rows_of(path):
                tokens = len(preprocess(row["id"], {"text": row["text"]})["text"])
                for speed in speeds:
                    uid = row["id"] if speed == 1.0 else f"sp{speed}-{row['id']}"
                    self.rows[uid], self.seconds[uid] = (row, speed), row["seconds"] / speed
                    print(uid, int(self.seconds[uid] * RATE), file=speech)
                    print(uid, tokens, file=text)
        self.batches = FoldedBatchSampler(BATCH_SIZE, shapes, FOLD)

    def __getitem__(self, uid):
        row, speed = self.rows[uid]
        if row["id"] not in self.audio:
            self.audio[row["id"]] = read(row["audio"], "int16")
        speech = self.audio[row["id"]].astype(np.float32) / 32768
        if speed != 1.0:
            speech = self.resample[speed](torch.from_numpy(speech)).numpy()
        return uid, self.preprocess(uid, {"speech": speech, "text": row["text"]})


class PlainLSTM(torch.nn.LSTM):
    """Option --plain-lstm: the same bidirectional layer and numbers without torch's packed kernel.

    On a CPU the backward pass of a packed LSTM takes time quadratic in the length (torch 2.11).
    """

    def forward(self, packed, hx=None):
        x, n = pad_packed_sequence(packed, batch_first=True)
        i, n_ = torch.arange(x.size(1))[None], n[:, None]
        flip = torch.where(i < n_, n_ - 1 - i, i)[..., None]  # reverses each utterance within its own length
        zero, out = x.new_zeros(1, len(x), self.hidden_size), []
        for weights, y in ((self._flat_weights[:4], x), (self._flat_weights[4:], x.gather(1, flip.expand_as(x)))):
            out.append(torch._VF.lstm(y, (zero, zero), weights, True, 1, 0.0, self.training, False, True)[0])
        out[1] = out[1].gather(1, flip.expand_as(out[1]))
        return pack_padded_sequence(torch.cat(out, -1), n, batch_first=True), None


def collect_stats(rows, frontend, path):
    """Mean and variance of the log-mel features over the training list (stage 10 of asr.sh)."""
    count, total, square = 0, 0.0, 0.0
    with torch.no_grad():
        for row in rows:
            speech = torch.from_numpy(read(row["audio"]))[None]
            feats = frontend(speech, torch.tensor([speech.size(1)]))[0][0].double()
            count, total, square = count + len(feats), total + feats.sum(0), square + (feats**2).sum(0)
    np.savez(path, count=count, sum=total.float().numpy(), sum_square=square.float().numpy())


def validate(model, corpus, collate):
    model.eval()
    sums, weight = {}, 0
    with torch.no_grad():
        for batch in corpus.batches:
            _, stats, n = model(**collate([corpus[uid] for uid in batch])[1])
            weight += int(n)
            for key, value in stats.items():
                sums[key] = sums.get(key, 0.0) + float(value if value is not None else np.nan) * int(n)
    model.train()
    return {key: value / weight for key, value in sums.items() if np.isfinite(value)}


def save(path, content):
    torch.save(content, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


def train(options, config, output):
    args = argparse.Namespace(**config)
    torch.manual_seed(SEED), np.random.seed(SEED), random.seed(SEED)
    model = ASRTask.build_model(args)
    for layer in model.encoder.modules() if options.plain_lstm else ():
        if type(layer) is torch.nn.LSTM:
            layer.__class__ = PlainLSTM
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0, rho=0.95, eps=1e-8, weight_decay=0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=1)
    state = dict(STATE, valid=[], parameters=sum(p.numel() for p in model.parameters()))
    checkpoint = output / "checkpoint.pth"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        for part, name in ((model, "model"), (optimizer, "optimizer"), (scheduler, "scheduler")):
            part.load_state_dict(saved[name])
        torch.set_rng_state(saved["rng"][0]), np.random.set_state(saved["rng"][1]), random.setstate(saved["rng"][2])
        state = saved["state"]
        logging.info("resumed at epoch %(epoch)d batch %(batch)d, %(cpu).0f cpu s", state)
    if state["stopped"] >= options.cpu_seconds:
        return state
    (output / "dev.hyp.jsonl").unlink(missing_ok=True)  # of an earlier, shorter run
    clock = time.process_time() - state["cpu"]  # the budget: everything from here on, list reading included
    preprocess, collate = ASRTask.build_preprocess_fn(args, train=True), ASRTask.build_collate_fn(args, train=True)
    corpus = Corpus(options.data / "train.jsonl", output, preprocess, SPEEDS)
    glance = Corpus(options.data / "glance.jsonl", output, ASRTask.build_preprocess_fn(args, train=False))
    # A third of the three-fold speed-perturbed list is one epoch: one pass over the hours of train.jsonl.
    per_epoch = max(1, len(corpus.batches) // len(SPEEDS))
    factory = SequenceIterFactory(corpus, corpus.batches, per_epoch, seed=SEED, shuffle=True)
    logging.info("%.2f M parameters, %d batches an epoch", state["parameters"] / 1e6, per_epoch)

    def keep():
        state["cpu"] = time.process_time() - clock
        rng = torch.get_rng_state(), np.random.get_state(), random.getstate()
        parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        save(checkpoint, dict(parts, rng=rng, state=state))

    def check():
        stats = validate(model, glance, collate)
        state["valid"].append({"epoch": state["epoch"], "updates": state["updates"], **stats})
        if stats["acc"] > state["best"]:
            state["best"], state["best_updates"] = stats["acc"], state["updates"]
            save(output / "valid.acc.best.pth", model.state_dict())
        values = " ".join(f"{k} {v:.3f}" for k, v in stats.items())
        logging.info("glance after %d updates: %s, %.0f cpu s", state["updates"], values, time.process_time() - clock)
        return stats["loss"]

    def step(batch):
        loss, stats, _ = model(**collate([corpus[uid] for uid in batch])[1])
        optimizer.zero_grad()
        loss.backward()
        if torch.isfinite(torch.nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)):
            optimizer.step()
        else:
            logging.warning("gradient is not finite, update skipped")
        state["updates"], state["batch"] = state["updates"] + 1, state["batch"] + 1
        return [float(loss), *(float(stats[key]) for key in ("loss_ctc", "loss_att", "acc"))]

    model.train()
    saved_at, window = time.monotonic(), []
    while not state["stopped"] >= options.cpu_seconds:
        for batch in list(factory.build_iter(state["epoch"]).batch_sampler)[state["batch"] :]:
            start, seconds = time.process_time(), sum(corpus.seconds[uid] for uid in batch)
            if start - clock >= options.cpu_seconds:
                state["stopped"] = start - clock
                break
            window.append([*step(batch), seconds, time.process_time() - start])
            state["heard"] += seconds
            if len(window) == options.log:
                *means, heard, spent = np.array(window).sum(0) / len(window)
                logging.info(
                    "epoch %d update %d loss %.2f ctc %.2f att %.2f acc %.3f, %.1f x real time, %.0f cpu s",
                    *(state["epoch"], state["updates"], *means),
                    *(heard / spent, time.process_time() - clock),
                )
                window = []
            if time.monotonic() - saved_at > options.save:
                keep()
                saved_at = time.monotonic()
        else:
            scheduler.step(check())
            state["epoch"], state["batch"] = state["epoch"] + 1, 0
            keep()
    if state["batch"]:
        check()  # the last, unfinished epoch is a candidate for the best model too (not part of the budget)
    state["epochs"] = state["epoch"] - 1 + state["batch"] / per_epoch
    keep()
    return state


def decode(options, output, state):
    """ESPnet's Speech2Text with valid.acc.best, its beam search over the whole list, no language model."""
    model = str(output / "config.yaml"), str(output / "valid.acc.best.pth")
    recogniser = Speech2Text(*model, beam_size=10, ctc_weight=0.4, lm_weight=0.0)
    logging.info("decoding with %s", type(recogniser.beam_search).__name__)
    logging.getLogger().setLevel(logging.WARNING)  # the search reports each hypothesis
    path = output / "dev.hyp.jsonl"
    done = rows_of(path) if path.exists() else []
    known = {row["id"] for row in done}
    with open(path, "a", encoding="utf-8") as file:
        for row in rows_of(options.data / "dev.jsonl"):
            if row["id"] in known:
                continue
            start = time.process_time()
            hyp = recogniser(read(row["audio"]))[0][0]
            spent = round(time.process_time() - start, 3)
            done.append({"id": row["id"], "ref": row["text"], "hyp": hyp, "cpu": spent})
            print(json.dumps(done[-1]), file=file, flush=True)
    out = jiwer.process_words([row["ref"] for row in done], [row["hyp"] for row in done])
    result = {"WER": round(100 * out.wer, 3), "S": out.substitutions, "D": out.deletions, "I": out.insertions}
    result.update(N=out.hits + out.substitutions + out.deletions, utterances=len(done))
    result.update(decode_cpu_seconds=round(sum(row["cpu"] for row in done), 1), cpu_seconds=state["stopped"])
    result.update(cpu_seconds_with_last_validation=state["cpu"], audio_hours=state["heard"] / 3600)
    result.update({key: state[key] for key in ("parameters", "epochs", "updates", "best_updates", "best", "valid")})
    (output / "dev.result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "valid"}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cpu-seconds", type=float, default=9000)
    parser.add_argument("--encoder", choices=["vgg_rnn", "rnn"], default="vgg_rnn")
    parser.add_argument("--plain-lstm", action="store_true", help="see PlainLSTM")
    parser.add_argument("--no-specaug", dest="specaug", action="store_false")
    parser.add_argument("--log", type=int, default=50, help="updates between two lines")
    parser.add_argument("--save", type=float, default=600, help="seconds between two checkpoints")
    parser.add_argument("--no-decode", dest="decode", action="store_false")
    options = parser.parse_args()
    torch.set_num_threads(1)
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    handlers = [logging.StreamHandler(sys.stdout), logging.FileHandler(output / "train.log")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True, handlers=handlers)
    logging.root.addFilter(lambda record: "make_pad_mask" not in record.getMessage())
    stats_file = output / "feats_stats.npz"
    config = settings(options, (options.data / "tokenizer.model").resolve(), stats_file)
    (output / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    if not stats_file.exists():  # data preparation, as in asr.sh: not part of the budget
        start = time.process_time()
        rows = rows_of(options.data / "train.jsonl")
        collect_stats(rows, DefaultFrontend(**config["frontend_conf"]), stats_file)
        logging.info("feature statistics: %.0f cpu s", time.process_time() - start)
    state = train(options, config, output)
    if options.decode:
        decode(options, output, state)


if __name__ == "__main__":
    main()
