#!/usr/bin/env bash
# A quarter of an hour on a GPU: is it right there, how quick is it, and as many cells of the sorting table as fit.
# on-a-gpu.sh SECONDS FOLDER CELL… leaves in FOLDER report.tar, the small files, and last.tar.*, what the cell that was
# under way needs to go on. A CELL is ROW@CASE or ROW@CASE/SEED; they are trained one after the other. CHECKS= leaves out
# what comes before training, PRECISION is tf32 unless it is set, and SCALE=smoke tries all of it anywhere.
set -uo pipefail
usage='on-a-gpu.sh SECONDS FOLDER CELL…'
end=$((SECONDS + ${1:?$usage}))
mkdir -p "${2:?$usage}" && out=$(realpath "$2") || exit
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
precision=${PRECISION:-tf32} scale=${SCALE:-paper} current=
notes=$(mktemp -d) runs=$(realpath -m "${RUNS:-data/runs}")
export WANDB_MODE=disabled HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1

within() { # SECONDS COMMAND…: what hangs costs no more than its share, and leaves half a minute to stop and pack
    local most=$1 left=$((end - SECONDS - 30))
    shift
    ((left > 0)) || { echo "no time left for $*" >&2 && return 124; }
    timeout -s TERM -k 20 $((most < left ? most : left)) "$@"
}

pack() { # however this ends, and whether or not anything was trained
    local last here=()
    [ ! -d "$runs/sort/$scale" ] || here=(-C "$runs" "sort/$scale")
    tar cf "$out/report.tar" --exclude=checkpoints --exclude=.lock -C "$notes" . "${here[@]}"
    rm -rf "$notes" "$out"/last.tar.* # those of an earlier call
    last=$(sed -n 's/.*"checkpoint": "\(step-[0-9]*\)".*/\1/p' "$runs/$current/checkpoints/last.json" 2>/dev/null)
    [ -z "$last" ] || [ -e "$runs/$current/result.json" ] ||
        (cd "$runs" && find "$current" -type f ! -name .lock \( ! -path '*step-*' -o -path "*/$last/*" \) |
            tar cf - -T - | split -b 15m - "$out/last.tar.")
    (cd "$out" && wc -c report.tar last.tar.* 2>/dev/null)
}
trap pack EXIT

# A copy without .git has .whl/commit, which says what it is of.
commit=$(grep -oE '^[0-9a-f]{40}$' .whl/commit 2>/dev/null) && export INFTY_COMMIT=$commit
{
    cat .whl/commit 2>/dev/null
    within 20 nvidia-smi
    within 30 python3 -m pip list
    within 60 python3 -m infty env
} >"$notes/machine.txt" 2>&1

parity() { # without the suite's own options, which want packages that may be missing here
    within 100 python3 -m pytest -q -o addopts= -W default -p no:cacheprovider tests/machine/test_gpu.py
}

smoke() { # the three tasks, side by side
    local task
    for task in sort wikitext gpt2; do
        within 60 python3 -m infty train $task --scale smoke --runs "$notes/smoke" >"$notes/$task.txt" 2>&1 &
    done
    wait
    (cd "$notes/smoke" && find . -name result.json)
    rm -rf "$notes/smoke"
}

resume() { # does a run that was stopped end with the bytes of one that was not? Then the last line counts two of a sum.
    local long=(--scale smoke --set "training.steps=${STEPS:-3000}" --set training.evaluate_every=1500)
    long=(python3 -m infty train sort "${long[@]}" --runs "$notes/resume")
    within 60 "${long[@]}" --name whole
    within "${STOP:-12}" "${long[@]}" --name stopped
    within 60 "${long[@]}" --name stopped
    (cd "$notes/resume/sort/smoke" && sha256sum ./*/seed-0/checkpoints/step-*"${STEPS:-3000}"/model.safetensors)
    sha256sum "$notes"/resume/sort/smoke/*/seed-0/checkpoints/step-*"${STEPS:-3000}"/model.safetensors |
        cut -d ' ' -f 1 | sort | uniq -c
    rm -rf "$notes/resume"
}

bench() {
    within 150 python3 -m infty bench step --device cuda --json
}

for check in ${CHECKS-parity smoke resume bench}; do
    "$check" >"$notes/$check.txt" 2>&1
    echo "$check: $(tail -n 1 "$notes/$check.txt")"
done

code=0
for cell in "${@:3}"; do
    row=${cell%%@*} case=${cell#*@} seed=0
    [[ $case != */* ]] || { seed=${case#*/} && case=${case%/*}; }
    current=sort/$scale/$row@$case/seed-$seed
    words=(--model "$row" --case "$case" --seed "$seed" --scale "$scale" --precision "$precision" --runs "$runs")
    within "$1" python3 -m infty train sort "${words[@]}" 2>&1 | tee -a "$notes/train.txt" | tail -n 5
    code=${PIPESTATUS[0]}
    ((code == 0)) || break
done
exit $((code == 124 ? 0 : code)) # 124: its time was over, and it was stopped with a checkpoint
