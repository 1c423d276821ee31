# Shared by the validation scripts: evaluate all checkpoints of the matching runs, select, export. Sourced, never run.
source "$(dirname "${BASH_SOURCE[0]}")/../script_clean_training/common.sh"

# parse_validation_arguments STAGE [DATASET TASK NET_DEPTH UNC CUDA_ID]
# MIN_CKPT_ITER comes from the environment, else it is the number that the published notes give for the stage and scene.
parse_validation_arguments() {
  local stage="$1"
  shift
  [ $# -le 5 ] || fail "at most 5 arguments: DATASET TASK NET_DEPTH UNC CUDA_ID, got $#"
  DATASET="${1:-urbanscape}" TASK="${2:-coord}" NET_DEPTH="${3:-FULL}" UNC="${4:-MLE}" CUDA_ID="${5:-}"
  CKPT_DIR="${CKPT_DIR:-$OUTPUT_DIR}"
  check_common
  case "$stage:$(scene_kind)" in
    *:other | e2e:*) published=0 ;;
    pretrain:urbanscape) published=1600000 ;;
    pretrain:naturescape) published=2200000 ;;
    pairwise_only:* | real_only:*) published=1600000 ;;
    finetune:urbanscape) published=800000 ;;
    finetune:naturescape | decoder:*) published=1000000 ;;
  esac
  MIN_CKPT_ITER="${MIN_CKPT_ITER:-$published}"
  [[ "$MIN_CKPT_ITER" =~ ^[0-9]+$ ]] || fail "MIN_CKPT_ITER must be a whole number, got '$MIN_CKPT_ITER'"
  if [ "$TASK" = semantics ]; then MIN_CKPT_ITER=0; fi
}

# validate_and_select STAGE KIND EXPORT_TEMPLATE KEYWORD...
# Runs are found by their records (scene, task, stage, kind of data unless it is empty, size); the published keywords also have to occur in
# the run folder's name. The section is the one that the run's own record calls for.
# EXPORT_TEMPLATE may hold the fields that select_ckpt.py fills from the run's record.
validate_and_select() {
  local stage="$1" kind="$2" export_template="$3" size=full
  shift 3
  if [ "$NET_DEPTH" = TINY ]; then size=tiny; fi
  local runs=(--search_dir "$CKPT_DIR" --stage "$stage" ${kind:+--kind "$kind"} --size "$size" --keywords "$@")
  # Word splitting is wanted: EXTRA_ARGS holds several arguments.
  # shellcheck disable=SC2086
  run "$PYTHON" "$ROOT/test_single_task.py" "$DATASET" --task "$TASK" --section validation "${NET_FLAGS[@]}" \
    --datasets_dir "$DATASETS_DIR" "${runs[@]}" --min_ckpt_iter "$MIN_CKPT_ITER" --resume ${EXTRA_ARGS:-}
  run "$PYTHON" "$ROOT/script_clean_validation/select_ckpt.py" --scene "$DATASET" --task "$TASK" --section validation \
    "${runs[@]}" --min_ckpt_iter "$MIN_CKPT_ITER" --export "$export_template"
}
