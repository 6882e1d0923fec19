#!/bin/bash
# pythiageo on a SLURM cluster. From a folder that all nodes see, with pythiageo[ray] on the PATH:
#   sbatch --nodes=4 slurm.sh analyze EleutherAI/pythia-1.4b --disk-budget 200GB
#   sbatch --nodes=4 slurm.sh train --protocol billa-v4 --size nano,micro,small --seed 42,123,7
# When its time is up, submit the same line again: it goes on with what is missing.
#SBATCH --job-name=pythiageo
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0 HF_HUB_DISABLE_XET=1
# a Ray without a token does what anybody on the network asks
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

log=ray-$SLURM_JOB_ID.log
port=$((20000 + SLURM_JOB_ID % 10000)) # two jobs may meet on one node
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
ray_start=(ray start --block --num-cpus="$SLURM_CPUS_PER_TASK" --object-store-memory=1000000000)
# a step does not inherit the CPUs of a task
step=(srun --overlap --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK")
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT

"${step[@]}" --nodes=1 --ntasks=1 --nodelist="$head" \
  "${ray_start[@]}" --head --port="$port" --include-dashboard=false >"$log" 2>&1 &
until (exec 3<>"/dev/tcp/$head/$port") 2>/dev/null; do
  kill -0 $! 2>/dev/null || { echo "slurm.sh: Ray did not start on $head: see $log" >&2; exit 3; }
  sleep 1
done
if ((SLURM_JOB_NUM_NODES > 1)); then
  "${step[@]}" --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
    "${ray_start[@]}" --address="$head:$port" >>"$log" 2>&1 &
fi
pythiageo "$@" --engine ray --address "$head:$port" --resume
