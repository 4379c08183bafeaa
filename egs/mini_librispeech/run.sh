#!/usr/bin/env bash
# Read English in little, from recordings to WER:  ./run.sh [OUTPUT] [KEY=VALUE]...  (variables: egs/stages.sh)
# CONF: smoke (default; minutes on 2 cores) or train (the serious one)
# PREPARE: default "--train train-clean-5"; "" takes train-clean-100 too where it is
source "$(dirname "$0")/../stages.sh"
prepare --train train-clean-5
tokens 300
sharding=(--encode original)
shards train dev glance
train smoke
valid=$(sed -n 's/.*"valid": "\([^"]*\)".*/\1/p' "$data/corpus.json")
evaluate "$valid=data/shards/dev"
