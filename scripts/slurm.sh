#!/bin/bash
# Train under SLURM, and go on by itself when the time is over or a node goes down.
#
#   sbatch scripts/slurm.sh --config configs/scale/refavs_7b.yaml --config configs/scale/7b_80gb.yaml
#   sbatch --nodes=2 --time=08:00:00 scripts/slurm.sh --config configs/scale/refavs_7b.yaml --config configs/scale/2x8.yaml
#
# Arguments are those of `python train.py fit`. The run is in runs/slurm/job_<number>, on a file system that all nodes
# see. Five minutes before the time is over the job is told to stop: the running step ends, the run is saved, and the job
# is put into the queue again under the same number, where it finds its checkpoint. Should the step take longer than that,
# the job is queued again half a minute before its end all the same, and goes on from the checkpoint before. A run that
# fails is not repeated.
#
#SBATCH --job-name=omni-r1
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.txt
set -uo pipefail

run="runs/slurm/job_$SLURM_JOB_ID"
if [ -e "$run/checkpoints/last.ckpt" ]; then
    arguments=(--resume "$run")
else
    arguments=("$@" --trainer.logger.save_dir runs --trainer.logger.name slurm --trainer.logger.version "job_$SLURM_JOB_ID")
fi
arguments+=(--trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE")

# Since version 22.05 `srun` does not take this over from the job, and would give every process one core.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
fi

# Seconds from the signal (--signal above) until the job is queued again whatever it does.
patience=${REQUEUE_AFTER_S:-270}
deadline=""
stop() {
    deadline=$((SECONDS + patience))
    # To the processes of the run, not to this script.
    scancel --signal=TERM "$SLURM_JOB_ID"
}
trap stop USR1

srun python train.py fit "${arguments[@]}" &
step=$!
# Not one long `wait`: a signal that arrives just before it would be heard only when the run has ended.
while kill -0 "$step" 2>/dev/null; do
    if [ -n "$deadline" ] && [ "$SECONDS" -ge "$deadline" ]; then
        scontrol requeue "$SLURM_JOB_ID"
        wait "$step"
        exit 0
    fi
    sleep 1
done
trap '' USR1
wait "$step"
code=$?
if [ -n "$deadline" ] && [ "$code" -ne 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
