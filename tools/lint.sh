#!/usr/bin/env bash
# Style, types and shell, over all that the project keeps.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
echo "ruff, mypy, shellcheck ..."
$bin/ruff check -q .
$bin/ruff format -q --check .
$bin/mypy --no-error-summary infra rehearsal bench/*.py app/hello app/wsgi.py tests
# From git where there is one: only what is the project's own.
{ git ls-files '*.sh' .ci/run 2>/dev/null || find . -name '*.sh' -not -path '*/.venv/*'; } | xargs $bin/shellcheck
