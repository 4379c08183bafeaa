#!/usr/bin/env bash
# Hebrew yes and no, from recordings to WER:  ./run.sh [OUTPUT] [KEY=VALUE]...  (variables: egs/stages.sh)
source "$(dirname "$0")/../stages.sh"
prepare
tokens 20
shards train dev test
train train
evaluate test
