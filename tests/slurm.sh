#!/usr/bin/env bash
# Starts a Slurm of one node, this machine, for tests/lab1/engine/test_cluster.py. It runs as root and needs Debian's or
# Ubuntu's packages slurm-wlm and munge. Its settings and files are in a folder of their own, which it prints for the
# programs that are to find it:
#
#     export $(sudo bash tests/slurm.sh)       then: sinfo; pytest -m slow -n 0 tests/lab1/engine/test_cluster.py
#     sudo --preserve-env=SLURM_CONF scontrol shutdown
set -euo pipefail
folder=$(mktemp --directory --tmpdir slurm.XXXXXX)
host=$(hostname -s)
cores=$(nproc --all)
chmod 755 "$folder"
mkdir "$folder/state" "$folder/spool"
getent hosts "$host" > /dev/null || echo "127.0.0.1 $host" >> /etc/hosts

# Munge tells Slurm who calls; with systemd it runs since it was installed.
if ! munge --no-input > /dev/null 2>&1; then
  [ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
  chown munge: /etc/munge/munge.key
  chmod 400 /etc/munge/munge.key
  install --directory --owner=munge --group=munge /run/munge
  runuser -u munge -- /usr/sbin/munged
fi

cat > "$folder/slurm.conf" << END
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
# A node that was away may come back by itself.
ReturnToService=2
# Seconds between the signal that asks a job to end and the one that nothing survives: a killed job must not get ready.
KillWait=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores
PartitionName=main Nodes=$host Default=YES
END

export SLURM_CONF="$folder/slurm.conf"
slurmctld 1>&2
slurmd 1>&2
for _ in $(seq 60); do
  if sinfo --noheader 2> /dev/null | grep --quiet idle; then
    echo "SLURM_CONF=$SLURM_CONF"
    exit
  fi
  sleep 0.5
done
cat "$folder"/*.log >&2
exit 1
