#!/usr/bin/env bash
# The suites that talk to a running server as its users do: OpenAI's client, schemathesis on the served description, bad
# requests, a browser on the page. Each starts a server of its own on the real base; what they need is installed by
# tools/peers/make_venvs.sh serving (network), and Chromium is Debian's.
#
# usage: tests/serving/run.sh SKEIN BASE LIBRARY [openai|schema|bad|page ...]    (default: all four)
#   BAD_REQUESTS=10000   how many bad requests (default 600)
#   SCHEMA_EXAMPLES=30   schemathesis' examples per operation
#   SCREENSHOTS=DIR      where page screenshots go
#
# SKEIN may be built with a sanitizer; what it finds makes the server end with an error, which fails the suite:
#   cmake --preset asan && ninja -C build/asan skein
#   ASAN_OPTIONS=quarantine_size_mb=16 BAD_REQUESTS=2000 SCHEMA_EXAMPLES=5 tests/serving/run.sh build/asan/skein ...
#   cmake --preset tsan -B build/tsan-torch -DSKEIN_BUILD_TORCH=ON && ninja -C build/tsan-torch skein
#   TSAN_OPTIONS=ignore_noninstrumented_modules=1 BAD_REQUESTS=2000 tests/serving/run.sh build/tsan-torch/skein ...
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
skein=$1 base=$2 library=$3
shift 3
python=$(realpath -s "${SERVING_PYTHON:-$here/../../.peers/serving/bin/python}")
[[ -x $python ]] || { echo "run.sh: $python is missing; run tools/peers/make_venvs.sh serving" >&2; exit 2; }

work=$(mktemp -d)
server=
finish() {
  [[ -n $server ]] && kill "$server" 2>/dev/null && wait "$server" || true
  rm -rf "$work"
}
trap finish EXIT

# start PORT OPTIONS...
start() {
  local port=$1
  shift
  "$skein" serve --base "$base" --library "$library" --port "$port" --log json "$@" 2> "$work/log" &
  server=$!
  for _ in $(seq 3000); do  # a sanitizer reads slowly
    curl -sf "http://127.0.0.1:$port/ready" > /dev/null && return
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
  done
  echo "run.sh: the server is not ready" >&2
  exit 1
}
stop() {
  kill "$server"
  wait "$server" || { echo "run.sh: the server ended with an error:" >&2; tail -20 "$work/log" >&2; exit 1; }
  server=
}

for suite in "${@:-openai schema bad page}"; do for name in $suite; do
  port=$((20000 + RANDOM % 20000))
  url=http://127.0.0.1:$port
  echo "== $name"
  case $name in
    openai)
      start $port --max-waiting 8 --max-running 4 --max-tokens 300
      "$python" "$here/openai_client_test.py" "$url"
      stop ;;
    schema)
      mkdir -p "$work/adapters"
      start $port --max-tokens 4 --max-choices 3 --adapter-folder "$work/adapters"
      (cd "$work" && "$(dirname "$python")/schemathesis" --config-file "$here/schemathesis.toml" run "$url/openapi.json" \
        --max-examples "${SCHEMA_EXAMPLES:-30}" --request-timeout 60)
      stop ;;
    bad)
      start $port --header-timeout 2 --body-timeout 2 --idle-timeout 5 --max-connections 64 --max-tokens 8
      "$python" "$here/bad_requests.py" "$url" --count "${BAD_REQUESTS:-600}" --process "$server"
      stop ;;
    page)
      start $port
      "$python" "$here/page_test.py" "$url" "${SCREENSHOTS:-$work}"
      stop ;;
    *) echo "run.sh: unknown suite $name" >&2; exit 2 ;;
  esac
done; done
echo "all suites passed"
