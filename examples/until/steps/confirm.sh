echo '{"mail": "confirmed"}'
