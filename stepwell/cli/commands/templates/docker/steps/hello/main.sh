# The input is one JSON document, {"event": ..., "steps": ..., "errors": ..., "async": ..., "ctx": ...}, as the last
# argument and on stdin. stdout is the step's output, stderr is the log.
set -eu
echo "called with ${#1} characters" >&2
echo '{"hello": "world"}'
