echo '{"words": 3}'
