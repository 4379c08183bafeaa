#!/usr/bin/env bash
# Language models for the recogniser of run.sh:  ./lm.sh [OUTPUT] [KEY=VALUE]...    after stages 1 and 2 of run.sh OUTPUT
#   CONF=NAME       conf/NAME.yaml; default lm
#   TEXT=FILE       English text, a paragraph a line; else $LAS_CORPORA/lm/novels.txt.xz
#   ORDER=N         of the n-grams; default 6, without those of 4 and 5 tokens seen once and of 6 seen twice
#   STAGE=N         begin with stage N: 1 sentences, 2 n-grams, 3 LSTM, 4 perplexity of the validation set
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
output=$recipe/exp
if [ $# -gt 0 ] && [[ $1 != *=* ]]; then
    output=$(cd "$1" && pwd)
    shift
fi
data=$output/data
stage=${STAGE:-1}
conf=$recipe/conf/${CONF:-lm}.yaml
python=$(command -v python || command -v python3)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}

say() { echo "== $1" >&2; }

if [ ! -f "$data/tokenizer.model" ]; then
    echo "$data/tokenizer.model is not there: run egs/mini_librispeech/run.sh $output first" >&2
    exit 1
fi
if [ "$stage" -le 1 ]; then
    say "1 sentences"
    "$python" "$recipe/prepare_lm.py" ${TEXT:+--text "$TEXT"} --output "$data"
fi
cd "$output"    # the config's paths begin here
if [ "$stage" -le 2 ]; then
    say "2 n-grams"
    las lm ngram data/lm.txt.gz data/train.jsonl --tokenizer data/tokenizer.model --order "${ORDER:-6}" \
        --cutoffs 0,0,1,1,2 -o ngram.arpa.gz
fi
if [ "$stage" -le 3 ]; then
    say "3 LSTM"
    las lm train "$conf" "$@" -o lm
fi
if [ "$stage" -le 4 ]; then
    say "4 perplexity"
    {
        echo "n-grams:"
        las lm score data/dev.jsonl --model ngram.arpa.gz --tokenizer data/tokenizer.model
        echo "LSTM:"
        las lm score data/dev.jsonl --model lm/language_model
    } | tee perplexity.txt
fi
