echo '{"mail": "reminded"}'
