#!/usr/bin/env bash
# Style, types, shell and workflows, over all that the project keeps.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
echo "ruff, mypy, shellcheck, zizmor, actionlint ..."
$bin/ruff check -q .
$bin/ruff format -q --check .
$bin/mypy --no-error-summary infra fabfile.py rehearsal bench/*.py app/hello app/wsgi.py tests
# From git where there is one: only what is the project's own.
{ git ls-files '*.sh' .ci/run 2>/dev/null || find . -name '*.sh' -not -path '*/.venv/*'; } | xargs $bin/shellcheck

$bin/zizmor --offline --persona=pedantic --quiet .github
# actionlint is a Go program. Its Python package downloads a binary; Go's proxy has the source, with a checksum.
version=v1.7.12
actionlint=$bin/actionlint-$version
if ! [[ -x $actionlint ]] && command -v go >/dev/null; then
    if GOBIN=$PWD/.venv/go go install "github.com/rhysd/actionlint/cmd/actionlint@$version"; then
        mv .venv/go/actionlint "$actionlint"
    fi
fi
if [[ -x $actionlint ]]; then
    "$actionlint" -shellcheck="$bin/shellcheck" .github/workflows/*.yml
elif [[ ${CI:-} && ! ${GITLAB_CI:-} ]]; then
    echo "CI has to run actionlint, which needs Go 1.25 or newer: https://go.dev/dl/" >&2
    exit 1
else
    echo "actionlint is left out, because it needs Go 1.25 or newer. CI runs it."
fi
