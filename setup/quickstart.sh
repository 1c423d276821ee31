#!/usr/bin/env bash
# The whole recipe in miniature, by the very commands a user types: data set, pre-training on synthetic images, selection,
# fine-tuning on real-synthetic pairs, selection, test on real photos that no earlier step has seen.
#
# usage: quickstart.sh                 the embedded demo scene
#        quickstart.sh --photos DIR    own photos: DIR holds cameras.json and geodata/{dsm,ortho[,landcover]}.tif
#        quickstart.sh --dry-run ...   print the commands only
#
# A second run keeps what is done and continues what was interrupted. Environment: see script_clean_training/common.sh;
# SPLIT_FILE replaces the split of --photos (default: setup/splits/<name of DIR>.json, else 40/10/50 % at random);
# PRETRAIN_EPOCHS FINETUNE_EPOCHS NUM_IMAGES replace the sizes of the recipe; TASKS="coord depth normal semantics" trains
# all encoders and the fused networks too (see script_clean_training/run_crossloc.sh). PRESET=fast trains for minutes, in
# output and weights folders of its own (docs/speed.md).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

photos=""
while [ $# -gt 0 ]; do
  case "$1" in
    --photos) photos="${2:?--photos needs a folder}"; shift 2 ;;
    --dry-run) export DRY_RUN=1; shift ;;
    -h | --help) sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "error: unknown argument '$1'; see --help" >&2; exit 2 ;;
  esac
done
if [ -n "$photos" ] && [ ! -f "$photos/cameras.json" ]; then
  echo "error: no cameras.json in '$photos'" >&2
  exit 2
fi

PRESET="${PRESET:-}"
case "$PRESET" in
  "") ;;
  fast)
    # Runs are found by what they are: a short one would stand beside the long one.
    export OUTPUT_DIR="${OUTPUT_DIR:-$(dirname "$here")/output-fast}" WEIGHTS_DIR="${WEIGHTS_DIR:-$(dirname "$here")/weights-clean-fast}"
    ;;
  *) echo "error: unknown PRESET '$PRESET'; choose from: fast" >&2; exit 2 ;;
esac

caller="$PWD"
if [ "${DRY_RUN:-0}" != 1 ]; then source "$here/make_env.sh"; fi
cd "$caller"
source "$here/../script_clean_training/common.sh"
export DATASETS_DIR OUTPUT_DIR WEIGHTS_DIR PYTHON
export CKPT_DIR="${CKPT_DIR:-$OUTPUT_DIR}"
# The modules are found from whatever folder this is called in.
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "$photos" ]; then photos="$(absolute "${photos%/}")"; fi
started=$SECONDS

step() { echo; echo "== [$((SECONDS - started)) s] $*"; }

# The recipe's numbers, here and in setup/miniature_recipe.txt, are explained in the README, "Training that gets there".
if [ -z "$photos" ]; then
  scene=demo
  step "data set: the embedded landscape, surveyed once and photographed later"
  run "$PYTHON" -m datagen demo --output_dir "$DATASETS_DIR" ${NUM_IMAGES:+--num_images "$NUM_IMAGES"}
  pretrain_epochs=15 finetune_epochs=10 real_share=0.5
  if [ "$PRESET" = fast ]; then pretrain_epochs=6 finetune_epochs=4; fi
else
  scene="$(basename "$photos")"
  geodata=(--surface "$photos/geodata/dsm.tif" --ortho "$photos/geodata/ortho.tif")
  if [ -f "$photos/geodata/landcover.tif" ]; then geodata+=(--landcover "$photos/geodata/landcover.tif"); fi
  split_file="${SPLIT_FILE:-$ROOT/setup/splits/$scene.json}"
  split=()
  if [ -f "$split_file" ]; then split=(--split "$split_file"); fi
  # Renders have the photos' field of view at 240 px.
  read -r width height fx fy < <("$PYTHON" - "$photos/cameras.json" <<'PY'
import json, sys
camera = json.load(open(sys.argv[1]))
scale = 240 / min(camera["width"], camera["height"])
focal = camera["focal_length_px"]
fx, fy = focal if isinstance(focal, list) else (focal, focal)
print(round(camera["width"] * scale), round(camera["height"] * scale), round(fx * scale, 3), round(fy * scale, 3))
PY
  )
  step "data set: photos with their rendered partners, and views around the training flight"
  run "$PYTHON" -m datagen photos "${geodata[@]}" --cameras "$photos/cameras.json" --scene "$scene" \
    --output_dir "$DATASETS_DIR" --height 240 "${split[@]}" --resume
  run "$PYTHON" -m datagen sections "${geodata[@]}" --around "$photos/cameras.json" "${split[@]}" --scene "$scene" \
    --output_dir "$DATASETS_DIR" --num_images "${NUM_IMAGES:-2400}" \
    --position_margin 25 --height_margin 3 --yaw_margin 10 --tilt_margin 3 --min_valid 0.5 --backdrop elsewhere \
    --width "$width" --height "$height" --focal "$fx" "$fy" --resume
  pretrain_epochs=11 finetune_epochs=12 real_share=0.2
  if [ "$PRESET" = fast ]; then pretrain_epochs=3 finetune_epochs=1; fi
fi
recipe="$(tr '\n' ' ' <"$ROOT/setup/miniature_recipe.txt")"
recipe="${recipe% }"
if [ -n "$PRESET" ]; then recipe="$recipe --preset $PRESET"; fi

# last_fifth EPOCHS SECTION...: the iteration after which a run's checkpoints are candidates. Under a one-cycle rate only
# the annealed end of a run is worth validating.
last_fifth() {
  local epochs="$1" images=0 section
  shift
  for section in "$@"; do images=$((images + $(find "$DATASETS_DIR/$scene/$section/rgb" -type f 2>/dev/null | wc -l))); done
  echo $((images * epochs * 4 / 5))
}

pretrained="$WEIGHTS_DIR/encoders-pretraining/$scene/coord/model-sc-1.00.net"
finetuned="$WEIGHTS_DIR/encoders-finetuning/$scene/in_place/coord/model-sc-1.00-rc-1.00.net"

pretrain_epochs="${PRETRAIN_EPOCHS:-$pretrain_epochs}" finetune_epochs="${FINETUNE_EPOCHS:-$finetune_epochs}"

step "pre-training on synthetic images, fine-tuning on real-synthetic pairs, test on photos that neither has seen"
export PRETRAIN_EPOCHS="$pretrain_epochs" PRETRAIN_LR="${LR:-0.0008}" PRETRAIN_ARGS="$recipe"
export PRETRAIN_MIN_CKPT_ITER="${MIN_CKPT_ITER:-$(last_fifth "$pretrain_epochs" train_sim)}"
export FINETUNE_EPOCHS="$finetune_epochs" FINETUNE_LR="${LR:-0.0005}"
export FINETUNE_ARGS="$recipe --sim_data_chunk 1.0 --real_share $real_share"
export FINETUNE_MIN_CKPT_ITER="${MIN_CKPT_ITER:-$(last_fifth "$finetune_epochs" train_sim train_drone_sim train_drone_real)}"
export DECODER_EPOCHS="${DECODER_EPOCHS:-100}" DECODER_ARGS="$recipe" DECODER_LR="${LR:-0.0005}"
TASKS="${TASKS:-coord}" BATCH_SIZE="${BATCH_SIZE:-8}" IMAGE_HEIGHT="${IMAGE_HEIGHT:-112}" \
  OVERVIEW="$OUTPUT_DIR/quickstart_$scene.png" "$ROOT/script_clean_training/run_crossloc.sh" "$scene" in_place TINY

step "what fine-tuning on real photos changed"
run "$PYTHON" "$ROOT/setup/quickstart_summary.py" "$pretrained" "$finetuned" --section test_drone_real
step "finished; overview picture: $OUTPUT_DIR/quickstart_$scene.png"
