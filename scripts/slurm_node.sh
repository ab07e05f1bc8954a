#!/usr/bin/env bash
# A Slurm of one node on the loopback address, for the tests of the cluster launcher.
#
#   scripts/slurm_node.sh install    get Slurm and MUNGE with apt
#   scripts/slurm_node.sh start      start it and wait until it takes jobs
#   scripts/slurm_node.sh stop       stop it and delete its state
#
# Needs root on Debian or Ubuntu, a container included: no systemd, no cgroups, no accounting. Everything it writes is
# in SLURM_NODE_DIR (default ${TMPDIR:-/tmp}/bnstudy-slurm), but for the link /etc/slurm/slurm.conf to its configuration.
set -euo pipefail

state=${SLURM_NODE_DIR:-${TMPDIR:-/tmp}/bnstudy-slurm}
link=/etc/slurm/slurm.conf
node=$(hostname | cut -d. -f1)

refuse() {
    echo "slurm_node.sh: $*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || refuse "this needs root: slurmd starts jobs for other users."
}

need_programs() {
    local program
    for program in munged slurmctld slurmd sinfo; do
        command -v "$program" >/dev/null || refuse "$program is not installed: run '$0 install' first."
    done
}

ours() {
    [ -L "$link" ] && [ "$(readlink "$link")" = "$state/slurm.conf" ]
}

# Whether process $1 runs program $2. One that ended and that nobody waited for, as in a container, has no exe.
runs() {
    [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ] && [ -e "/proc/$1/exe" ]
}

# The process that a daemon noted in its pid file, if it still runs.
running() {
    local pid
    pid=$(cat "$state/$1.pid" 2>/dev/null) && runs "$pid" "$1" && echo "$pid"
}

no_other_controller() {
    local process
    for process in /proc/[0-9]*; do
        ! runs "${process#/proc/}" slurmctld || refuse "another slurmctld runs here (process ${process#/proc/})."
    done
}

install() {
    need_root
    command -v apt-get >/dev/null || refuse "there is no apt-get here: install Slurm and MUNGE by hand."
    apt-get update -qq
    # Runlevel 1 keeps Debian's scripts from starting the daemons with a configuration that is not there.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends munge slurm-wlm >/dev/null
}

# Job memory is checked, not shared out (CR_CPU), so that jobs run with --mem and without. A requeued job waits until
# its old credential has expired: two minutes by default.
configure() {
    local cpus memory
    cpus=$(nproc)
    memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
    cat >"$state/slurm.conf" <<CONF
ClusterName=bnstudy
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge/munge.socket,cred_expire=10
CredType=cred/munge
SlurmctldPort=${SLURM_NODE_PORT:-6817}
SlurmdPort=$((${SLURM_NODE_PORT:-6817} + 1))
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,sched_min_interval=100000
PriorityType=priority/basic
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
MinJobAge=30
KillWait=5
InactiveLimit=0
MaxArraySize=1001
NodeName=$node NodeAddr=127.0.0.1 CPUs=$((cpus > 4 ? cpus : 4)) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
}

start_munge() {
    dd if=/dev/urandom of="$state/munge/key" bs=1 count=1024 status=none
    chown -R munge: "$state/munge"
    chmod 600 "$state/munge/key"
    runuser -u munge -- munged --key-file="$state/munge/key" --socket="$state/munge/munge.socket" \
        --pid-file="$state/munge/munged.pid" --log-file="$state/munge/munged.log" \
        --seed-file="$state/munge/munged.seed"
    ln -s munge/munged.pid "$state/munged.pid"
}

start() {
    need_root
    need_programs
    if ours && running slurmctld >/dev/null; then
        echo "Already running: $state."
        return
    fi
    no_other_controller
    [ ! -e "$link" ] || ours || refuse "$link belongs to another Slurm: nothing is touched."
    [ ! -e "$state" ] || stop
    mkdir -p "$state"/{munge,controller,spool} "$(dirname "$link")"
    chmod 755 "$state" "$state/munge"
    configure
    ln -sfn "$state/slurm.conf" "$link"
    start_munge
    slurmctld
    slurmd
    await_idle
}

await_idle() {
    local _
    for _ in $(seq 100); do
        if [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ]; then
            sinfo
            return
        fi
        sleep 0.2
    done
    sinfo >&2 || true
    tail -n 20 "$state"/slurmctld.log "$state"/slurmd.log >&2
    refuse "the node is not idle after 20 s; the logs are in $state."
}

stop() {
    need_root
    local daemon pid _
    for daemon in slurmd slurmctld munged; do
        pid=$(running "$daemon") || continue
        kill "$pid"
        for _ in $(seq 50); do
            running "$daemon" >/dev/null || break
            sleep 0.1
        done
    done
    if ours; then rm "$link"; fi
    rm -rf "$state"
}

case "${1:-}" in
    install | start | stop) "$1" ;;
    *) refuse "say what to do: install, start or stop." ;;
esac
