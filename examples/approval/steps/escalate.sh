#!/bin/sh
echo '{"mail": "Nobody has decided on a refund for two days"}'
