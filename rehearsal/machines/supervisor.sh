#!/bin/sh
# Keeps one throwaway machine running until it powers itself off or its control group is killed. Started by machines.py
# in a mount namespace of its own: its mounts end with its last process, whatever becomes of whoever started it.
# usage: keeper.sh STATE_DIR IMAGE CGROUP systemd-nspawn ARGUMENT...
set -eu
dir=$1 image=$2 group=$3
shift 3

exec >>"$dir/console.log" 2>&1
trap 'touch "$dir/ended"' EXIT
# A control group may hold processes or pass its controllers on, not both: this script waits in one, the machine has
# another.
mkdir -p "$group/keeper" "$group/machine"
echo 0 >"$group/keeper/cgroup.procs"
exec </dev/null # stdin was the lock that `down` waits for: from here on it finds this process by its control group
read -r controllers <"$group/cgroup.controllers" || true
for controller in $controllers; do
    echo "+$controller" >"$group/cgroup.subtree_control" || true
done

mount -t overlay -o "lowerdir=$image,upperdir=$dir/upper,workdir=$dir/work" decant-rehearsal "$dir/root"

export SYSTEMD_NSPAWN_LOCK=0 # the lock files would stay behind when the power is cut
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 # control groups as on a real server, also where they are mixed outside

status=133 # what systemd-nspawn exits with when the machine rebooted
while [ "$status" -eq 133 ]; do
    status=0
    (
        echo 0 >"$group/machine/cgroup.procs"
        exec setpriv --pdeathsig KILL "$@"
    ) || status=$?
done
exit "$status"
