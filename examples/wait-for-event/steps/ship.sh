# `async` in this step's input is the event that ended the wait.
echo '{"shipped": true}'
