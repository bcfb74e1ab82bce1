#!/usr/bin/env bash
# Finds or builds profiler-cli.
#
# In: HEAP_CLI, a path or empty. Out: `cli=PATH` in $GITHUB_OUTPUT.
set -euo pipefail

cli=${HEAP_CLI:-}
if [[ -z $cli ]]; then
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  cargo install --locked --quiet --path "$here/profiler-cli" --root "$RUNNER_TEMP/profiler-cli"
  cli=$RUNNER_TEMP/profiler-cli/bin/profiler-cli
fi
# Later steps run in other folders.
if ! cli=$(realpath -e -- "$cli") || [[ ! -x $cli ]]; then
  echo "::error title=Heap::there is no program ${HEAP_CLI:-profiler-cli}: check the input 'cli'"
  exit 1
fi
echo "cli=$cli" >>"$GITHUB_OUTPUT"
