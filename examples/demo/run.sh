#!/usr/bin/env bash
# The main job on a real model: train experts and gates, pool them, route every token, compare. `make demo` runs it.
#
# usage: examples/demo/run.sh [FOLDER]     (default: demo)
#
# Everything is done by public `skein` commands, written so that each can be copied from here. What is in FOLDER
# already is not done again, so a second run takes seconds and a run that was stopped goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

OUT=${1:-demo}
SKEIN=${SKEIN:-build/skein}
BASE=${BASE:-models/smollm2.gguf}
# Rank 16 on every linear, scale 1/16, learning rate 5e-3, 6 % warm-up, clip 1: the paper's rules (--paper phatgoose),
# with fewer and smaller steps so that it takes minutes.
EXPERT=(--paper phatgoose --steps 70 --batch 8)
GATE=(--paper phatgoose --steps 60 --batch 8)
TASKS=(mood question tongue kind unit form)
HELD_OUT=(film asks greeting odd)

say() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
[[ -t 2 && -z ${NO_COLOR:-} ]] || say() { printf '\n%s\n' "$*" >&2; }

# A folder made from other tasks or settings is of no use any more.
stamp=$( (cat examples/demo/make_tasks.py; printf '%s ' "${EXPERT[@]}" "${GATE[@]}" "${TASKS[@]}" "$BASE") | sha256sum | cut -c1-16)
if [[ -d $OUT && $(cat "$OUT/stamp" 2>/dev/null) != "$stamp" ]]; then
  if [[ -e $OUT/stamp || -z $(ls -A "$OUT") ]]; then
    say "The demo's tasks or settings have changed: $OUT is made anew"
    rm -rf "$OUT"
  else
    say "$OUT exists and is not of this demo; name another folder" && exit 1
  fi
fi
mkdir -p "$OUT/experts" "$OUT/results"
printf '%s\n' "$stamp" > "$OUT/stamp"
python3 examples/demo/make_tasks.py "$OUT/tasks"
started=$SECONDS

# Goes on with a run that was stopped: its state lies beside the folder until that is complete.
resume() { if [[ -d $1 ]]; then printf -- --resume; fi; }

say "1. Experts and gates: ${#TASKS[@]} tasks, each trained on its own"
for task in "${TASKS[@]}"; do
  expert=$OUT/experts/$task data=$OUT/tasks/train/$task.jsonl
  if [[ ! -d $expert ]]; then
    "$SKEIN" train expert --base "$BASE" --data "$data" --out "$expert" "${EXPERT[@]}" $(resume "$expert.training")
  fi
  if [[ ! -e $expert/gates/phatgoose.safetensors ]]; then
    "$SKEIN" train gate --base "$BASE" --expert "$expert" --data "$data" "${GATE[@]}" $(resume "$expert.gate-training")
  fi
done

say "2. The pool"
if [[ ! -d $OUT/pool ]]; then "$SKEIN" library create "$OUT/pool" --base "$BASE"; fi
for task in "${TASKS[@]}"; do
  if [[ ! -d $OUT/pool/experts/$task ]]; then "$SKEIN" library add "$OUT/pool" "$OUT/experts/$task"; fi
done
"$SKEIN" library list "$OUT/pool"

say "3. Every method on every task: $((${#TASKS[@]} + 3)) methods"
files=("${TASKS[@]/#/$OUT/tasks/eval/}" "${HELD_OUT[@]/#/$OUT/tasks/heldout/}")
files=("${files[@]/%/.jsonl}")
evaluate() {  # NAME OPTIONS...
  local name=$1; shift
  if [[ ! -e $OUT/results/$name.jsonl ]]; then
    "$SKEIN" eval --base "$BASE" --tasks "${files[@]}" --method "$name" --out "$OUT/results/$name.jsonl" "$@" > /dev/null
  fi
}
evaluate base
for task in "${TASKS[@]}"; do evaluate "$task" --adapter "$OUT/experts/$task"; done
evaluate merged --library "$OUT/pool" --router merged
if [[ ! -e $OUT/results/shares.jsonl ]]; then rm -f "$OUT/results/phatgoose.jsonl"; fi
evaluate phatgoose --library "$OUT/pool" --router phatgoose --top-k 2 --shares "$OUT/results/shares.jsonl"

say "4. Accuracy, and where the routing weight went"
python3 examples/demo/report.py "$OUT" --trained "${TASKS[@]}" --held-out "${HELD_OUT[@]}"

say "5. One routed answer: which expert did each token choose?"
prompt="Film review: the acting is superb, I would watch it again tonight."
"$SKEIN" trace --base "$BASE" --library "$OUT/pool" --prompt "$prompt" --separator '\n' --max-new-tokens 4 \
  --html "$OUT/trace.html" --out "$OUT/trace.jsonl" --overwrite
say "Done in $((SECONDS - started)) s. Open $OUT/trace.html in a browser; try: $SKEIN generate --base $BASE --library $OUT/pool --prompt '...'"
