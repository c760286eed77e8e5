#!/bin/sh
# Runs one throwaway machine until it powers itself off or its control group is killed. machine.py starts this script
# in a mount namespace of its own, so the mounts end with the machine's last process, also when the starter has died.
# usage: supervisor.sh STATE_DIR IMAGE CGROUP systemd-nspawn ARGUMENT...
set -eu
dir=$1 image=$2 group=$3
shift 3

exec >>"$dir/console.log" 2>&1
trap 'touch "$dir/ended"' EXIT
# A control group either holds processes or passes its controllers on. So this script is in one group and the machine in
# another.
mkdir -p "$group/supervisor" "$group/machine"
echo 0 >"$group/supervisor/cgroup.procs"
exec </dev/null # releases the lock that `down` waits for: from here on `down` finds this process by its control group
read -r controllers <"$group/cgroup.controllers" || true
for controller in $controllers; do
    echo "+$controller" >"$group/cgroup.subtree_control" || true
done

mount -t overlay -o "lowerdir=$image,upperdir=$dir/upper,workdir=$dir/work" decant-rehearsal "$dir/root"

export SYSTEMD_NSPAWN_LOCK=0 # its lock files would stay when the machine is killed
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 # version 2, as on a real server, also where this computer mixes both

status=133 # what systemd-nspawn exits with when the machine rebooted
while [ "$status" -eq 133 ]; do
    status=0
    (
        echo 0 >"$group/machine/cgroup.procs"
        exec setpriv --pdeathsig KILL "$@"
    ) || status=$?
done
exit "$status"
