# shellcheck shell=bash disable=SC2034  # (variables for the scripts that source this)
# What the scripts of this folder share: where things lie, how to speak, how to fail. Sourced only.
#
# Everything that a script says about itself goes to stderr; stdout carries results (a path, the
# output of tests), so that `model=$(scripts/model)` works.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${FLEXLLM_CACHE:-${XDG_CACHE_HOME:-${HOME:-$root/build}/.cache}/flexllm}
export FLEXLLM_CACHE=$cache  # the program keeps packed models there
venv=$root/.venv
python=$venv/bin/python
logs=$root/build/logs

# Compiler caches are shared between checkouts that lie in different folders.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '%s\n' "flexllm: $*" >&2; }

die() {
  printf '%s\n' "flexllm: FAILED: $1" >&2
  shift
  if [ $# -gt 0 ]; then printf '         %s\n' "$@" >&2; fi
  exit 1
}

trap 'die "interrupted" "Run the same command again: what is already done is kept."' INT TERM

# need_folder FOLDER: makes it, or says who may.
need_folder() {
  { mkdir -p "$1" && [ -w "$1" ]; } 2>/dev/null || die "cannot write to $1 as $(id -un)" \
    "$(nearest "$1") belongs to $(stat -c %U "$(nearest "$1")"), on $(df -P "$(nearest "$1")" | awk 'NR == 2 { print $1 " with " $4 " KiB free" }')." \
    "Give the folder to this user, or use a checkout (or FLEXLLM_CACHE) of your own."
}

# need_space FOLDER MIB WHAT: fails early, and says how much is missing where.
need_space() {
  local free
  free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
  [ "$free" -ge "$2" ] || die "no disk: $3 needs about $2 MiB in $1, and $free MiB are free"
}

# nearest FOLDER: the closest folder above that exists.
nearest() {
  local folder=$1
  while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
  printf '%s\n' "$folder"
}

# only_one NAME: wait until no other script is in the same part of this checkout. The lock (file
# descriptor 9) ends with the last process that was started under it, so that a killed script whose
# pip or compiler lives on is waited for too.
only_one() {
  need_folder "$root/build"
  exec 9>"$root/build/.$1.lock"
  flock -n 9 || { say "waiting for another script that is busy here ($1)"; flock 9; }
}

# logged NAME TITLE COMMAND...: run with the output in build/logs/NAME.log, a sign of life every 20
# seconds, and on failure the cause in words. Returns the command's status.
logged() {
  local log=$logs/$1.log title=$2 status=0 begin=$SECONDS beat
  shift 2
  mkdir -p "$logs"
  say "$title ..."
  (
    while sleep 20 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
      say "  $title: $((SECONDS - begin)) s: $(tail -n 3 "$log" | tr '\r' '\n' | grep . | tail -n 1 | cut -c 1-100)"
    done
  ) 9>&- &
  beat=$!
  "$@" >"$log" 2>&1 || status=$?
  { kill "$beat" && wait "$beat"; } 2>/dev/null || true
  if [ $status -eq 0 ]; then say "$title: done ($((SECONDS - begin)) s)"; fi
  return $status
}

# fail_with_log NAME WHAT [shown]: ends with the end of a log, if it was not shown, and what it means.
fail_with_log() {
  local log=$logs/$1.log
  [ "${3:-}" = shown ] || tail -n 20 "$log" | sed 's/^/  | /' >&2
  if grep -qiE 'no space left on device|not enough free space|disk quota' "$log"; then
    die "$2: no disk left" "The whole log is $log"
  elif grep -qiE 'could not resolve|temporary failure (in name resolution|resolving)|name or service not known|connection (refused|timed out|reset)|network is unreachable|failed to establish a new connection|NewConnectionError|ProxyError|max retries exceeded|no matching distribution found|failed to fetch' "$log"; then
    die "$2: no network, or a mirror that does not answer" \
      "Check the connection and proxy (http_proxy, https_proxy), then run the same command again:" \
      "what is already done is kept. The whole log is $log"
  elif grep -qiE 'DO NOT MATCH THE HASHES' "$log"; then
    die "$2: the download is not what this project expects (SHA-256 differs); nothing was installed"
  elif grep -qiE 'permission denied|are you root' "$log"; then
    die "$2: not allowed as $(id -un)" "The whole log is $log"
  fi
  die "$2" "The whole log is $log"
}

# fetch_wheel NAME VERSION SHA256 FOLDER: one file of PyPI, checked by pip, into FOLDER.
fetch_wheel() {
  local wanted=$4/wanted.txt
  mkdir -p "$4"
  printf '%s==%s --hash=sha256:%s\n' "$1" "$2" "$3" >"$wanted"
  logged "fetch-$1" "fetching $1 $2 from PyPI" \
    "$python" -m pip download --progress-bar off --no-deps --no-cache-dir --only-binary :all: \
    --require-hashes --dest "$4" -r "$wanted" || {
    rm -rf "$4"
    fail_with_log "fetch-$1" "fetching $1 $2 from PyPI"
  }
  rm -f "$wanted"
}
