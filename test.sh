#!/usr/bin/env bash
# Lint, format and all tests; sets up .venv on the first call. Arguments go to pytest: bash test.sh -k causal
set -euo pipefail
cd "$(dirname "$0")"
EXTRAS=dev,sweep source ./setup.sh
ruff check .
ruff format --check .
python -m pytest "$@"
