#!/usr/bin/env bash
# Read English in little, from recordings to WER:  ./run.sh [OUTPUT] [KEY=VALUE]...  (variables: egs/stages.sh)
# CONF: smoke (default; minutes on 2 cores) or train (the serious one; it begins with a model of synthetic voices)
# PREPARE: default "--train train-clean-5"; "" takes train-clean-100 too where it is
# PHRASES: how many phrases synthetic voices say for CONF=train; default 9000, at least 1300 (conf/voices.yaml grows)
source "$(dirname "$0")/../stages.sh"

voices() {    # a model to begin with, which leaves the plateau of the loss; once
    cd "$output"
    if [ "${CONF:-smoke}" != train ] || ! stage 4 "begin with synthetic voices"; then return 0; fi
    if [ ! -e voices/config.yaml ]; then
        "$(command -v python || command -v python3)" "$recipe/prepare_voices.py" --output "$data" --phrases "${PHRASES:-9000}"
        rm -rf "$data/voices/shards"
        local set
        for set in train valid; do
            las shard "$data/voices/$set.jsonl" -o "$data/voices/shards/$set"
        done
    fi
    local key sizes=()
    for key in "${keys[@]}"; do
        if [[ $key == model.* ]]; then sizes+=("$key"); fi    # the two models must be alike
    done
    fit voices voices "${sizes[@]}"
    keys=(init=voices/model "${keys[@]}")
}

prepare --train train-clean-5
tokens 300
sharding=(--encode original)
shards train dev glance
voices
train smoke
valid=$(sed -n 's/.*"valid": "\([^"]*\)".*/\1/p' "$data/corpus.json")
evaluate "$valid=data/shards/dev"
