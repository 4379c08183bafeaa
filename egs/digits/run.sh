#!/usr/bin/env bash
# Connected digits, from recordings to WER:  ./run.sh [OUTPUT] [KEY=VALUE]...  (variables: egs/stages.sh)
# PREPARE: options of prepare.py, such as "--held-out theo" or "--offline"; default --train-all
source "$(dirname "$0")/../stages.sh"
prepare --train-all
tokens 50
shards train dev test
train train
source=$(grep -o '"source": "[^"]*"' "$data/corpus.json" | cut -d'"' -f4)
mark=$([ "$source" = FSDD ] || echo "-$source")    # results on synthetic voices say so
evaluate "dev$mark=data/shards/dev" "test$mark=data/shards/test"
