# Makes or updates the virtual environment `.venv` and installs requirements and solver. Sourced by the other scripts;
# sets ROOT and PYTHON. Does nothing when neither the requirements nor the solver's sources changed.
#
# Environment: PIP_EXTRA_ARGS is passed to pip, for example "--extra-index-url URL" for another index, such as PyTorch's
# own with CPU-only builds, or "-c setup/constraints.txt" for the versions that the tests ran with. torch and torchvision
# come in one go, so that pip chooses builds of one release.
# BASE_PYTHON is the interpreter to make the environment with (python3).
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python"
BASE_PYTHON="${BASE_PYTHON:-python3}"
cd "$ROOT"

fail() { echo "error: $*" >&2; exit 2; }

command -v "$BASE_PYTHON" >/dev/null || fail "$BASE_PYTHON not found: install Python 3.10 or newer"
"$BASE_PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
  fail "Python 3.10 to 3.13 is needed, $BASE_PYTHON is $("$BASE_PYTHON" -V 2>&1); set BASE_PYTHON to another interpreter"
"$BASE_PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
  fail "$BASE_PYTHON lacks the venv module (Debian, Ubuntu: apt-get install python3-venv)"
command -v "${CXX:-g++}" >/dev/null || command -v clang++ >/dev/null ||
  fail "no C++ compiler found (Debian, Ubuntu: apt-get install g++ python3-dev)"

# sources_stamp: a digest of everything that is installed.
sources_stamp() {
  { cat setup/requirements.txt; find dsacstar -type f \( -name '*.cpp' -o -name '*.h' -o -name '*.py' -o -name '*.toml' -o -name '*.pyi' \) \
    ! -path '*/build/*' -print0 | LC_ALL=C sort -z | xargs -0 cat; } | sha256sum | cut -d' ' -f1
}

stamp="$(sources_stamp)"
if [ "$(cat "$VENV/installed.stamp" 2>/dev/null)" != "$stamp" ]; then
  echo "== installing into $VENV"
  [ -x "$PYTHON" ] || "$BASE_PYTHON" -m venv "$VENV"
  # Word splitting is wanted: PIP_EXTRA_ARGS holds several arguments.
  # shellcheck disable=SC2086
  "$PYTHON" -m pip install ${PIP_EXTRA_ARGS:-} -r setup/requirements.txt
  # shellcheck disable=SC2086
  "$PYTHON" -m pip install ${PIP_EXTRA_ARGS:-} ./dsacstar
  # Builds of different releases install without a word and fail here: "operator torchvision::nms does not exist".
  pair="$("$PYTHON" -c 'import torch, torchvision; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)' 2>&1)" ||
    fail "torch and torchvision do not fit each other (${pair##*$'\n'}): $("$PYTHON" -m pip list 2>/dev/null |
      awk '/^torch(vision)? /{printf "%s %s, ", $1, $2}')see setup/requirements.txt for the pairs; let pip choose them together: rm -r $VENV"
  echo "$stamp" >"$VENV/installed.stamp"
fi
