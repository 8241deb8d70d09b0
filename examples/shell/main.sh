# A step is any program: what it prints on stdout is its output. JSON stays JSON, other text becomes {"body": "..."}.
# Its input is one JSON document: in $1, on stdin, and in the file that $STEPWELL_INPUT names.
set -eu
echo "called with ${#1} characters of JSON" >&2 # stderr is the log
df -P / | awk 'NR == 2 {sub("%", "", $5); printf "{\"free_mb\": %d, \"used_percent\": %d}\n", $4 / 1024, $5}'
