# The input is one JSON document, {"event": ..., "steps": ..., "errors": ..., "async": ..., "ctx": ...}:
# in $1, on stdin, and in the file named by $STEPWELL_INPUT. stdout is the step's output, stderr is the log.
set -eu
echo "called with ${#1} characters" >&2
echo '{"hello": "world"}'
