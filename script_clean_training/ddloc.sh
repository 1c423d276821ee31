#!/usr/bin/env bash
# DDLoc, the sim-to-real baseline: its six stages, the translation of the training photos, and the test.
# usage: ddloc.sh [SCENE DOMAIN REGRESSOR CUDA_ID]
# Arguments left out are urbanscape in_place unet 0; REGRESSOR transposenet puts this project's network in the U-Net's place.
# The published numbers of every stage are the defaults of train_ddloc.py. EPOCHS, BATCH_SIZE, LR and EXTRA_ARGS are for all
# stages, with _C _T _A _I _joint or _finetune behind the name for one (EXTRA_ARGS_C comes after EXTRA_ARGS, the others
# replace); PROJECT is the folder's name in OUTPUT_DIR; ENC_PRETRAINED the weights that stage C starts from (transposenet).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -le 4 ] || fail "at most 4 arguments: SCENE DOMAIN REGRESSOR CUDA_ID, got $#"
DATASET="${1:-urbanscape}" REAL_DOMAIN="${2:-in_place}" REGRESSOR="${3:-unet}" CUDA_ID="${4:-}"
one_of DOMAIN "$REAL_DOMAIN" in_place out_of_place
one_of REGRESSOR "$REGRESSOR" unet transposenet
[ "${DRY_RUN:-0}" = 1 ] || [ -d "$DATASETS_DIR/$DATASET" ] || fail "unknown data set '$DATASET': no folder $DATASETS_DIR/$DATASET"
choose_gpu

flight=drone
if [ "$REAL_DOMAIN" = out_of_place ]; then flight=oop_drone; fi
place=("$DATASET" --datasets_dir "$DATASETS_DIR" --exp_dir "$OUTPUT_DIR" --project_name "${PROJECT:-ddloc-$DATASET-$REAL_DOMAIN-$REGRESSOR}")

# stage NAME FLAG...
stage() {
  local name="$1" command epochs="EPOCHS_$1" batch_size="BATCH_SIZE_$1" rate="LR_$1" more="EXTRA_ARGS_$1"
  shift
  command=("$PYTHON" "$ROOT/train_ddloc.py" "$name" "${place[@]}" --real_data_domain "$REAL_DOMAIN" --regressor "$REGRESSOR" "$@" --auto_resume)
  epochs="${!epochs:-${EPOCHS:-}}" batch_size="${!batch_size:-${BATCH_SIZE:-}}" rate="${!rate:-${LR:-}}"
  if [ -n "$epochs" ]; then command+=(--total_epoch_num "$epochs"); fi
  if [ -n "$batch_size" ]; then command+=(--batch_size "$batch_size"); fi
  if [ -n "$rate" ]; then command+=(--learningrate "$rate"); fi
  if [ -n "${IMAGE_HEIGHT:-}" ]; then command+=(--image_height "$IMAGE_HEIGHT"); fi
  # Word splitting is wanted: each holds several arguments.
  # shellcheck disable=SC2206
  command+=(${EXTRA_ARGS:-} ${!more:-})
  run "${command[@]}"
}

clamps=(--softclamp 100 --hardclamp 1000)
pretrained=()
if [ -n "${ENC_PRETRAINED:-}" ]; then pretrained=(--network_in "$(absolute "$ENC_PRETRAINED")"); fi
stage C "${clamps[@]}" "${pretrained[@]}"
stage T --isbuffer
stage A --isbuffer
stage I
stage joint "${clamps[@]}"
run "$PYTHON" "$ROOT/generate_translated.py" "${place[@]}" --section "train_${flight}_real"
stage finetune "${clamps[@]}" --data_augment
run "$PYTHON" "$ROOT/eval_ddloc.py" "${place[@]}" --section "test_${flight}_real"
