#!/bin/sh
# Every release that stops asks; where no visitor is sent to it, Python need not start to say that there is no wait.
if [ "$1" = close ] && [ "$(readlink /run/decant/current)" != "$2" ]; then
    exit 0
fi
exec 3>&2 2>/dev/null # the shell's own word on a program that is killed is "Killed"
if [ "$1" = stage ]; then
    # What serves goes first, where Linux weighs sessions against each other (autogroup) or processes by their niceness.
    echo 10 >/proc/self/autogroup
    renice -n 10 $$ >/dev/null
fi
# -P and -s: nothing but the system's Python and these files, wherever it is called from.
(PYTHONPATH=/opt/decant/python exec /usr/bin/python3 -P -s -m decant_host "$@" 2>&3 3>&-)
status=$?
if [ $status -gt 128 ]; then
    echo "$(hostname): decant-host $1 was killed by signal $((status - 128)). Was it for memory? journalctl -k tells." \
        "Run pulumi up again." >&3
fi
exit $status
