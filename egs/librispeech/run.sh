#!/usr/bin/env bash
# Read English, from recordings to WER:  ./run.sh [OUTPUT] [KEY=VALUE]...  (variables: egs/stages.sh)
# CONF: train (default), las_4_1024 or las_6_1280, which want TOKENS=16000
# PREPARE: default "--train train-clean-100 train-clean-360 train-other-500"
source "$(dirname "$0")/../stages.sh"
prepare
tokens 1000
sharding=(--encode original)
shards train dev-clean dev-other test-clean test-other
train train
evaluate dev-clean dev-other test-clean test-other
