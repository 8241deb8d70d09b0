# A step can be any program. Its stdout is the step's output: JSON stays JSON, other text becomes {"body": "..."}.
# The input is one JSON document: in $1, on stdin, and in the file named by $STEPWELL_INPUT.
set -eu
echo "called with ${#1} characters of JSON" >&2 # stderr is the step's log
df -P / | awk 'NR == 2 {sub("%", "", $5); printf "{\"free_mb\": %d, \"used_percent\": %d}\n", $4 / 1024, $5}'
