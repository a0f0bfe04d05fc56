"""SLURM's commands as far as submitit uses them, as programs that run jobs on this machine."""

from pathlib import Path

SBATCH = r"""#!/bin/bash
# Runs each job of an array, or the one, in the background, which goes on when sbatch ends.
number=$((100 + $(ls STATE/*.batch 2> /dev/null | wc -l)))
cp "$1" "STATE/$number.batch"
last=$(sed -n 's/^#SBATCH --array=0-//p' "$1")
jobs=$number
[ -n "$last" ] && jobs=$(seq -f "${number}_%g" 0 "${last%\%*}")
for job in $jobs; do
    echo start > "STATE/$job.starts"
    STATE/run "$job"
done
echo "Submitted batch job $number"
"""

RUN = """#!/bin/bash
export SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_ID=${1/_/0}
[[ $1 = *_* ]] && export SLURM_ARRAY_JOB_ID=${1%_*} SLURM_ARRAY_TASK_ID=${1#*_}
touch "STATE/$1.runs"
setsid bash -c "bash STATE/${1%_*}.batch; rm STATE/$1.runs" > /dev/null 2>> STATE/errors &
"""

SRUN = """#!/bin/bash
# Takes its own options off, and starts one task, whose number is this process's.
shift
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
while [ "$1" = --output ] || [ "$1" = --error ]; do
    place=$(sed "s/%A_%a/$job/; s/%j/$job/; s/%t/0/" <<< "$2")
    [ "$1" = --output ] && exec >> "$place" || exec 2>> "$place"
    shift 2
done
export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_STEP_NUM_TASKS=1
echo $$ > "STATE/$job.task"
exec "$@"
"""

SACCT = """#!/bin/bash
echo 'JobID|State|NodeList'
for starts in STATE/*.starts; do
    job=$(basename "$starts" .starts)
    state=COMPLETED
    if [ -e "STATE/$job.requeued" ]; then state=PENDING; elif [ -e "STATE/$job.runs" ]; then state=RUNNING; fi
    echo "$job|$state|localhost"
done
"""

SCONTROL = """#!/bin/bash
# requeue JOB: the job starts again once it has ended.
echo start >> "STATE/$2.starts"
touch "STATE/$2.requeued"
(
    while [ -e "STATE/$2.runs" ]; do sleep 0.05; done
    STATE/run "$2"
    rm "STATE/$2.requeued"
) > /dev/null 2>> STATE/errors &
"""


def install(folder: Path) -> Path:
    """Write the commands into a folder, which is to be put first on PATH; returns where they keep the jobs' state."""
    state = folder / "state"
    state.mkdir(parents=True)
    commands = {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scontrol": SCONTROL, "state/run": RUN}
    for name, text in commands.items():
        program = folder / name
        program.write_text(text.replace("STATE", str(state)))
        program.chmod(0o755)
    return state
