case "$1" in
*'"attempt":1'*) case "$1" in *'"flaky":true'*) echo '{"status": 503}'; exit 0 ;; esac ;;
esac
echo '{"words": 3}'
