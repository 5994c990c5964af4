#!/usr/bin/env bash
# Usage: ./test.sh [PYTEST ARGUMENTS]
#
# Sets zk0 up where that is needed, then runs every check, slow tests included. All of them run, so
# that one call shows all there is to mend; the exit status is 0 only where all passed.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
./scripts/setup.sh
export PATH=$PWD/.venv/bin:$PATH

failed=()
check() {
  echo "--- $*"
  "$@" || failed+=("$1${2:+ $2}")
}

check ruff check .
check ruff format --check .
check mypy
check pytest "$@"

if ((${#failed[@]})); then
  printf 'error: failed: %s\n' "$(IFS=, && echo "${failed[*]}")" >&2
  exit 1
fi
echo "All checks passed."
