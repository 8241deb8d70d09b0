#!/bin/sh
# The result of the task is in the input, as the output of the step `mail`.
sed -n 's/.*"mail":\({[^}]*}\).*/\1/p'
