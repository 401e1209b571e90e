#!/usr/bin/env bash
# Virtual environments of the peers that goldens are made with and benchmarks compare with, under .peers/ (git-ignored).
# Nothing that a user runs and no test needs them. Does only what is missing.
#
# usage: tools/peers/make_venvs.sh [transformers|llama_cpp|lm_eval|metrics|mergekit|serving ...]    (default: transformers llama_cpp)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

declare -A PACKAGES=(
  [transformers]="torch==2.13.0 transformers==5.23.0 peft==0.21.2 tokenizers sentencepiece gguf==0.19.0 safetensors==0.8.0
    numpy accelerate protobuf jinja2"
  [llama_cpp]="llama-cpp-python==0.3.36"   # built from source, for this processor: about ten minutes on two cores
  [lm_eval]="torch==2.13.0 transformers==5.23.0 lm-eval==0.4.13"
  [metrics]="rouge-score==0.1.2 sacrebleu==2.6.0 nltk==3.10.4 scipy==1.17.1 statsmodels==0.15.0 transformers==4.57.6"
  [mergekit]="mergekit==0.1.5"
  [serving]="openai==3.57.0 schemathesis==4.32.5 playwright==1.65.2"   # the clients of tests/serving
)

for name in "${@:-transformers llama_cpp}"; do
  for peer in $name; do
    [[ -n ${PACKAGES[$peer]:-} ]] || { echo "unknown peer '$peer'; known: ${!PACKAGES[*]}" >&2; exit 2; }
    folder=.peers/$peer
    stamp=$folder/installed
    if [[ -f $stamp && $(<"$stamp") == "${PACKAGES[$peer]}" ]]; then
      echo "$folder is up to date" >&2
      continue
    fi
    echo "making $folder: ${PACKAGES[$peer]}" >&2
    python3 -m venv "$folder"
    # shellcheck disable=SC2086  # a list of packages
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check ${PACKAGES[$peer]} >&2
    printf '%s' "${PACKAGES[$peer]}" > "$stamp"
  done
done
