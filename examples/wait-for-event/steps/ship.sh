# The event that came is `async` in this step's input.
echo '{"shipped": true}'
