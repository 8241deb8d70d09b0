# The input is the last argument, as for any program. For serious JSON, `RUN apk add jq` in the Dockerfile.
set -eu
text=$(printf '%s' "$1" | sed -n 's/.*"text": *"\([^"]*\)".*/\1/p')
set -f # no file names for a * in the text
set -- ${text:-the quick brown fox}
echo "counting" >&2
printf '{"words": %d}\n' $#
