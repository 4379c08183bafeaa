#!/usr/bin/env bash
# Read Mandarin, from recordings to CER:  ./run.sh [OUTPUT] [KEY=VALUE]...  (variables: egs/stages.sh)
source "$(dirname "$0")/../stages.sh"
prepare
tokens 5000 --kind char
shards train dev test
train train
evaluate dev test
