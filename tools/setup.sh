#!/usr/bin/env bash
# Sets a Debian 12 machine up to build, try and test Skein. Does only what is missing; run it again at will.
#
# usage: tools/setup.sh [demo|test]
#   demo   Debian packages, .venv with libtorch, ECharts in .web/, SmolLM2 in models/   (the default)
#   test   the same, and the two further models that tests run on
#
# SKEIN_TORCH=DIR  use this libtorch, Python torch folder or virtual environment instead of installing torch
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TORCH=torch==2.13.0
PACKAGES=(g++ cmake ninja-build ccache mold pkg-config python3-venv nlohmann-json3-dev libcli11-dev libgtest-dev
  libgmock-dev libopenmpi-dev openmpi-bin libsentencepiece-dev libpcre2-dev libutf8proc-dev libhwy-dev libeigen3-dev libxxhash-dev libyaml-dev zlib1g-dev libzip-dev libboost-dev
  prometheus-cpp-dev)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

purpose=${1:-demo}
[[ $purpose == demo || $purpose == test ]] || fail "unknown argument '$purpose'; expected demo or test"

# --- Debian packages ---
install_packages() {
  command -v dpkg-query >/dev/null || fail "not a Debian system; install by hand what README.md lists under 'By hand'"
  local missing=() package
  for package in "${PACKAGES[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  if [[ ${#missing[@]} -eq 0 ]]; then
    say "Debian packages are there"
    return
  fi
  local as_root=()
  if [[ $(id -u) -ne 0 ]]; then
    command -v sudo >/dev/null || fail "neither root nor sudo; as root, run: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing Debian packages: ${missing[*]}"
  "${as_root[@]}" apt-get -q update >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}" >&2
}

# A virtual environment with a pip that works; one whose making was cut short is made anew.
make_venv() {
  .venv/bin/python -m pip --version >/dev/null 2>&1 && return
  say "making the virtual environment .venv"
  rm -rf .venv
  python3 -m venv .venv
}

install_torch() {
  if [[ -n ${SKEIN_TORCH:-} ]]; then
    [[ -d $SKEIN_TORCH ]] || fail "SKEIN_TORCH=$SKEIN_TORCH is not a folder"
    say "using the torch in $SKEIN_TORCH"
    return
  fi
  local facts
  facts=$(.venv/bin/python -m pip list --disable-pip-version-check --format freeze | grep '^torch==' || true)
  if [[ $facts == "$TORCH"* ]]; then
    say ".venv has $facts"
    return
  fi
  say "installing $TORCH into .venv (for libtorch; a few minutes)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "$TORCH" >&2
}

install_packages
make_venv
install_torch
tools/fetch_echarts.sh || say "going on without the plotting library: reports of skein compare will have tables only"
if [[ $purpose == test ]]; then tools/fetch_models.sh all; else tools/fetch_models.sh; fi
say "done"
