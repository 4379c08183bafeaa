#!/usr/bin/env bash
# Common Voice in any language, from the fetched archive to WER and CER:  ./run.sh [OUTPUT] [KEY=VALUE]...
# (variables: egs/stages.sh)
# PREPARE: "--archive cv-corpus-...-ko.tar.gz" and perhaps "--language ko"; or CORPUS=DIR
source "$(dirname "$0")/../stages.sh"
prepare
tokens 500
sharding=(--rate 16000)
shards train dev test
train train
evaluate dev test
