number=${1#*'"number":'}
echo "{\"said\":${number%%[!0-9]*}}"
