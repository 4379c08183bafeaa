#!/usr/bin/env bash
# Read Korean, from recordings to WER and CER:  ./run.sh [OUTPUT] [KEY=VALUE]...  (variables: egs/stages.sh)
source "$(dirname "$0")/../stages.sh"
prepare
tokens 2000
sharding=(--encode original)
shards train dev test
train train
evaluate dev test
