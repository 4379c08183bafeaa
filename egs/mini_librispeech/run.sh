#!/usr/bin/env bash
# Read English, from recordings to WER:  ./run.sh [OUTPUT] [KEY=VALUE]...
#   CONF=NAME       conf/NAME.yaml: smoke (default; minutes on 2 cores) or train (the serious one)
#   CORPUS=DIR      where LibriSpeech lies; else $LAS_CORPORA/LibriSpeech, else Mini LibriSpeech is downloaded
#   PREPARE="..."   options of prepare.py; default "--train train-clean-5"; "" takes train-clean-100 too where it is
#   TOKENS=N        sub-words; default 300
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
conf=$recipe/conf/${CONF:-smoke}.yaml
python=$(command -v python || command -v python3)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}

say() { echo "== $1" >&2; }

if [ "$stage" -le 1 ]; then
    say "1 prepare: recordings to manifests"
    # shellcheck disable=SC2086
    "$python" "$recipe/prepare.py" ${CORPUS:+--corpus "$CORPUS"} --output "$data" ${PREPARE---train train-clean-5}
fi
if [ "$stage" -le 2 ]; then
    say "2 tokens"
    las tokenizer "$data/train.jsonl" --size "${TOKENS:-300}" -o "$data/tokenizer.model"
fi
if [ "$stage" -le 3 ]; then
    say "3 shards"
    rm -rf "$data/shards"
    for part in train dev glance; do
        las shard "$data/$part.jsonl" --encode original -o "$data/shards/$part"
    done
fi
cd "$output"    # the config's paths begin here
if [ "$stage" -le 4 ]; then
    say "4 train"
    las train "$conf" "$@" -o "$output/run"
fi
if [ "$stage" -le 5 ]; then
    valid=$(sed 's/.*"valid": "\([^"]*\)".*/\1/' "$data/corpus.json")
    say "5 evaluate on $valid"
    las evaluate "$valid=data/shards/dev" --model run/model -o run/hypotheses --append "${RESULTS:-$output/RESULTS.md}"
fi
