echo '{"shipped": true}'
