#!/usr/bin/env bash
# One word of 35, from recordings to WER:  ./run.sh [OUTPUT] [KEY=VALUE]...  (variables: egs/stages.sh)
source "$(dirname "$0")/../stages.sh"
prepare
tokens 60
shards train dev test
train train
evaluate dev test
