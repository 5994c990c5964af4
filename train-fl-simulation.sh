#!/usr/bin/env bash
# Usage: ./train-fl-simulation.sh [--tiny] [--federation NAME] [--run-config "KEY=VALUE ..."]
#
# Sets zk0 up where that is needed, then trains over simulated clients on this machine.
#
#   --tiny                 2 rounds of 2 local steps: does everything work?
#   --federation NAME      a connection from Flower's config.toml (default: a GPU's where there is
#                          one, else local-simulation)
#   --run-config "K=V ..." settings of this run, as in `flwr run`; may be repeated
#   -h, --help             this text
#
# Exit status: 0 the run completed, 1 it did not, 2 wrong usage, 130 stopped with Ctrl-C.
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
}

# Wrong usage is told here, before an installation that may take minutes.
check_usage() {
  while (($#)); do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --tiny | --federation=?* | --run-config=?*) shift ;;
      --federation | --run-config)
        (($# > 1)) || refuse "$1 needs a value"
        shift 2
        ;;
      *) refuse "unknown option '$1'" ;;
    esac
  done
}

refuse() {
  printf 'error: %s (see --help)\n' "$1" >&2
  exit 2
}

check_usage "$@"
"$root/scripts/setup.sh"
exec "$root/.venv/bin/python" -P -m zk0.simulate "$@"
