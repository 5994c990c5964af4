#!/usr/bin/env bash
# Makes this checkout ready to run: the locked environment in .venv, Flower's connections, and a line
# on what this machine offers. Needs Python 3.12 or 3.13, pip and git. Safe to repeat; a second call
# takes a second or two. It changes no tracked file and installs no system package.
#
# ZK0_PYTHON=/path/to/python overrides the search for an interpreter.
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
stamp=$venv/.zk0-setup

main() {
  have_a_home
  environment=$(environment_folder)
  local state
  state=$(wanted_state)
  if ! is_current "$state"; then
    install_environment
    skip_flower_installs
    printf '%s\n' "$state" >"$stamp"
  fi
  register_connections
  note_opengl
  note_ffmpeg
}

die() {
  printf 'error: %s\n' "$1" >&2
  exit 1
}

# Python, uv and Flower all look below HOME; an unset or empty one would put their files in the
# current directory. `~` without HOME is the account's own folder.
have_a_home() {
  [[ -n ${HOME:-} ]] && return
  unset HOME
  export HOME=~
}

# --- is there anything to do? ---------------------------------------------------------------------

# All that the environment is made from. zk0's and Flower's own settings in pyproject.toml are left
# out: editing a learning rate must not cost a synchronisation, nor need a network.
wanted_state() {
  printf '%s\n' "$root"
  cksum <"$root/uv.lock"
  cksum <"$root/scripts/setup.sh"
  awk '/^\[/ { skip = /^\[+tool\.(zk0|flwr|ruff|mypy|pytest)/ } !skip' "$root/pyproject.toml" | cksum
}

is_current() {
  [[ -f $stamp && $(<"$stamp") == "$1" ]] && "$venv/bin/python" -c '' 2>/dev/null
}

# --- the environment ------------------------------------------------------------------------------

install_environment() {
  local python uv
  python=$(find_python) || die "$(python_missing)"
  uv=$(find_uv) || uv=$(install_uv "$python")
  link_environment
  echo "Installing the locked environment into $environment (the first time takes minutes)."
  rm -f "$stamp"
  # Compiled here once, packages load in a third of the time in each of a run's many processes,
  # also where PYTHONDONTWRITEBYTECODE keeps Python from doing it on the way.
  # The development tools come along: they are small beside PyTorch, and one environment for both
  # commands is never rebuilt in turn.
  env -u VIRTUAL_ENV UV_PROJECT_ENVIRONMENT="$environment" \
    "$uv" sync --project "$root" --locked --extra sim --compile-bytecode --python "$python" ||
    die "uv could not install the environment into $environment: see its message above"
}

# The environment lies outside the checkout, and .venv is a link to it. `flwr run` reads through all
# folders of a checkout, but follows no link: the 67,000 files of the packages would cost every run
# 13 s. And neither Ray nor Flower's database starts from a path that holds a space.
environment_folder() {
  local cache=${ZK0_HOME:-$HOME/.cache/zk0}
  [[ $cache == /* ]] || cache=$PWD/$cache
  [[ $cache != *[\ ,%]* ]] ||
    die "Ray cannot start from a path like '$cache'; set ZK0_HOME to one without space, comma and %"
  printf '%s/environments/%s\n' "$cache" "$(printf '%s' "$root" | cksum | cut -d ' ' -f 1)"
}

link_environment() {
  [[ -L $venv && $(readlink "$venv") == "$environment" ]] && return
  if [[ -L $venv ]]; then
    discard_orphan "$(readlink "$venv")"
  elif [[ -e $venv && ! -f $venv/pyvenv.cfg ]]; then
    die "$venv is in the way and no Python environment; move it elsewhere"
  fi
  rm -rf "$venv"
  mkdir -p "$(dirname "$environment")"
  ln -s "$environment" "$venv"
}

# Where a checkout was moved, its old environment serves nobody: the commands in it hold the old path.
discard_orphan() {
  if [[ -f $1/.zk0-setup && ! -d $(head -n 1 "$1/.zk0-setup") ]]; then
    rm -rf "$1"
  fi
}

python_missing() {
  if [[ -n ${ZK0_PYTHON:-} ]]; then
    echo "ZK0_PYTHON=$ZK0_PYTHON is not a working Python 3.12 or 3.13; point it at one or unset it"
  else
    echo "no working Python 3.12 or 3.13 found (looked in PATH, pyenv and uv);" \
      "install one, e.g. 'pyenv install 3.12' or 'uv python install 3.12', or set ZK0_PYTHON to its path"
  fi
}

find_python() {
  local candidate
  while IFS= read -r candidate; do
    if is_fit "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done < <(python_candidates)
  return 1
}

# Asking is the only test that counts: a pyenv shim is on PATH, executable, and may run nothing.
# The locked wheels of NumPy end at Python 3.13, and none are for builds without the GIL.
is_fit() {
  [[ -x $1 ]] && "$1" -c '
import sys, sysconfig
sys.exit(not ((3, 12) <= sys.version_info[:2] <= (3, 13)) or bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
' >/dev/null 2>&1 </dev/null
}

python_candidates() {
  if [[ -n ${ZK0_PYTHON:-} ]]; then
    printf '%s\n' "$ZK0_PYTHON"
    return
  fi
  printf '%s\n' "$environment/bin/python"
  type -aP python3.12 python3.13 python3 python || true
  printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23].*/bin/python
  printf '%s\n' "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}"/cpython-3.1[23]*/bin/python3
}

find_uv() {
  local candidate
  while IFS= read -r candidate; do
    if is_recent_uv "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done < <(
    printf '%s\n' "$root/.uv/bin/uv"
    type -aP uv || true
    printf '%s\n' "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"
  )
  return 1
}

# uv 0.8 is the first that this project's lock file was tried with.
is_recent_uv() {
  [[ -x $1 ]] || return 1
  local version
  version=$("$1" --version 2>/dev/null </dev/null | sed -n 's/^uv \([0-9][0-9.]*\).*/\1/p') || return 1
  [[ -n $version && $(printf '%s\n' 0.8 "$version" | sort -V | head -n 1) == 0.8 ]]
}

# A private uv in .uv, which git ignores. Debian's Python may lack venv; its pip can still install
# into a folder.
install_uv() {
  echo "Installing uv into $root/.uv." >&2
  {
    "$1" -m venv --clear "$root/.uv" && "$root/.uv/bin/python" -m pip install --quiet uv
  } >&2 || {
    rm -rf "$root/.uv"
    "$1" -m pip install --quiet --target "$root/.uv" uv
  } >&2 || die "uv could not be installed into $root/.uv; install it: https://docs.astral.sh/uv"
  printf '%s\n' "$root/.uv/bin/uv"
}

# By default Flower's SuperLink installs a run's dependencies with `uv sync` into a private
# environment before it starts the run: half a minute, and a network, for packages that are here
# already. The switch is an environment variable of the SuperLink, which whatever `flwr run` comes
# first starts with its shell's environment. So it is set where none can miss it: Python executes
# this line in every process of .venv. An explicit FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=0
# still wins.
skip_flower_installs() {
  local packages
  packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  printf '%s\n' 'import os; os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")' \
    >"$packages/zk0_flower.pth"
}

# --- Flower's connections -------------------------------------------------------------------------

register_connections() {
  "$venv/bin/python" -P -m zk0.connections "$root"
}

# --- what this machine offers ---------------------------------------------------------------------

# The answer is kept until the libraries, the devices or the user's choice change: asking means
# starting MuJoCo.
note_opengl() {
  local kept=$venv/.zk0-opengl key answer
  local probe='from zk0.sim.opengl import probe; print(probe().message)'
  key=$(opengl_key)
  if [[ ! -f $kept || $(head -n 1 "$kept") != "$key" ]]; then
    if ! answer=$("$venv/bin/python" -P -c "$probe" 2>&1); then
      printf 'OpenGL could not be tested: %s\n' "${answer##*$'\n'}"
      return
    fi
    printf '%s\n%s\n' "$key" "$answer" >"$kept"
  fi
  tail -n +2 "$kept"
}

opengl_key() {
  {
    libraries | grep -E 'libEGL|libGLX?|libOSMesa' || true
    ls -d /dev/dri/* /dev/nvidia* 2>/dev/null || true
    echo "${MUJOCO_GL:-}"
  } | cksum
}

note_ffmpeg() {
  [[ -n $(type -P ldconfig || true) || -x /sbin/ldconfig ]] || return 0
  libraries | grep -q 'libavcodec\.so' ||
    echo "FFmpeg's shared libraries are missing: video is decoded by PyAV, at about half the speed" \
      "(Debian, Ubuntu: apt-get install ffmpeg)."
}

# /sbin is not on the PATH of Debian's ordinary users.
libraries() {
  PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null || true
}

main
