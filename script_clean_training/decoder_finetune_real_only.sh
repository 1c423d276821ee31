#!/usr/bin/env bash
# Fuses encoders that were trained on real photos alone (ablation).
# usage: decoder_finetune_real_only.sh [DATASET TASK NET_DEPTH PT_SIM_CHUNK PT_REAL_DOMAIN PT_REAL_CHUNK SIM_CHUNK REAL_DOMAIN REAL_CHUNK UNC CUDA_ID]
# Arguments left out are urbanscape coord FULL 0.0 in_place 1.0 0.0 in_place 1.0 mle 0.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
DEFAULT_SIM_CHUNK=0.0 parse_decoder_arguments "$@"
REAL_ONLY=1 train_decoder real-only real-only- coord depth normal
