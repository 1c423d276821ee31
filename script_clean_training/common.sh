# Shared by all scripts: defaults, the task table, the launcher. Sourced, never run.
#
# Environment (all optional; relative paths are the caller's):
#   DATASETS_DIR  scenes                         (datasets)
#   OUTPUT_DIR    logs and latest weights        (output)
#   CKPT_DIR      numbered checkpoints           (the output folder)
#   WEIGHTS_DIR   selected weights               (weights-clean)
#   EPOCHS BATCH_SIZE LR IMAGE_HEIGHT            replace a script's table row
#   MIN_CKPT_ITER checkpoints up to here are not validated
#   EXTRA_ARGS    appended to the command
#   PYTHON        interpreter                    (.venv/bin/python when there is one, else python3)
#   CUDA_VISIBLE_DEVICES  the GPUs that CUDA_ID counts among (all)
#   NPROC NNODES  processes on each machine, and machines, of one training (1 1): more than one go through torchrun, a GPU
#                 (or a core) each
#   MASTER_ADDR MASTER_PORT NODE_RANK  with NNODES: the first machine's address and port (29500), this one's number
#   DRY_RUN=1     print the commands instead of running them
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() { echo "error: $*" >&2; exit 2; }

# absolute PATH: the path as it is from anywhere; nothing needs to be there.
absolute() { case "$1" in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }

DATASETS_DIR="$(absolute "${DATASETS_DIR:-$ROOT/datasets}")"
OUTPUT_DIR="$(absolute "${OUTPUT_DIR:-$ROOT/output}")"
WEIGHTS_DIR="$(absolute "${WEIGHTS_DIR:-$ROOT/weights-clean}")"
CKPT_DIR="${CKPT_DIR:+$(absolute "$CKPT_DIR")}"
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ -x "$ROOT/.venv/bin/python" ] && PYTHON="$ROOT/.venv/bin/python"
fi

# glibc gives large blocks back at once and faults them in again at every step; keeping them saves a tenth of the time.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-1000000000}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-10000000000}"

# one_of NAME VALUE CHOICE...
one_of() {
  local name="$1" value="$2" choice
  shift 2
  for choice in "$@"; do [ "$value" = "$choice" ] && return 0; done
  fail "unknown $name '$value'; choose from: $*"
}

# chunk NAME VALUE: VALUE with two decimals; must be a number in [0, 1].
chunk() {
  [[ "$2" =~ ^(0(\.[0-9]+)?|1(\.0+)?)$ ]] || fail "$1 must be a number in [0, 1], got '$2'"
  LC_ALL=C printf '%.2f' "$2"
}

# scene_kind: the published scene, or other; three tables have a row for each.
scene_kind() { case "$DATASET" in urbanscape | naturescape) echo "$DATASET" ;; *) echo other ;; esac; }

# parse_encoder_arguments DEFAULT_REAL_CHUNK [DATASET TASK NET_DEPTH SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID]
parse_encoder_arguments() {
  local real_chunk="$1"
  shift
  [ $# -le 8 ] || fail "at most 8 arguments: DATASET TASK NET_DEPTH SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID, got $#"
  DATASET="${1:-urbanscape}" TASK="${2:-coord}" NET_DEPTH="${3:-FULL}"
  SIM_CHUNK="$(chunk SIM_CHUNK "${4:-${DEFAULT_SIM_CHUNK:-1.0}}")"
  REAL_DOMAIN="${5:-in_place}"
  REAL_CHUNK="$(chunk REAL_CHUNK "${6:-$real_chunk}")"
  UNC="${7:-MLE}" CUDA_ID="${8:-}"
  check_common
  one_of REAL_DOMAIN "$REAL_DOMAIN" in_place out_of_place
}

# parse_decoder_arguments [DATASET TASK NET_DEPTH PT_SIM_CHUNK PT_REAL_DOMAIN PT_REAL_CHUNK SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID]
# PT_ arguments name the encoders to start from, the others the data of this training.
parse_decoder_arguments() {
  [ $# -le 11 ] || fail "at most 11 arguments: DATASET TASK NET_DEPTH PT_SIM_CHUNK PT_REAL_DOMAIN PT_REAL_CHUNK SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID, got $#"
  DATASET="${1:-urbanscape}" TASK="${2:-coord}" NET_DEPTH="${3:-FULL}"
  PT_SIM_CHUNK="$(chunk PT_SIM_CHUNK "${4:-${DEFAULT_SIM_CHUNK:-1.0}}")"
  PT_REAL_DOMAIN="${5:-in_place}"
  PT_REAL_CHUNK="$(chunk PT_REAL_CHUNK "${6:-1.0}")"
  SIM_CHUNK="$(chunk SIM_CHUNK "${7:-0.0}")"
  REAL_DOMAIN="${8:-in_place}"
  REAL_CHUNK="$(chunk REAL_CHUNK "${9:-1.0}")"
  UNC="${10:-MLE}" CUDA_ID="${11:-}"
  check_common
  [ "$TASK" = coord ] || fail "the decoder is trained for the task coord only, not for '$TASK'"
  one_of PT_REAL_DOMAIN "$PT_REAL_DOMAIN" in_place out_of_place
  one_of REAL_DOMAIN "$REAL_DOMAIN" in_place out_of_place
}

# encoder_weights TASK KIND: where the selected encoder of a task lies. KIND is finetuned, or the folder's ending of
# encoders that were trained on real photos alone (pairwise-only, real-only).
encoder_weights() {
  local pretrained="$WEIGHTS_DIR/encoders-pretraining/$DATASET" partial=""
  if [ "$2" != finetuned ]; then
    echo "$pretrained-$2/$PT_REAL_DOMAIN/$1/model-sc-$PT_SIM_CHUNK-rc-$PT_REAL_CHUNK.net"
  elif [ "$PT_REAL_CHUNK" = 0.00 ] && [ "$REAL_CHUNK" = 0.00 ]; then # zero-shot: nothing real, at no stage
    echo "$pretrained/$1/model-sc-$PT_SIM_CHUNK.net"
  else
    if [ "$PT_REAL_CHUNK" != 1.00 ]; then partial="-partial-finetuning-$PT_REAL_CHUNK"; fi
    echo "$WEIGHTS_DIR/encoders-finetuning/$DATASET$partial/$PT_REAL_DOMAIN/$1/model-sc-$PT_SIM_CHUNK-rc-$PT_REAL_CHUNK.net"
  fi
}

# train_decoder KIND LABEL ENCODER...: the fused network of these encoders, the coord one training on.
# ENC_COORD ENC_DEPTH ENC_NORMAL ENC_SEMANTICS (environment) replace the weights files.
train_decoder() {
  local kind="$1" label="$2" domain=ip weights=() path task
  shift 2
  if [ "$PT_REAL_DOMAIN" != in_place ]; then domain=oop; fi
  for task in coord depth normal semantics; do
    local override="ENC_${task^^}"
    path="$(absolute "${!override:-$(encoder_weights "$task" "$kind")}")"
    if [ "${DRY_RUN:-0}" != 1 ] && [[ " $* " == *" $task "* ]] && [ ! -f "$path" ]; then
      fail "no $task encoder at $path; train, validate and select it first"
    fi
    weights+=("--${task}_weight" "$path")
  done
  TRAINING_PROGRAM=finetune_decoder_single_task.py
  launch_training --encoders "$@" "${weights[@]}" --reuse_coord_encoder --unfreeze_coord_encoder \
    --sim_data_chunk "$SIM_CHUNK" --real_data_chunk "$REAL_CHUNK" --real_data_domain "$REAL_DOMAIN" ${REAL_ONLY:+--real_only} \
    --session "enc-${label}pt$PT_SIM_CHUNK-$domain-ft$PT_REAL_CHUNK" \
    --epochs "${EPOCHS:-1000}" --learningrate "${LR:-0.0001}" --no_lr_scheduling --batch_size "${BATCH_SIZE:-8}"
}

# Checks DATASET TASK NET_DEPTH UNC and sets the flags that follow from them.
check_common() {
  one_of TASK "$TASK" coord depth normal semantics
  one_of NET_DEPTH "$NET_DEPTH" FULL TINY
  # The first pretraining section proves the data set; a scene may be of any name.
  [ "${DRY_RUN:-0}" = 1 ] || [ -d "$DATASETS_DIR/$DATASET" ] || fail "unknown data set '$DATASET': no folder $DATASETS_DIR/$DATASET"
  if [ "$TASK" = semantics ]; then UNC=none; fi
  one_of UNC "$UNC" MLE mle none NONE
  NET_FLAGS=(--uncertainty "$UNC")
  if [ "$NET_DEPTH" = TINY ]; then NET_FLAGS+=(--tiny); fi
  case "$TASK" in
    coord) TASK_FLAGS=(--inittolerance 50 --softclamp 100 --hardclamp 1000) ;;
    depth | normal) TASK_FLAGS=(--hardclamp 10) ;;
    semantics) TASK_FLAGS=() ; NET_FLAGS+=(--fullsize) ;;
  esac
  choose_gpu
}

# CUDA_ID counts among the GPUs that the user made visible (a scheduler does so): theirs, not the machine's.
choose_gpu() {
  local visible id="${CUDA_ID:-0}"
  if [ "${NPROC:-1}" != 1 ]; then # each process takes one of the visible GPUs
    [ -z "$CUDA_ID" ] || fail "CUDA_ID chooses one GPU, but NPROC=$NPROC processes take one each: use CUDA_VISIBLE_DEVICES"
    return
  fi
  if [ -z "${CUDA_VISIBLE_DEVICES+set}" ]; then export CUDA_VISIBLE_DEVICES="$id"; return; fi
  if [ -z "$CUDA_VISIBLE_DEVICES" ] || [ -z "$CUDA_ID" ]; then return; fi
  IFS=, read -ra visible <<<"$CUDA_VISIBLE_DEVICES"
  [[ "$id" =~ ^[0-9]+$ ]] && [ "$id" -lt "${#visible[@]}" ] ||
    fail "CUDA_ID $id: CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES shows ${#visible[@]} GPUs, counted from 0"
  export CUDA_VISIBLE_DEVICES="${visible[$id]}"
}

# run COMMAND...: runs it, or prints it under DRY_RUN=1.
run() {
  if [ "${DRY_RUN:-0}" = 1 ]; then
    local quoted
    printf -v quoted ' %q' "$@"
    echo "${quoted# }"
  else
    "$@"
  fi
}

# launcher: LAUNCHER, what starts a training program: the interpreter, or torchrun for several processes.
launcher() {
  local processes="${NPROC:-1}" machines="${NNODES:-1}" number="${NODE_RANK:-${SLURM_NODEID:-}}"
  [[ "$processes" =~ ^[1-9][0-9]*$ ]] || fail "NPROC must be a positive number, got '$processes'"
  [[ "$machines" =~ ^[1-9][0-9]*$ ]] || fail "NNODES must be a positive number, got '$machines'"
  LAUNCHER=("$PYTHON")
  if [ "$processes$machines" = 11 ]; then return; fi
  LAUNCHER+=(-m torch.distributed.run --nnodes "$machines" --nproc_per_node "$processes")
  if [ "$machines" = 1 ]; then LAUNCHER+=(--standalone); return; fi
  [ -n "${MASTER_ADDR:-}" ] || fail "NNODES=$machines needs MASTER_ADDR, the address of the first machine"
  [[ "$number" =~ ^[0-9]+$ ]] && [ "$number" -lt "$machines" ] ||
    fail "NNODES=$machines needs NODE_RANK, this machine's number from 0 to $((machines - 1)), got '$number'"
  LAUNCHER+=(--node_rank "$number" --master_addr "$MASTER_ADDR" --master_port "${MASTER_PORT:-29500}")
}

# launch_training TASK_ARGUMENTS...: the training program with everything the scripts share; a script's last call.
TRAINING_PROGRAM=train_single_task.py
launch_training() {
  local command
  launcher
  command=("${LAUNCHER[@]}" "$ROOT/$TRAINING_PROGRAM" "$DATASET" --task "$TASK" "${NET_FLAGS[@]}" "${TASK_FLAGS[@]}" "$@"
    --datasets_dir "$DATASETS_DIR" --output_dir "$OUTPUT_DIR" --auto_resume)
  if [ -n "$CKPT_DIR" ]; then command+=(--ckpt_dir "$CKPT_DIR"); fi
  if [ -n "${IMAGE_HEIGHT:-}" ]; then command+=(--image_height "$IMAGE_HEIGHT"); fi
  # Word splitting is wanted: EXTRA_ARGS holds several arguments.
  # shellcheck disable=SC2206
  command+=(${EXTRA_ARGS:-})
  if [ "${DRY_RUN:-0}" = 1 ]; then run "${command[@]}"; return; fi
  exec "${command[@]}" # a scheduler's signals reach the training, not a shell that waits for it
}
