# What the run.sh of all recipes share; each sources this and then calls the stages in order:
#   ./run.sh [OUTPUT] [KEY=VALUE]...      everything goes into OUTPUT (default: exp/ beside run.sh); keys go to `las train`
#   CORPUS=DIR      where the corpus lies; else it is looked for in $LAS_CORPORA, else it is downloaded
#   PREPARE="..."   options of prepare.py
#   TOKENS=N        tokens wanted
#   CONF=NAME       conf/NAME.yaml
#   STAGE=N         begin with stage N: 1 prepare, 2 tokens, 3 shards, 4 train, 5 evaluate
#   RESULTS=FILE    results are added here; default OUTPUT/RESULTS.md
# Run again after an interruption, best with STAGE=4 once training has begun, it goes on with the run that is in OUTPUT.
set -euo pipefail
if ! command -v las > /dev/null; then
    echo "las is not installed here: activate the environment that it is in (. .venv/bin/activate), or pip install ." >&2
    exit 1
fi
recipe=$(cd "$(dirname "$0")" && pwd)
output=$recipe/exp
if [ $# -gt 0 ] && [[ $1 != *=* ]]; then
    output=$1
    shift
fi
mkdir -p "$output"
output=$(cd "$output" && pwd)
data=$output/data
keys=("$@")
results=$(realpath -m "${RESULTS:-$output/RESULTS.md}")
sharding=()    # options of `las shard`
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}

exec 9> "$output/.lock"    # held until run.sh and all it started are gone
if ! flock --nonblock 9; then
    echo "$output: another run.sh is writing there; wait until it is done, or name another OUTPUT" >&2
    exit 1
fi

stage() {    # NUMBER WHAT: whether this stage is to be run
    if [ "${STAGE:-1}" -gt "$1" ]; then return 1; fi
    echo "== $1 $2" >&2
}

prepare() {    # OPTION...: of prepare.py, where PREPARE does not say others
    stage 1 "prepare: recordings to manifests" || return 0
    local python
    python=$(command -v python || command -v python3)
    # shellcheck disable=SC2086
    "$python" "$recipe/prepare.py" ${CORPUS:+--corpus "$CORPUS"} --output "$data" ${PREPARE-$*}
}

tokens() {    # NUMBER [OPTION...]: of `las tokenizer`
    stage 2 "tokens" || return 0
    las tokenizer "$data/train.jsonl" --size "${TOKENS:-$1}" "${@:2}" -o "$data/tokenizer.model"
}

shards() {    # SET...
    stage 3 "shards" || return 0
    rm -rf "$data/shards"
    local set
    for set; do
        las shard "$data/$set.jsonl" "${sharding[@]}" -o "$data/shards/$set"
    done
}

fit() {    # CONFIG FOLDER [KEY=VALUE]...: train there, or go on
    local resume=()
    if [ -e "$2/config.yaml" ]; then resume=(--resume); fi
    las train "$recipe/conf/$1.yaml" "${@:3}" -o "$2" "${resume[@]}"
}

train() {    # NAME: of the config, where CONF does not say another
    cd "$output"    # paths in configs and of keys begin here, those of CORPUS, PREPARE and RESULTS where the user is
    stage 4 "train" || return 0
    fit "${CONF:-$1}" run "${keys[@]}"
}

evaluate() {    # SET...: of data/shards, or NAME=SHARDS
    stage 5 "evaluate" || return 0
    local set sets=()
    for set; do
        [[ $set == *=* ]] || set=$set=data/shards/$set
        sets+=("$set")
    done
    las evaluate "${sets[@]}" --model run/model -o run/hypotheses --append "$results"
}
