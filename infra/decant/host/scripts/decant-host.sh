#!/bin/sh
# Runs the program on the machine: decant-host COMMAND ...
#
# Every release that stops runs `pre-stop`. Where visitors are not sent to it, there is no wait, and Python need not start.
# (`close` is the name in the unit of the release before.)
if { [ "$1" = pre-stop ] || [ "$1" = close ]; } && [ "$(readlink /run/decant/current)" != "$2" ]; then
    exit 0
fi
exec 3>&2 2>/dev/null # hides the shell's own "Killed" when the program is killed
if [ "$1" = stage ]; then
    # The app that serves goes first, where Linux weighs sessions (autogroup) and where it weighs processes (niceness).
    echo 10 >/proc/self/autogroup
    renice -n 10 $$ >/dev/null
fi
# -P and -s: only the system's Python and these files, whatever the current folder and the user's home contain.
(PYTHONPATH=/opt/decant/python exec /usr/bin/python3 -P -s -m decant_host "$@" 2>&3 3>&-)
status=$?
# `run` has the status of the command that it ran.
if [ $status -gt 128 ] && [ "$1" != run ]; then
    echo "$(hostname): decant-host $1 was killed by signal $((status - 128)). Did the machine run out of memory?" \
        "See: journalctl -k. Then run pulumi up again." >&3
fi
exit $status
