#!/usr/bin/env bash
# Runs the test suite in the project's environment (made if absent). Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/make_env.sh"
exec "$PYTHON" -m pytest "$@"
