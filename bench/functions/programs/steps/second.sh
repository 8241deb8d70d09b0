# The first step's output and the event's data, cut out of the argument by the shell itself: no further process.
said=${1#*'"said":'}
said=${said%%[!0-9]*}
finish=${1#*'"finish":"'}
echo "$said" > "${finish%%'"'*}"
echo "{\"number\":$said}"
