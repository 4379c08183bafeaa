"""SpeechBrain's attention seq2seq with CTC on the lists of egs/mini_librispeech, within a budget of processor time.

    pip install torch==2.11.0 torchaudio==2.11.0 speechbrain==1.1.2 soundfile sentencepiece jiwer
    python tools/peer_speechbrain.py DATA OUTPUT --cpu-seconds 9000

DATA holds train.jsonl, dev.jsonl, glance.jsonl and tokenizer.model. The network, losses, features, speeds, schedule and
search are SpeechBrain's own parts, set as its mini-librispeech template sets them; where SETTINGS differs, a comment
says so. The same command resumes from OUTPUT/checkpoint.pt; once trained, dev.jsonl is decoded without a language
model. One thread. What came out: egs/mini_librispeech/RESULTS.md.
"""

import argparse
import ctypes
import json
import os
import random
import time

import jiwer
import numpy as np
import sentencepiece
import soundfile
import torch
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.decoders import CoverageScorer, CTCScorer, S2SRNNBeamSearcher, S2SRNNGreedySearcher, ScorerBuilder
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.CRDNN import CRDNN
from speechbrain.nnet.embedding import Embedding
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.losses import ctc_loss, nll_loss
from speechbrain.nnet.RNN import LSTM, AttentionalRNNDecoder
from speechbrain.nnet.schedulers import NewBobScheduler, update_learning_rate
from speechbrain.processing.features import InputNormalization

SETTINGS = {
    "seed": 2602,
    "batch": 8,
    "lr": 1.0,
    "rho": 0.95,
    "eps": 1e-8,
    "ctc_weight": 0.5,
    "label_smoothing": 0.1,
    "max_grad_norm": 5.0,  # the default of sb.Brain
    "speeds": [95, 100, 105],
    "mels": 40,
    "n_fft": 400,
    "dropout": 0.15,
    "cnn_channels": (32, 64),  # template (128, 256)
    "rnn_layers": 4,
    "rnn": 288,  # template 4 x 1024
    "dnn_blocks": 2,
    "dnn": 512,
    "emb": 128,
    "dec": 384,
    "attn": 384,  # template 1024, 1024
    "vocab": 300,
    "blank": 0,
    "bos": 2,
    "eos": 3,  # the tokenizer's own <blank>, <s>, </s>
    "beam": 10,  # template 80
    "ctc_weight_decode": 0.4,  # template 0.0; as in train_BPE_5000
    "coverage": 1.5,
    "scorer_beam_scale": 1.5,
    "eos_threshold": 1.5,
    "max_attn_shift": 240,
    "temperature": 1.25,
}
CHECKPOINT_EVERY, LOG_EVERY = 600, 50


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = CRDNN(
            input_shape=[None, None, SETTINGS["mels"]],
            activation=torch.nn.LeakyReLU,
            dropout=SETTINGS["dropout"],
            cnn_blocks=2,
            cnn_channels=SETTINGS["cnn_channels"],
            cnn_kernelsize=(3, 3),
            inter_layer_pooling_size=(2, 2),
            time_pooling=True,
            using_2d_pooling=False,
            time_pooling_size=4,
            rnn_class=LSTM,
            rnn_layers=SETTINGS["rnn_layers"],
            rnn_neurons=SETTINGS["rnn"],
            rnn_bidirectional=True,
            rnn_re_init=True,
            dnn_blocks=SETTINGS["dnn_blocks"],
            dnn_neurons=SETTINGS["dnn"],
            use_rnnp=False,
        )
        self.embedding = Embedding(num_embeddings=SETTINGS["vocab"], embedding_dim=SETTINGS["emb"])
        self.decoder = AttentionalRNNDecoder(
            enc_dim=SETTINGS["dnn"],
            input_size=SETTINGS["emb"],
            rnn_type="gru",
            attn_type="location",
            hidden_size=SETTINGS["dec"],
            attn_dim=SETTINGS["attn"],
            num_layers=1,
            scaling=1.0,
            channels=10,
            kernel_size=100,
            re_init=True,
            dropout=SETTINGS["dropout"],
        )
        self.ctc_lin = Linear(input_size=SETTINGS["dnn"], n_neurons=SETTINGS["vocab"])
        self.seq_lin = Linear(input_size=SETTINGS["dec"], n_neurons=SETTINGS["vocab"])
        self.fbank = Fbank(sample_rate=16000, n_fft=SETTINGS["n_fft"], n_mels=SETTINGS["mels"])
        self.normalize = InputNormalization(norm_type="global")  # its statistics: first epoch
        self.speed = SpeedPerturb(orig_freq=16000, speeds=SETTINGS["speeds"])

    def encode(self, wavs, lens, epoch):
        with torch.no_grad():
            if self.training:
                wavs = self.speed(wavs)
            feats = self.normalize(self.fbank(wavs), lens, epoch=epoch)
        return self.encoder(feats)

    def loss(self, batch, epoch, ctc):
        wavs, lens, tokens, tokens_lens, bos, eos, eos_lens = batch
        encoded = self.encode(wavs, lens, epoch)
        decoded, _ = self.decoder(self.embedding(bos), encoded, lens)
        loss = nll_loss(
            self.seq_lin(decoded).log_softmax(-1), eos, eos_lens, label_smoothing=SETTINGS["label_smoothing"]
        )
        if ctc:
            beside = ctc_loss(self.ctc_lin(encoded).log_softmax(-1), tokens, lens, tokens_lens, SETTINGS["blank"])
            loss = (1 - SETTINGS["ctc_weight"]) * loss + SETTINGS["ctc_weight"] * beside
        return loss, encoded

    def searcher(self, beam):
        settings = {
            "embedding": self.embedding,
            "decoder": self.decoder,
            "linear": self.seq_lin,
            "bos_index": SETTINGS["bos"],
            "eos_index": SETTINGS["eos"],
            "min_decode_ratio": 0.0,
            "max_decode_ratio": 1.0,
        }
        if beam == 1:
            return S2SRNNGreedySearcher(**settings)
        scorer = ScorerBuilder(
            full_scorers=[CoverageScorer(vocab_size=SETTINGS["vocab"])],
            partial_scorers=[CTCScorer(ctc_fc=self.ctc_lin, blank_index=SETTINGS["blank"], eos_index=SETTINGS["eos"])],
            weights={"coverage": SETTINGS["coverage"], "ctc": SETTINGS["ctc_weight_decode"]},
            scorer_beam_scale=SETTINGS["scorer_beam_scale"],
        )
        return S2SRNNBeamSearcher(
            **settings,
            beam_size=beam,
            eos_threshold=SETTINGS["eos_threshold"],
            using_max_attn_shift=True,
            max_attn_shift=SETTINGS["max_attn_shift"],
            temperature=SETTINGS["temperature"],
            scorer=scorer,
        )


def keep_memory():
    """Have malloc keep what is freed: page faults took a third of the processor time."""
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-3, 2**30), libc.mallopt(-1, -1)  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD: never
    blocks = [torch.zeros(2**26) for _ in range(12)]  # a heap of 3 GB, reused from here on
    del blocks
    return libc


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096


def load(folder, name, tokenizer):
    with open(os.path.join(folder, name + ".jsonl"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        row["wav"], rate = soundfile.read(os.path.join(folder, row["audio"]), dtype="int16")
        assert rate == 16000
        assert row["wav"].ndim == 1
        row["tokens"] = tokenizer.encode(row["text"])
    return sorted(rows, key=lambda row: row["seconds"])


def pad(items):
    """Tensors padded with zeros, and SpeechBrain's relative lengths."""
    longest = max(len(item) for item in items)
    lens = torch.tensor([len(item) / longest for item in items])
    return torch.nn.utils.rnn.pad_sequence(items, batch_first=True), lens


def collate(rows):
    wavs = pad([torch.from_numpy(row["wav"].astype(np.float32) / 32768) for row in rows])
    tokens = pad([torch.tensor(row["tokens"]) for row in rows])
    bos = pad([torch.tensor([SETTINGS["bos"]] + row["tokens"]) for row in rows])
    eos = pad([torch.tensor(row["tokens"] + [SETTINGS["eos"]]) for row in rows])
    return *wavs, *tokens, bos[0], *eos


def batches(rows, epoch=None):
    """Neighbours by length; ascending, and from the second training epoch in random order."""
    if epoch is not None and epoch > 1:
        draw = random.Random(epoch)
        rows = sorted(rows, key=lambda row: row["seconds"] + draw.uniform(-0.5, 0.5))
    cut = [rows[i : i + SETTINGS["batch"]] for i in range(0, len(rows), SETTINGS["batch"])]
    if epoch is not None and epoch > 1:
        draw.shuffle(cut)
    return cut


@torch.no_grad()
def recognise(net, rows, tokenizer, beam):
    """Mean loss of the decoder, and rows with their hypotheses."""
    net.eval()
    search, total, out = net.searcher(beam), 0.0, []
    for group in batches(rows):
        batch = collate(group)
        loss, encoded = net.loss(batch, None, ctc=False)
        total += loss.item() * len(group)
        hyps = search(encoded, batch[1])[0]
        for row, hyp in zip(group, hyps, strict=False):
            ids = [int(i) for i in hyp if int(i) not in (SETTINGS["blank"], SETTINGS["bos"], SETTINGS["eos"])]
            out.append({"id": row["id"], "ref": row["text"], "hyp": tokenizer.decode(ids)})
    net.train()
    return total / len(rows), out


def score(out):
    words = jiwer.process_words([row["ref"] for row in out], [row["hyp"] for row in out])
    s, d, i = words.substitutions, words.deletions, words.insertions
    return {"wer": words.wer, "S": s, "D": d, "I": i, "N": words.hits + s + d}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("data")
    args.add_argument("output")
    args.add_argument("--cpu-seconds", type=float, default=9000)
    args = args.parse_args()
    os.makedirs(args.output, exist_ok=True)
    torch.set_num_threads(1)
    libc = keep_memory()
    torch.manual_seed(SETTINGS["seed"])
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=os.path.join(args.data, "tokenizer.model"))
    net = Net()
    parameters = sum(p.numel() for p in net.parameters() if p.requires_grad)
    optimiser = torch.optim.Adadelta(net.parameters(), lr=SETTINGS["lr"], rho=SETTINGS["rho"], eps=SETTINGS["eps"])
    newbob = NewBobScheduler(SETTINGS["lr"], annealing_factor=0.8, improvement_threshold=0.0025)
    at = {"epoch": 1, "done": 0, "updates": 0, "cpu": 0.0, "heard": 0.0}  # done: batches of this epoch
    path = os.path.join(args.output, "checkpoint.pt")
    if os.path.exists(path):
        saved = torch.load(path, weights_only=False)
        net.load_state_dict(saved["net"])
        net.normalize._load_statistics_dict(saved["norm"])
        optimiser.load_state_dict(saved["optimiser"])
        newbob.__dict__.update(saved["newbob"])
        torch.set_rng_state(saved["rng"])
        at = saved["at"]
    before = at["cpu"]

    def cpu():
        return before + time.process_time()

    def save():
        at["cpu"] = cpu()
        torch.save(
            {
                "net": net.state_dict(),
                "norm": net.normalize._statistics_dict(),
                "at": at,
                "optimiser": optimiser.state_dict(),
                "newbob": vars(newbob),
                "rng": torch.get_rng_state(),
            },
            path + ".new",
        )
        os.replace(path + ".new", path)

    def validate():
        loss, out = recognise(net, glance, tokenizer, beam=1)
        print(
            f"glance: epoch {at['epoch']} updates {at['updates']} loss {loss:.4f} greedy WER "
            f"{score(out)['wer']:.4f} lr {newbob.hyperparam_value:.4f} cpu {cpu():.0f} s; "
            f"{out[0]['ref']!r} -> {out[0]['hyp']!r}",
            flush=True,
        )
        return loss

    print(f"{parameters} parameters; {at}; {args}", flush=True)
    if at["cpu"] < args.cpu_seconds:
        train, glance = (load(args.data, name, tokenizer) for name in ("train", "glance"))
        print(f"loaded, cpu {cpu():.0f} s", flush=True)
        last, logged, losses, audio = cpu(), cpu(), [], 0.0
        while cpu() < args.cpu_seconds:
            order = batches(train, at["epoch"])
            for group in order[at["done"] :]:
                loss, _ = net.loss(collate(group), at["epoch"], ctc=True)
                optimiser.zero_grad()
                if torch.isfinite(loss):
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(net.parameters(), SETTINGS["max_grad_norm"])
                    optimiser.step()
                seconds = sum(row["seconds"] for row in group)
                at.update(done=at["done"] + 1, updates=at["updates"] + 1, heard=at["heard"] + seconds)
                losses.append(loss.item())
                audio += seconds
                if resident() > 7e9:
                    libc.malloc_trim(0)
                if at["updates"] % LOG_EVERY == 0:
                    now = cpu()
                    print(
                        f"epoch {at['epoch']} update {at['updates']} loss "
                        f"{sum(losses) / len(losses):.4f} speed {audio / (now - logged):.1f} "
                        f"cpu {now:.0f} s memory {resident() / 1e9:.1f} GB",
                        flush=True,
                    )
                    logged, losses, audio = now, [], 0.0
                if cpu() - last > CHECKPOINT_EVERY:
                    save()
                    last = cpu()
                if cpu() >= args.cpu_seconds:
                    break
            else:
                update_learning_rate(optimiser, newbob(validate())[1])
                at.update(epoch=at["epoch"] + 1, done=0)
                logged, losses, audio = cpu(), [], 0.0
        save()
        validate()  # only to see; not in the budget
        print(f"trained: {at}", flush=True)
    dev, start = load(args.data, "dev", tokenizer), time.process_time()
    loss, out = recognise(net, dev, tokenizer, SETTINGS["beam"])
    decoding = time.process_time() - start
    with open(os.path.join(args.output, "dev.hyp.jsonl"), "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in out)
    with open(os.path.join(args.data, "train.jsonl"), encoding="utf-8") as file:
        steps = -(-len(file.readlines()) // SETTINGS["batch"])
    result = dict(
        **score(out),
        loss=loss,
        decoding_cpu_seconds=decoding,
        parameters=parameters,
        epochs=at["epoch"] - 1 + at["done"] / steps,
        updates=at["updates"],
        train_cpu_seconds=at["cpu"],
        audio_hours_heard=at["heard"] / 3600,
        settings=SETTINGS,
    )
    with open(os.path.join(args.output, "dev.result.json"), "w") as file:
        json.dump(result, file, indent=1)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
