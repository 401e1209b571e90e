#!/usr/bin/env bash
# The comparison of docs/results/compare: six experts with gates, every way of recombining them, tasks none of them saw.
#
# usage: studies/compare/run.sh SUITE [OUT]      (default: compare-study)
#
# SUITE is a folder of text tasks: train/TASK.jsonl.gz, train_eval/TASK.jsonl and heldout/TASK.jsonl (docs/formats/data.md).
# The sentence encoder of retrieval is expected in models/minilm (tools/fetch_models.sh minilm). What is in OUT already is
# not done again; a run that was stopped goes on. Nothing written under OUT/comparison holds the suite's text.
#
# SKEIN, BASE, MINILM and THREADS in the environment name another program, base (GGUF), encoder and number of threads.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..
[[ $# -ge 1 && -d $1/heldout ]] || { sed -n '4,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
suite=$(realpath "$1") out=${2:-compare-study}
skein=$(realpath "${SKEIN:-$root/build/skein}") base=$(realpath "${BASE:-$root/models/smollm2.gguf}")
minilm=$(realpath "${MINILM:-$root/models/minilm}") threads=(--threads "${THREADS:-0}")
mkdir -p "$out/experts"
cd "$out"
ln -sfn "$suite" suite
ln -sfn "$base" base.gguf
cp "$here"/*.yml .

tasks=(agnews creak commonsenseqa cola comve trec)
# The paper's rules (rank 16 on every linear, scale 1/16, learning rate 5e-3, 6 % warm-up, clip 1), fewer and smaller steps.
training=(--base base.gguf --batch 8 --max-input 256 "${threads[@]}")
resume() { if [[ -d $1 ]]; then printf -- --resume; fi; }

for task in "${tasks[@]}"; do
  data=suite/train/$task.jsonl.gz expert=experts/$task
  if [[ ! -d $expert ]]; then
    "$skein" train expert --data "$data" --out "$expert" --steps 100 "${training[@]}" $(resume "$expert.training")
  fi
  if [[ ! -e $expert/gates/phatgoose.safetensors ]]; then
    "$skein" train gate --data "$data" --expert "$expert" --steps 100 "${training[@]}" $(resume "$expert.gate-training")
  fi
done
all=("${tasks[@]/#/suite/train/}")
if [[ ! -d multitask ]]; then
  "$skein" train lora --data "${all[@]/%/.jsonl.gz}" --out multitask --steps 200 "${training[@]}" $(resume multitask.training)
fi

if [[ ! -d pool ]]; then
  "$skein" library create pool --base base.gguf
  "$skein" library add pool "${tasks[@]/#/experts/}"
fi
if [[ ! -d learned-gate ]]; then
  "$skein" train molora --freeze-experts pool --data "${all[@]/%/.jsonl.gz}" --out learned-gate --steps 100 "${training[@]}" \
    $(resume learned-gate.training)
fi
data=()
for task in "${tasks[@]}"; do data+=("$task=suite/train/$task.jsonl.gz"); done
fit() { # METHOD OPTION...
  if [[ ! -e pool/experts/trec/gates/$1.safetensors ]]; then "$skein" gates fit pool --method "$@" "${threads[@]}"; fi
}
fit arrow
fit spectr
fit average-activation --data "${data[@]}" --limit 50 --max-input 256
fit retrieval --data "${data[@]}" --limit 200 --sentence-encoder "$minilm"
if [[ ! -d base ]]; then "$skein" convert base.gguf base --dtype bf16; fi  # merges read folders

ln -sfn "$minilm" minilm
"$skein" compare plan.yml --out comparison --no-examples --routing-examples 3 "${threads[@]}"
