export MODEL_NAME="runwayml/stable-diffusion-v1-5"
accelerate launch train_dreambooth_lora.py \
  --pretrained_model_name_or_path=$MODEL_NAME --instance_data_dir=cats \
  --instance_prompt="a photo of sks cat" --resolution=512 --train_batch_size=1 \
  --learning_rate=1e-4 --optimizer prodigy --max_train_steps=500 --rank 16 --use_dora --mixed_precision fp16 --lr_scheduler constant --lr_warmup_steps=0
