#!/usr/bin/env bash
# One voice reading English, from recordings to WER:  ./run.sh [OUTPUT] [KEY=VALUE]...  (variables: egs/stages.sh)
source "$(dirname "$0")/../stages.sh"
prepare
tokens 500
sharding=(--rate 16000)
shards train dev test
train train
evaluate dev test
