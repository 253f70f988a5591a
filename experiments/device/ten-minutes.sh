#!/usr/bin/env bash
# Some minutes on a GPU: is it right there, how quick is it, and as much of one cell of the sorting table as fits.
# ten-minutes.sh SECONDS FOLDER [ROW [CASE [PRECISION]]] leaves in FOLDER report.tar, the small files, and last.tar.*,
# what the run needs to go on. CHECKS= leaves out what comes before training; SCALE=smoke tries all of it anywhere.
set -uo pipefail
usage='ten-minutes.sh SECONDS FOLDER [ROW [CASE [PRECISION]]]'
end=$((SECONDS + ${1:?$usage}))
mkdir -p "${2:?$usage}" && out=$(realpath "$2") || exit
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
row=${3:-infty} case=${4:-x4} precision=${5:-float32} scale=${SCALE:-paper}
notes=$(mktemp -d) runs=$(realpath -m "${RUNS:-data/runs}") run=sort/$scale/$row@$case/seed-0
cell=(train sort --model "$row" --case "$case" --scale "$scale" --runs "$runs")
export WANDB_MODE=disabled HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1

within() { # SECONDS COMMAND…: what hangs costs no more than its share, and leaves half a minute to stop and pack
    local most=$1 left=$((end - SECONDS - 30))
    shift
    ((left > 0)) || { echo "no time left for $*" >&2 && return 124; }
    timeout -s TERM -k 20 $((most < left ? most : left)) "$@"
}

pack() { # however this ends, and whether or not anything was trained
    local last here=()
    [ ! -d "$runs/$run" ] || here=(-C "$runs" "$run")
    tar cf "$out/report.tar" --exclude=checkpoints --exclude=.lock -C "$notes" . "${here[@]}"
    rm -rf "$notes" "$out"/last.tar.* # those of an earlier call
    last=$(sed -n 's/.*"checkpoint": "\(step-[0-9]*\)".*/\1/p' "$runs/$run/checkpoints/last.json" 2>/dev/null)
    [ -z "$last" ] || (cd "$runs" && find "$run" -type f ! -name .lock \( ! -path '*step-*' -o -path "*/$last/*" \) |
        tar cf - -T - | split -b 15m - "$out/last.tar.")
    (cd "$out" && wc -c report.tar last.tar.* 2>/dev/null)
}
trap pack EXIT

# A copy without .git has .whl/commit, which says what it is of.
{
    cat .whl/commit 2>/dev/null
    within 20 nvidia-smi
    within 30 python3 -m pip list
    within 60 python3 -m infty env
} >"$notes/machine.txt" 2>&1

# Without the suite's own options, which want packages that may be missing here.
parity=(-q -o addopts= -W default -p no:cacheprovider tests/machine/test_gpu.py)
for how in ${CHECKS-parity float32 tf32 bf16}; do
    said=$notes/$how.txt found=$notes/$how.json
    if [ "$how" = parity ]; then
        within 100 python3 -m pytest "${parity[@]}" >"$said" 2>&1
        echo "parity: $(tail -n 1 "$said")"
    elif within 45 python3 -m infty "${cell[@]}" --precision "$how" --dry-run --json >"$found" 2>"$said"; then
        echo "$how: $(grep -o '"seconds_a_step": [0-9.]*' "$found")"
    else
        echo "$how: $(tail -n 1 "$said")"
        rm "$found"
    fi
done

within "$1" python3 -m infty "${cell[@]}" --precision "$precision" 2>&1 | tee "$notes/train.txt" | tail -n 5
code=${PIPESTATUS[0]}
exit $((code == 124 ? 0 : code)) # 124: its time was over, and it was stopped with a checkpoint
