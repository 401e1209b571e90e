#!/bin/sh
# Runs fuzzers for a while from the golden files. usage: run.sh BUILD_FOLDER SECONDS [FORMAT ...] (none: all, in turn)
# What is found stays in BUILD_FOLDER/tests/fuzz/: make a test of it beside the parser before mending it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1/tests/fuzz"
seconds=$2
shift 2
[ $# -gt 0 ] || set -- safetensors index gguf json_lines pickle recipe tokenizer_json tokenizer_config chat_template \
  model_config adapter_config folders
python3 "$here/make_seeds.py" seeds
for format in "$@"; do
  mkdir -p corpus_$format
  # Bounds: what a fuzzer can learn of a format fits into a few KB; the largest seed is the longest input it makes.
  ./fuzz_$format -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -max_len=16384 -print_final_stats=1 \
    -artifact_prefix=found_${format}_ corpus_$format seeds/$format
done
