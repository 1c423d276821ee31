#!/usr/bin/env bash
# Fuses the fine-tuned coord, depth and normal encoders and trains the decoder.
# usage: decoder_finetune.sh [DATASET TASK NET_DEPTH PT_SIM_CHUNK PT_REAL_DOMAIN PT_REAL_CHUNK SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID]
# Arguments left out are urbanscape coord FULL 1.0 in_place 1.0 0.0 in_place 1.0 mle 0 (the published program refuses its own).
# Both REAL_CHUNKs 0.0 and SIM_CHUNK above: zero-shot, from the pre-trained encoders.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_decoder_arguments "$@"
train_decoder finetuned "" coord depth normal
