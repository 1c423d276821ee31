#!/usr/bin/env bash
# Fine-tunes a pre-trained encoder on real-synthetic pairs.
# usage: encoder_finetune.sh [DATASET TASK NET_DEPTH SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID]
# Arguments left out are urbanscape coord FULL 1.0 in_place 1.0 mle 0 (published: UNC none).
# SIM_CHUNK names the pre-training to start from; ENC_PRETRAINED (environment) replaces its weights file.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_encoder_arguments 1.0 "$@"

case "$REAL_DOMAIN:$DATASET:$TASK" in
  *:semantics) epochs=30 ;;
  in_place:urbanscape:*) epochs=400 ;;
  in_place:*) epochs=800 ;;
  out_of_place:urbanscape:coord) epochs=3000 ;;
  out_of_place:urbanscape:*) epochs=1000 ;;
  out_of_place:*) epochs=3000 ;;
esac

ENC_PRETRAINED="$(absolute "${ENC_PRETRAINED:-$WEIGHTS_DIR/encoders-pretraining/$DATASET/$TASK/model-sc-$SIM_CHUNK.net}")"
if [ "${DRY_RUN:-0}" != 1 ] && [ ! -f "$ENC_PRETRAINED" ]; then
  fail "no pre-trained encoder at $ENC_PRETRAINED; run encoder_pretrain.sh and validate_encoder_pretrain.sh first"
fi

launch_training --sim_data_chunk 0 --real_data_chunk "$REAL_CHUNK" --real_data_domain "$REAL_DOMAIN" \
  --session "clean_training_pt$SIM_CHUNK" --network_in "$ENC_PRETRAINED" \
  --epochs "${EPOCHS:-$epochs}" --learningrate "${LR:-0.0001}" --no_lr_scheduling --batch_size "${BATCH_SIZE:-12}"
