#!/usr/bin/env bash
# Writes one comment on the pull request: replaces that of an earlier run, or adds one.
#
# In: HEAP_FOLDER with `comment.md`, HEAP_AUTHOR, GITHUB_TOKEN, GITHUB_API_URL, GITHUB_REPOSITORY,
# GITHUB_EVENT_PATH. Out: the comment. A comment that cannot be written is a notice, no failure.
set -euo pipefail

body=$HEAP_FOLDER/comment.md
if [[ ! -s $body ]]; then exit 0; fi
# Each page of `profiler-cli --emit markdown` begins with it.
marker=$(head -n 1 -- "$body")
repository=$GITHUB_API_URL/repos/$GITHUB_REPOSITORY
answer=$(mktemp "$RUNNER_TEMP/answer.XXXXXX")

# Sends a request; the arguments are those of curl. The answer goes into $answer. The token is not
# on the command line, which other processes could read.
ask() {
  local status
  status=$(curl --silent --show-error --max-time 60 --retry 3 --output "$answer" --write-out '%{http_code}' \
    --header @<(printf 'Authorization: Bearer %s\n' "$GITHUB_TOKEN") \
    --header 'Accept: application/vnd.github+json' --header 'X-GitHub-Api-Version: 2022-11-28' "$@") || return 1
  [[ $status == 2* ]] || { echo "status $status: $(jq -r '.message // empty' "$answer" 2>/dev/null)" >&2; return 1; }
}

give_up() {
  echo "::notice title=Heap::$1; the job summary has the report"
  exit 0
}

# A pull request that a workflow of a fork has recorded is found by its commit: nothing that the
# fork wrote says which pull request it is.
pull_request() {
  local sha owner branch
  jq -er '.pull_request.number // empty' "$GITHUB_EVENT_PATH" && return
  sha=$(jq -r '.workflow_run.head_sha // empty' "$GITHUB_EVENT_PATH")
  if [[ -z $sha ]]; then return; fi
  owner=$(jq -r '.workflow_run.head_repository.owner.login' "$GITHUB_EVENT_PATH")
  branch=$(jq -r '.workflow_run.head_branch' "$GITHUB_EVENT_PATH")
  ask --get --data-urlencode "head=$owner:$branch" --data 'state=open' "$repository/pulls" || return
  jq -r --arg sha "$sha" 'map(select(.head.sha == $sha)) | .[0].number // empty' "$answer"
}

# Prints the number of the comment of an earlier run; prints nothing if there is none.
earlier_comment() {
  local page found
  for ((page = 1; page <= 100; page++)); do
    ask "$repository/issues/$number/comments?per_page=100&page=$page" || return
    found=$(jq -r --arg marker "$marker" --arg author "$HEAP_AUTHOR" \
      'map(select(.user.login == $author and (.body | startswith($marker)))) | .[0].id // empty' "$answer")
    if [[ -n $found ]]; then echo "$found"; fi
    if [[ -n $found || $(jq length "$answer") -lt 100 ]]; then return 0; fi
  done
}

number=$(pull_request) || give_up "the pull request was not found"
if [[ -z $number ]]; then exit 0; fi
[[ $number =~ ^[0-9]+$ ]] || give_up "the pull request has no number"
id=$(earlier_comment) || give_up "the comments of the pull request cannot be read"

request=$(mktemp "$RUNNER_TEMP/request.XXXXXX")
jq -Rs '{body: .}' "$body" >"$request"
may_write="a comment needs the permission 'pull-requests: write', which a workflow of a fork never has"
if [[ $id =~ ^[0-9]+$ ]]; then
  ask --request PATCH --data-binary "@$request" "$repository/issues/comments/$id" || give_up "$may_write"
else
  ask --request POST --data-binary "@$request" "$repository/issues/$number/comments" || give_up "$may_write"
fi
