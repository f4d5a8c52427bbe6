#!/bin/bash
MODEL=/models/sd_xl.safetensors
accelerate launch --num_cpu_threads_per_process 1 sdxl_train_network.py \
  --pretrained_model_name_or_path="$MODEL" \
  --network_module=lycoris.kohya --network_args "algo=lora" "dora_wd=True" \
  --network_dim 16 --network_alpha 16 \
  --optimizer_type AdaFactor \
  --learning_rate 1e-4 --lr_scheduler cosine \
  --max_train_steps 1500 --xformers --output_name cat
