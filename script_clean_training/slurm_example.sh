#!/usr/bin/env bash
# Several machines under Slurm: sbatch script_clean_training/slurm_example.sh SCENE coord [NET_DEPTH ...]
# One task on each machine starts torchrun there, which starts a process for each GPU. Preempted or out of time: submit it
# again, it goes on where it stopped.
#SBATCH --job-name=crossloc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
# SIGTERM to the steps two minutes before the end: the state is saved.
#SBATCH --signal=TERM@120
set -euo pipefail
if [ -z "${SLURM_JOB_NODELIST:-}" ]; then
  echo "error: this is no Slurm job: submit it with sbatch" >&2
  exit 2
fi

# Slurm runs a copy of this file; the folder it was submitted from is the checkout.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"

NNODES="${SLURM_JOB_NUM_NODES:-1}"
NPROC="${NPROC:-4}"
MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
MASTER_PORT="$((20000 + SLURM_JOB_ID % 20000))" # jobs that share a machine do not meet
export NNODES NPROC MASTER_ADDR MASTER_PORT
# A script's batch is of all processes together; this is four images for each.
export BATCH_SIZE="${BATCH_SIZE:-$((NNODES * NPROC * 4))}"

srun --kill-on-bad-exit=1 bash script_clean_training/encoder_pretrain.sh "$@"
