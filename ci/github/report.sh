#!/usr/bin/env bash
# Compares and checks what was recorded, for the job summary, the comment and the lines.
#
# In: HEAP_CLI, HEAP_FOLDER with `head` and perhaps `base`, HEAP_BASELINE, HEAP_BUDGETS. Out:
# `comment.md` and flamegraphs in HEAP_FOLDER, annotations on stdout, the job summary, and
# `passed=true` or `passed=false` in $GITHUB_OUTPUT. Fails only if it cannot tell.
set -euo pipefail

# The most characters of a comment.
readonly MOST=65536

head=$HEAP_FOLDER/head base=$HEAP_FOLDER/base
pages=() passed=true

bounds=()
if [[ -n ${HEAP_BASELINE:-} ]]; then bounds+=(--baseline "$HEAP_BASELINE"); fi
if [[ -n ${HEAP_BUDGETS:-} ]]; then bounds+=(--budgets "$HEAP_BUDGETS"); fi
if ((${#bounds[@]} > 0)); then
  status=0
  "$HEAP_CLI" check "$head" "${bounds[@]}" --emit annotations --emit "markdown=$HEAP_FOLDER/check.md" \
    --emit "markdown=$GITHUB_STEP_SUMMARY" || status=$?
  # 1 is the verdict; any other status is an error, which the line above has named.
  ((status <= 1)) || exit "$status"
  ((status == 0)) || passed=false
  pages+=("$HEAP_FOLDER/check.md")
fi

if [[ -d $base ]]; then
  "$HEAP_CLI" diff "$base" "$head" -o "$HEAP_FOLDER/growth.svg" --emit annotations \
    --emit "markdown=$HEAP_FOLDER/diff.md" --emit "markdown=$GITHUB_STEP_SUMMARY"
  pages+=("$HEAP_FOLDER/diff.md")
elif ((${#pages[@]} == 0)); then
  for dump in "$head"/*.alloc; do
    { printf '### Heap\n\n```\n' && "$HEAP_CLI" summary "$dump" | sed 's/```/~~~/g' && printf '```\n'; } \
      >>"$GITHUB_STEP_SUMMARY"
  done
fi

# The comment has both pages. The second is left out if they do not fit into one comment.
if ((${#pages[@]} > 0)); then
  comment=$HEAP_FOLDER/comment.md
  cp -- "${pages[0]}" "$comment"
  if ((${#pages[@]} > 1)); then
    if (($(cat -- "${pages[@]}" | wc -m) + 1 <= MOST)); then
      { echo && cat -- "${pages[1]}"; } >>"$comment"
    else
      more='The comparison with the base does not fit into this comment: see the job summary.'
      if (($(wc -m <"$comment") + ${#more} + 3 <= MOST)); then printf '\n%s\n' "$more" >>"$comment"; fi
    fi
  fi
fi
echo "passed=$passed" >>"$GITHUB_OUTPUT"
