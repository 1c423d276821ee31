#!/usr/bin/env bash
# The whole curriculum of a scene: every encoder pre-trained on synthetic images, validated, selected, fine-tuned on
# real-synthetic pairs, validated, selected; then the fused networks trained, validated, selected; then the test.
#
# usage: run_crossloc.sh SCENE [DOMAIN] [NET_DEPTH] [PART]
#   DOMAIN     in_place (default) or out_of_place: the flight of the real photos
#   NET_DEPTH  FULL (default) or TINY
#   PART       only this part, for a batch scheduler or another machine: coord, depth, normal, semantics (one encoder each,
#              independent of each other), crossloc, crossloc_se (one fused network each), test (validation, selection and
#              test of the fused networks; table). Left out: all of them in this order.
#
# A stage whose record says that it is complete and that its inputs are the same is skipped by its own command, and an
# interrupted one goes on: call it again after whatever happened.
#
# Environment, beside that of common.sh:
#   TASKS       encoders to train                         (coord depth normal semantics)
#               with coord, depth and normal among them CrossLoc is fused, with semantics CrossLoc-SE too
#   JOBS        independent trainings side by side, spread over the visible GPUs or the cores, each with its own log (1)
#   PRETRAIN_EPOCHS PRETRAIN_LR PRETRAIN_ARGS PRETRAIN_MIN_CKPT_ITER, the same with FINETUNE_ and DECODER_:
#               EPOCHS, LR, EXTRA_ARGS, MIN_CKPT_ITER of one stage; its _ARGS come before EXTRA_ARGS
#   OVERVIEW    picture of the fine-tuned coord network's test
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/common.sh"

[ $# -ge 1 ] && [ $# -le 4 ] || fail "usage: run_crossloc.sh SCENE [DOMAIN] [NET_DEPTH] [PART], got $# arguments"
DATASET="$1" DOMAIN="${2:-in_place}" NET_DEPTH="${3:-FULL}" PART="${4:-all}"
TASKS="${TASKS:-coord depth normal semantics}" JOBS="${JOBS:-1}"
one_of DOMAIN "$DOMAIN" in_place out_of_place
one_of NET_DEPTH "$NET_DEPTH" FULL TINY
one_of PART "$PART" all coord depth normal semantics crossloc crossloc_se test
for task in $TASKS; do one_of TASKS "$task" coord depth normal semantics; done
[[ " $TASKS " == *" coord "* ]] || fail "TASKS must name coord, got '$TASKS'"
[[ "$JOBS" =~ ^[1-9][0-9]*$ ]] || fail "JOBS must be a whole number above 0, got '$JOBS'"
[ "${DRY_RUN:-0}" = 1 ] || [ -d "$DATASETS_DIR/$DATASET" ] ||
  fail "unknown data set '$DATASET': no folder $DATASETS_DIR/$DATASET"
if [ -n "${OVERVIEW:-}" ]; then OVERVIEW="$(absolute "$OVERVIEW")"; fi
export DATASETS_DIR OUTPUT_DIR WEIGHTS_DIR CKPT_DIR PYTHON TASKS JOBS
export OVERVIEW="${OVERVIEW:-}"

SIZE="${NET_DEPTH,,}" SECTION=test_drone_real LABEL=ip
if [ "$DOMAIN" = out_of_place ]; then SECTION=test_oop_drone_real LABEL=oop; fi
STAGES_DIR="$OUTPUT_DIR/crossloc_${DATASET}_${DOMAIN}_$SIZE"
validation="$ROOT/script_clean_validation"

wanted() { [[ " $TASKS " == *" $1 "* ]]; }
decoders=()
if wanted depth && wanted normal; then decoders=(crossloc); fi
if wanted depth && wanted normal && wanted semantics; then decoders+=(crossloc_se); fi

say() { if [ "${DRY_RUN:-0}" = 1 ]; then echo "# $*"; else echo "== $(date '+%H:%M:%S') $*" >&3; fi; }

# stage NAME COMMAND...: runs a stage and notes in the journal how long it took and how it ended.
stage() {
  local name="$1" began status=0
  shift
  say "$name"
  if [ "${DRY_RUN:-0}" = 1 ]; then "$@"; return; fi
  began="$(date '+%s')"
  "$@" || status=$?
  echo "$name,$began,$(($(date '+%s') - began)),$status" >>"$STAGES_DIR/journal.csv"
  case "$status" in
    0) ;;
    130) say "$name: interrupted" ;;
    *) say "$name: FAILED (status $status)${LOG:+; $(tail -n 1 "$LOG"); see $LOG}" ;;
  esac
  return "$status"
}

# tuned STAGE COMMAND...: a training under the stage's own numbers. checked STAGE COMMAND...: a validation.
tuned() {
  local epochs="$1_EPOCHS" lr="$1_LR" extra="$1_ARGS"
  shift
  EPOCHS="${!epochs:-${EPOCHS:-}}" LR="${!lr:-${LR:-}}" EXTRA_ARGS="${!extra:-} ${EXTRA_ARGS:-}" "$@"
}
checked() {
  local low="$1_MIN_CKPT_ITER"
  shift
  MIN_CKPT_ITER="${!low:-${MIN_CKPT_ITER:-}}" "$@"
}

# gpu: the GPU of this part, counted among the visible ones; nothing where there is no choice.
gpu() {
  local count=0 visible
  if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
    IFS=, read -ra visible <<<"$CUDA_VISIBLE_DEVICES"
    count=${#visible[@]}
  elif [ -z "${CUDA_VISIBLE_DEVICES+set}" ] && command -v nvidia-smi >/dev/null; then
    count="$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)"
  fi
  if [ "$JOBS" -gt 1 ] && [ "$count" -gt 1 ]; then echo $((${CROSSLOC_SLOT:-0} % count)); fi
}

encoder() {
  local task="$1" id
  id="$(gpu)"
  stage "pretrain $task" tuned PRETRAIN "$here/encoder_pretrain.sh" "$DATASET" "$task" "$NET_DEPTH" "" "" "" "" "$id"
  stage "validate pretrain $task" checked PRETRAIN "$validation/validate_encoder_pretrain.sh" \
    "$DATASET" "$task" "$NET_DEPTH" "" "$id"
  stage "finetune $task" tuned FINETUNE "$here/encoder_finetune.sh" \
    "$DATASET" "$task" "$NET_DEPTH" 1.0 "$DOMAIN" 1.0 "" "$id"
  stage "validate finetune $task" checked FINETUNE "$validation/validate_encoder_finetune.sh" \
    "$DATASET" "$task" "$NET_DEPTH" "" "$id"
}

decoder() {
  local script=decoder_finetune.sh
  if [ "$1" = crossloc_se ]; then script=decoder_finetune_plus_semantics.sh; fi
  stage "decoder $1" tuned DECODER "$here/$script" \
    "$DATASET" coord "$NET_DEPTH" 1.0 "$DOMAIN" 1.0 0.0 "$DOMAIN" 1.0 "" "$(gpu)"
}

# test_weights ARGUMENT...: on the test section; what was tested already is skipped.
test_weights() {
  run "$PYTHON" "$ROOT/test_single_task.py" "$DATASET" --task coord --section "$SECTION" \
    --datasets_dir "$DATASETS_DIR" --resume "$@"
}

finish() {
  local finetuned="$WEIGHTS_DIR/encoders-finetuning/$DATASET/$DOMAIN/coord/model-sc-1.00-rc-1.00.net"
  CUDA_ID="" choose_gpu
  if [ ${#decoders[@]} -gt 0 ]; then
    stage "validate decoder" checked DECODER "$validation/validate_decoder_finetune.sh" "$DATASET" coord "$NET_DEPTH"
  fi
  stage "test pretrain" test_weights --network_in "$WEIGHTS_DIR/encoders-pretraining/$DATASET/coord/model-sc-1.00.net"
  stage "test finetune" test_weights --network_in "$finetuned" ${OVERVIEW:+--overview "$OVERVIEW"}
  if [ ${#decoders[@]} -gt 0 ]; then
    stage "test decoder" test_weights --search_dir "$WEIGHTS_DIR/decoders" --stage decoder --kind pairs --domain "$DOMAIN" \
      --size "$SIZE" --session "enc-pt1.00-$LABEL-ft1.00" --keywords decoder_coord_free_depth_normal
  fi
}

# side_by_side PART...: JOBS of them at a time. Status 124: one was interrupted, no other was begun; 123: one failed.
side_by_side() {
  if [ "${DRY_RUN:-0}" = 1 ]; then
    for part in "$@"; do "$here/run_crossloc.sh" "$DATASET" "$DOMAIN" "$NET_DEPTH" "$part"; done
    return
  fi
  # Each gets its share of the cores: as many lanes as before on all of them together.
  local share="${CROSSLOC_THREADS:-${OMP_NUM_THREADS:-}}"
  if [ "$JOBS" -gt 1 ] && [ -z "$share" ]; then share=$((($(nproc) + JOBS - 1) / JOBS)); fi
  printf '%s\n' "$@" | CROSSLOC_THREADS="$share" xargs -P "$JOBS" -n 1 --process-slot-var=CROSSLOC_SLOT \
    "$here/run_crossloc.sh" "$DATASET" "$DOMAIN" "$NET_DEPTH"
}

# table: what every stage came to, on the terminal and as stages.csv and stages.json.
table() {
  if [ "${DRY_RUN:-0}" = 1 ]; then return; fi
  # The locale keeps names with umlauts readable in quoted words.
  LC_ALL=C.UTF-8 DRY_RUN=1 "$here/run_crossloc.sh" "$DATASET" "$DOMAIN" "$NET_DEPTH" >"$STAGES_DIR/commands.sh"
  "$PYTHON" "$validation/crossloc_table.py" "$STAGES_DIR" >&3
}

everything() {
  local status=0
  # Word splitting is wanted: TASKS holds several words.
  # shellcheck disable=SC2086
  side_by_side $TASKS || status=$?
  if [ "$status" = 0 ] && [ ${#decoders[@]} -gt 0 ]; then side_by_side "${decoders[@]}" || status=$?; fi
  if [ "$status" = 124 ]; then exit 130; fi
  if [ "$status" != 0 ]; then fail "not complete: see the stages that failed above, and call this again"; fi
  finish
}

exec 3>&1
LOG=""
if [ "${DRY_RUN:-0}" != 1 ]; then
  mkdir -p "$STAGES_DIR"
  if [ -n "${CROSSLOC_SLOT:-}" ]; then
    # 255 keeps xargs from beginning others.
    trap '[ $? != 130 ] || exit 255' EXIT
    if [ "$JOBS" -gt 1 ]; then
      LOG="$STAGES_DIR/$PART.log"
      exec >>"$LOG" 2>&1
    fi
  fi
fi

case "$PART" in
  coord | depth | normal | semantics) encoder "$PART" ;;
  crossloc | crossloc_se) decoder "$PART" ;;
  all | test)
    # Whatever failed; who interrupts it wants the prompt.
    trap 'status=$?; [ "$status" = 130 ] || table; exit "$status"' EXIT
    if [ "$PART" = all ]; then everything; else finish; fi
    ;;
esac
