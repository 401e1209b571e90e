#!/usr/bin/env bash
# Puts Apache ECharts into .web/: the plotting library that the reports of skein compare are made with. CMake compiles it
# in. One file of the npm package, checked; nothing is installed or run.
#
# usage: tools/fetch_echarts.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VERSION=6.1.0
SUM=b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0  # of dist/echarts.min.js
FILE=.web/echarts-$VERSION.min.js

say() { printf 'echarts: %s\n' "$*" >&2; }
if [[ -s $FILE ]]; then
  say "$FILE is there"
  exit 0
fi
mkdir -p .web
scratch=$(mktemp -d .web/.fetch.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
say "downloading echarts $VERSION"
if command -v npm >/dev/null; then
  npm pack --silent --pack-destination "$scratch" "echarts@$VERSION" >/dev/null
else
  curl -fsS -o "$scratch/echarts-$VERSION.tgz" "https://registry.npmjs.org/echarts/-/echarts-$VERSION.tgz"
fi
tar -xzOf "$scratch/echarts-$VERSION.tgz" package/dist/echarts.min.js > "$scratch/echarts.js"
printf '%s  %s\n' "$SUM" "$scratch/echarts.js" | sha256sum --check --quiet - || { say "not the file that was expected"; exit 1; }
mv "$scratch/echarts.js" "$FILE"
say "wrote $FILE"
