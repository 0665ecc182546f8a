#!/bin/sh
# Start a command on a server that listens, see its output as it comes, and read the result: with curl alone.
#
#     mcp-tasks serve --transport http          # says where it listens; `mcp-tasks token` shows the token, once
#     MCP_TASKS_API=http://127.0.0.1:8377/api MCP_TASKS_TOKEN=… sh over_http.sh
set -eu
: "${MCP_TASKS_API:?is the URL of the API, like http://127.0.0.1:8377/api}"
: "${MCP_TASKS_TOKEN:?is what mcp-tasks token shows}"

call() {  # call METHOD PATH [OPTION...]; the token is read from a file, not told in the arguments
  method=$1 path=$2
  shift 2
  printf 'header = "Authorization: Bearer %s"\n' "$MCP_TASKS_TOKEN" |
    curl --silent --show-error --fail-with-body --config - --request "$method" "$MCP_TASKS_API$path" "$@"
}

# Its answer is kept first: what fails inside of a pipe ends no script.
answer=$(call POST /tasks --json '{"command": "for n in 1 2 3; do echo step $n; sleep 1; done", "wait_ms": 0}') || {
  echo "not started: ${answer:-no answer from $MCP_TASKS_API}" >&2
  exit 1
}
task=$(printf '%s' "$answer" | sed -n 's/.*"task_id": *"\([^"]*\)".*/\1/p')
echo "started $task"

# State and output as server-sent events, until the end; a broken connection goes on with Last-Event-ID.
call GET "/tasks/$task/events" --no-buffer

call GET "/tasks/$task/result"
echo
call DELETE "/tasks/$task"
echo
