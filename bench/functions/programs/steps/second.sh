# The first step's output and the event's data, extracted from the argument by the shell itself, without another process.
said=${1#*'"said":'}
said=${said%%[!0-9]*}
finish=${1#*'"finish":"'}
echo "$said" > "${finish%%'"'*}"
echo "{\"number\":$said}"
