#!/bin/bash -l
# Muster: traits.predict, batch 0123456789.traits.predict.SLA, submission 0123456789.traits.predict.SLA.w1.89abcdef
#SBATCH --job-name=0123456789.traits.predict.SLA.w1.89abcdef
#SBATCH --comment=0123456789.traits.predict.SLA.w1.89abcdef
#SBATCH --no-requeue
#SBATCH --cpus-per-task=4
#SBATCH --mem=8192M
#SBATCH --time=0-02:00:00
#SBATCH --output=job.out
#SBATCH --open-mode=append
#SBATCH --export=ALL

muster_task=${SLURM_ARRAY_TASK_ID:-0}
muster_job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
if [[ ! -O environment ]]; then
  # Slurm begins in /tmp where it cannot enter the folder: nothing there is ours
  echo "muster: $SLURMD_NODENAME does not see the folder of this submission: $PWD" >&2
  exit 75
fi
muster_begin() {
  # one inode for the notes of all tasks: links to one file, where the file system has links
  if [[ ! -e job.$muster_job ]] && echo "$muster_job" >".job.$muster_task"; then
    ln ".job.$muster_task" "job.$muster_job"
    rm -f ".job.$muster_task"
  fi
  [[ -e started.$muster_task ]] && return 1
  ln "job.$muster_job" "started.$muster_task" ||
    (set -o noclobber; echo "$muster_job" >"started.$muster_task")
}
if ! muster_begin 2>/dev/null; then
  muster_other=
  IFS= read -r muster_other <"started.$muster_task"
  if [[ ! -e started.$muster_task ]]; then
    echo "muster: $SLURMD_NODENAME cannot write to the folder of this submission: $PWD" >&2
    exit 75
  elif [[ $muster_other != "$muster_job" ]]; then
    echo "muster: job ${muster_other:-unknown} has begun task $muster_task: a twin of it ends here"
    exit 0
  fi
fi
IFS=' ' read -r -a muster_elements < <(tail -n "+$((muster_task + 1))" elements)
muster_arguments=()
for muster_element in "${muster_elements[@]}"; do
  muster_arguments+=(--index "$muster_element")
done
. ./environment

module load apptainer
source '/opt/my env/activate' || exit 75

exec apptainer exec --nv '--bind=/a b' '/images/$(muster).sif' "$MUSTER_PYTHON" -m muster run "$MUSTER_BATCH" --logs "${muster_arguments[@]}"
