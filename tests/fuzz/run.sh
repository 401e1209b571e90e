#!/bin/sh
# Runs every fuzzer for a while from the golden files. usage: run.sh BUILD_FOLDER SECONDS
# What is found stays in BUILD_FOLDER/tests/fuzz/: make a test of it beside the parser before mending it.
set -eu
golden=$(cd "$(dirname "$0")/../golden" && pwd)
cd "$1/tests/fuzz"
for format in safetensors index gguf json_lines pickle recipe; do
  corpus=corpus_$format
  mkdir -p $corpus
  case $format in
    safetensors) cp "$golden"/safetensors/all_types.safetensors $corpus ;;
    index) printf '{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}' > $corpus/index ;;
    recipe)
      printf 'merge_method: ties\nbase_model: b\nmodels:\n- model: a@r+l\n  parameters: {density: [1, 0.5], weight: [{filter: mlp, value: 1}, 0]}\n' > $corpus/ties
      printf 'name: x\nmerge_method: passthrough\nslices:\n- sources:\n  - {model: &m a, layer_range: [0, 2]}\n---\nmerge_method: linear\nmodels: [{model: x}, {model: *m}]\ntokenizer: {source: union, tokens: {t: {source: {kind: zero}}}}\n' > $corpus/stages ;;
    gguf) cp "$golden"/gguf/quants.gguf $corpus ;;
    json_lines) printf '{"input": "a", "target": "b", "choices": ["b", "c"]}\n' > $corpus/line ;;
    pickle)
      cp "$golden"/torch/*.pt "$golden"/torch/*.ckpt $corpus
      # Bare pickles too: the first member of each archive, from its 65th byte.
      for file in "$golden"/torch/*.pt; do tail -c +65 "$file" > $corpus/"$(basename "$file")".pickle; done ;;
  esac
  ./fuzz_$format -max_total_time="$2" -rss_limit_mb=2048 -timeout=10 -max_len=100000 $corpus
done
