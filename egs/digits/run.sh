#!/usr/bin/env bash
# Connected digits, from recordings to WER:  ./run.sh [OUTPUT] [KEY=VALUE]...
#   CORPUS=DIR      where FSDD lies; else $LAS_CORPORA/fsdd, else it is downloaded
#   PREPARE="..."   options of prepare.py, such as "--held-out theo" or "--offline"; default --train-all
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
    # shellcheck disable=SC2086
    "$python" "$recipe/prepare.py" ${CORPUS:+--corpus "$CORPUS"} --output "$data" ${PREPARE---train-all}
fi
if [ "$stage" -le 2 ]; then
    say "2 tokens"
    las tokenizer "$data/train.jsonl" --size 50 -o "$data/tokenizer.model"
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
    source=$(grep -o '"source": "[^"]*"' "$data/corpus.json" | cut -d'"' -f4)
    say "5 evaluate on $source recordings"
    mark=$([ "$source" = FSDD ] || echo "-$source")    # results on synthetic voices say so
    las evaluate "dev$mark=data/shards/dev" "test$mark=data/shards/test" --model run/model -o run/hypotheses \
        --append "${RESULTS:-$output/RESULTS.md}"
fi
