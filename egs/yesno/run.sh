#!/usr/bin/env bash
# Hebrew yes and no, from recordings to WER:  ./run.sh [OUTPUT] [KEY=VALUE]...
#   CORPUS=DIR      where waves_yesno lies; else $LAS_CORPORA/waves_yesno, else it is downloaded
#   STAGE=N         begin with stage N: 1 prepare, 2 tokens, 3 shards, 4 train, 5 evaluate
#   RESULTS=FILE    results are added here; default OUTPUT/RESULTS.md
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
output=$recipe/exp
if [ $# -gt 0 ] && [[ $1 != *=* ]]; then
    mkdir -p "$1"
    output=$(cd "$1" && pwd)
    shift
fi
data=$output/data
stage=${STAGE:-1}
conf=${CONF:-$recipe/conf/train.yaml}
python=$(command -v python || command -v python3)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}

say() { echo "== $1" >&2; }

if [ "$stage" -le 1 ]; then
    say "1 prepare: recordings to manifests"
    "$python" "$recipe/prepare.py" ${CORPUS:+--corpus "$CORPUS"} --output "$data"
fi
if [ "$stage" -le 2 ]; then
    say "2 tokens"
    las tokenizer "$data/train.jsonl" --size 20 -o "$data/tokenizer.model"
fi
if [ "$stage" -le 3 ]; then
    say "3 shards"
    rm -rf "$data/shards"
    for part in train dev test; do
        las shard "$data/$part.jsonl" -o "$data/shards/$part"
    done
fi
cd "$output"    # the config's paths begin here
if [ "$stage" -le 4 ]; then
    say "4 train"
    las train "$conf" "$@" -o "$output/run"
fi
if [ "$stage" -le 5 ]; then
    say "5 evaluate"
    las evaluate test=data/shards/test --model run/model -o run/hypotheses --append "${RESULTS:-$output/RESULTS.md}"
fi
