#!/bin/sh
# PID 1 of the image: it passes signals on to the command, and reaps what the command leaves.
exec dumb-init -- "$@"
