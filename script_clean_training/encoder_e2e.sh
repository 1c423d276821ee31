#!/usr/bin/env bash
# Refines a fine-tuned coord network, or a fused one, by the poses that come out of its coordinates.
# usage: encoder_e2e.sh [DATASET TASK NET_DEPTH SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID]
# Arguments left out are urbanscape coord FULL 1.0 in_place 1.0 mle 0.
# SIM_CHUNK and REAL_CHUNK name the fine-tuning to start from; E2E_WEIGHTS (environment) replaces its weights file, say by
# those of a decoder.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_encoder_arguments 1.0 "$@"
[ "$TASK" = coord ] || fail "poses come out of the task coord, not of '$TASK'"

PT_SIM_CHUNK="$SIM_CHUNK" PT_REAL_DOMAIN="$REAL_DOMAIN" PT_REAL_CHUNK="$REAL_CHUNK"
E2E_WEIGHTS="$(absolute "${E2E_WEIGHTS:-$(encoder_weights coord finetuned)}")"
if [ "${DRY_RUN:-0}" != 1 ] && [ ! -f "$E2E_WEIGHTS" ]; then
  fail "no fine-tuned network at $E2E_WEIGHTS; run encoder_finetune.sh and validate_encoder_finetune.sh first"
fi

TRAINING_PROGRAM=train_e2e.py
launch_training --sim_data_chunk 0 --real_data_chunk "$REAL_CHUNK" --real_data_domain "$REAL_DOMAIN" \
  --session "clean_training_pt$SIM_CHUNK" --network_in "$E2E_WEIGHTS" \
  --epochs "${EPOCHS:-100}" --learningrate "${LR:-0.000001}" --no_lr_scheduling --batch_size "${BATCH_SIZE:-12}"
