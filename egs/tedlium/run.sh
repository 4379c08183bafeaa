#!/usr/bin/env bash
# Talks in English, from recordings to WER:  ./run.sh [OUTPUT] [KEY=VALUE]...  (variables: egs/stages.sh)
# PREPARE: "--release 2" for the smaller one; default "--release 3"
source "$(dirname "$0")/../stages.sh"
prepare --release 3
tokens 1000
sharding=(--encode original)
shards train dev test
train train
evaluate dev test
