#!/usr/bin/env bash
# Runs linter, formatter check and the test suite in the project's environment (made if absent). Arguments go to pytest,
# and then only pytest runs.
source "$(dirname "${BASH_SOURCE[0]}")/make_env.sh"
if [ $# -eq 0 ]; then
  "$PYTHON" -m ruff check . || fail "the linter found faults; 'ruff check --fix .' mends some"
  "$PYTHON" -m ruff format --check --quiet . || fail "not formatted as pyproject.toml says; run 'ruff format .'"
fi
exec "$PYTHON" -m pytest "$@"
