#!/usr/bin/env bash
# Language models for the recogniser of run.sh:  ./lm.sh [OUTPUT] [KEY=VALUE]...    after stages 1 and 2 of run.sh OUTPUT
#   CONF=NAME       conf/NAME.yaml; default lm
#   TEXT=FILE       English text, a paragraph a line; else $LAS_CORPORA/lm/novels.txt.xz
#   ORDER=N         of the n-grams; default 6, without those of 4 and 5 tokens seen once and of 6 seen twice
#   STAGE=N         begin with stage N: 1 sentences, 2 n-grams, 3 LSTM, 4 perplexity of the validation set
source "$(dirname "$0")/../stages.sh"
if [ ! -f "$data/tokenizer.model" ]; then
    echo "$data/tokenizer.model is not there: run egs/mini_librispeech/run.sh $output first" >&2
    exit 1
fi
if stage 1 "sentences"; then
    "$(command -v python || command -v python3)" "$recipe/prepare_lm.py" ${TEXT:+--text "$TEXT"} --output "$data"
fi
cd "$output"    # the config's paths begin here
if stage 2 "n-grams"; then
    las lm ngram data/lm.txt.gz data/train.jsonl --tokenizer data/tokenizer.model --order "${ORDER:-6}" \
        --cutoffs 0,0,1,1,2 -o ngram.arpa.gz
fi
if stage 3 "LSTM"; then
    las lm train "$recipe/conf/${CONF:-lm}.yaml" "${keys[@]}" -o lm
fi
if stage 4 "perplexity"; then
    {
        echo "n-grams:"
        las lm score data/dev.jsonl --model ngram.arpa.gz --tokenizer data/tokenizer.model
        echo "LSTM:"
        las lm score data/dev.jsonl --model lm/language_model
    } | tee perplexity.txt
fi
