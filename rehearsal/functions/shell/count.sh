#!/bin/sh
echo "counting" >&2
echo "{\"bytes\": ${#1}}"
