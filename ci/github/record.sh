#!/usr/bin/env bash
# Records the program of the checked-out commit, and that of the commit to compare with.
#
# In: HEAP_CLI, HEAP_RUN, HEAP_SETUP, HEAP_DIRECTORY, HEAP_RUNS, HEAP_BASE, HEAP_RECORDINGS; the
# repository in the working directory. Out: dumps in the folders `head` and `base`; the path of the
# folder that has both as `folder=PATH` in $GITHUB_OUTPUT. Without a base there is no folder `base`.
set -euo pipefail

notice() { echo "::notice title=Heap::$1"; }
fail() {
  echo "::error title=Heap::$1"
  exit 1
}

folder=$(mktemp -d "$RUNNER_TEMP/heap.XXXXXX")
echo "folder=$folder" >>"$GITHUB_OUTPUT"

if [[ -n ${HEAP_RECORDINGS:-} ]]; then
  [[ -d $HEAP_RECORDINGS/head ]] || fail "the folder of the input 'recordings' has no folder 'head'"
  cp -r -- "$HEAP_RECORDINGS/head" "$folder/head"
  if [[ -d $HEAP_RECORDINGS/base ]]; then cp -r -- "$HEAP_RECORDINGS/base" "$folder/base"; fi
  exit
fi

[[ -n ${HEAP_RUN:-} ]] || fail "the input 'run' is empty: give the commands that run the program"
[[ ${HEAP_RUNS:-1} =~ ^[1-9][0-9]?$ ]] || fail "the input 'runs' is no number from 1 to 99"

# Files and lines of dependencies and of the program; a profile with full debug information keeps it.
export CARGO_PROFILE_RELEASE_DEBUG=${CARGO_PROFILE_RELEASE_DEBUG:-line-tables-only}

# Records the source tree $1 into the folder $2. The shell ignores `set -e` in a function whose
# status is tested, so each command returns by itself.
record() {
  local tree=$1 dumps=$2 run
  mkdir -p "$dumps" || return
  cd -- "$tree/${HEAP_DIRECTORY:-.}" || return
  if [[ -n ${HEAP_SETUP:-} ]]; then bash -euo pipefail -c "$HEAP_SETUP" || return; fi
  for ((run = 1; run <= ${HEAP_RUNS:-1}; run++)); do
    "$HEAP_CLI" run --report none -o "$dumps/run$run.%p.alloc" -- bash -euo pipefail -c "$HEAP_RUN" || return
  done
}

# Prints the commit to compare with; prints nothing if there is none.
base_commit() {
  local parents base tip
  case ${HEAP_BASE:-auto} in
    none) return ;;
    auto) ;;
    -*) return 1 ;;
    *)
      git rev-parse --verify --quiet "$HEAP_BASE^{commit}" && return
      git fetch --quiet --no-tags --depth=1 origin "$HEAP_BASE" && git rev-parse FETCH_HEAD
      return
      ;;
  esac
  # A pull request is checked out as a merge commit. Its first parent is what it is merged into. A
  # shallow clone has the name of the parent and not the parent.
  mapfile -t parents < <(git cat-file -p HEAD | sed -n '/^$/q; s/^parent //p')
  if ((${#parents[@]} > 1)); then
    base=${parents[0]}
  else
    tip=$(jq -r '.pull_request.base.sha // .before // empty' "$GITHUB_EVENT_PATH")
    [[ $tip =~ ^[0-9a-f]{40,64}$ && ! $tip =~ ^0+$ ]] || return 0
    git cat-file -e "$tip^{commit}" 2>/dev/null ||
      git fetch --quiet --no-tags --depth=1 origin "$tip" || return
    # Of two branches, the commit at which they part. A shallow clone may not know it.
    base=$(git merge-base HEAD "$tip" || echo "$tip")
  fi
  git cat-file -e "$base^{commit}" 2>/dev/null ||
    git fetch --quiet --no-tags --depth=1 origin "$base" || return
  echo "$base"
}

repository=$(git rev-parse --show-toplevel)
if ! (record "$repository" "$folder/head"); then fail "the program of this commit was not recorded"; fi

if ! base=$(base_commit); then
  notice "the commit to compare with is not at hand: check out with fetch-depth: 0"
  exit
fi
[[ -n $base ]] || exit 0
# What cannot be built, or does not link alloc-tracker yet, is no reason to fail.
git worktree add --quiet --detach "$folder/base-source" "$base"
if ! (record "$folder/base-source" "$folder/base"); then
  rm -rf "$folder/base"
  notice "the program of the base $base was not recorded: there is no comparison"
fi
git worktree remove --force "$folder/base-source"
