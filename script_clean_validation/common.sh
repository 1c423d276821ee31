# Shared by the validation scripts: evaluate all checkpoints of the matching runs, select, export. Sourced, never run.
source "$(dirname "${BASH_SOURCE[0]}")/../script_clean_training/common.sh"

# parse_validation_arguments DATASET TASK NET_DEPTH UNC CUDA_ID
parse_validation_arguments() {
  [ $# -le 5 ] || fail "at most 5 arguments: DATASET TASK NET_DEPTH UNC CUDA_ID, got $#"
  DATASET="${1:-urbanscape}" TASK="${2:-coord}" NET_DEPTH="${3:-FULL}" UNC="${4:-MLE}" CUDA_ID="${5:-0}"
  CKPT_DIR="${CKPT_DIR:-$OUTPUT_DIR}"
  check_common
  MIN_CKPT_ITER="${MIN_CKPT_ITER:-0}"
  [[ "$MIN_CKPT_ITER" =~ ^[0-9]+$ ]] || fail "MIN_CKPT_ITER must be a whole number, got '$MIN_CKPT_ITER'"
  if [ "$TASK" = semantics ]; then MIN_CKPT_ITER=0; fi
}

# real_validation_section: the real validation flight that belongs to CKPT_DIR.
real_validation_section() {
  case "$CKPT_DIR" in *-oop-*) echo val_oop_drone_real ;; *) echo val_drone_real ;; esac
}

# validate_and_select SECTION EXPORT_TEMPLATE KEYWORD...
# EXPORT_TEMPLATE may hold the fields that select_ckpt.py fills from the run's training record.
validate_and_select() {
  local section="$1" export_template="$2" folder
  shift 2
  local keywords=("$@")
  if [ "$NET_DEPTH" = TINY ]; then keywords+=(-tiny); else keywords+=('!-tiny'); fi
  # shellcheck disable=SC2206
  run "$PYTHON" "$ROOT/test_single_task.py" "$DATASET" --task "$TASK" --section "$section" "${NET_FLAGS[@]}" \
    --datasets_dir "$DATASETS_DIR" --search_dir "$CKPT_DIR" --keywords "${keywords[@]}" \
    --min_ckpt_iter "$MIN_CKPT_ITER" ${EXTRA_ARGS:-}
  run "$PYTHON" "$ROOT/script_clean_validation/select_ckpt.py" --task "$TASK" --section "$section" \
    --search_dir "$CKPT_DIR" --keywords "${keywords[@]}" --export "$export_template"
}
