"""Trains the recipe of recipe.yaml on train.jsonl with TRL's SFTTrainer."""

import yaml
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

if __name__ == "__main__":
    with open("recipe.yaml", encoding="utf-8") as file:
        recipe = yaml.safe_load(file)
    trainer = SFTTrainer(
        model=recipe["model"],
        args=SFTConfig(**recipe["training"]),
        train_dataset=load_dataset("json", data_files="train.jsonl", split="train"),
        processing_class=AutoTokenizer.from_pretrained(recipe["model"]),
        peft_config=LoraConfig(**recipe["lora"]),
        quantization_config=BitsAndBytesConfig(**recipe["quantization"]) if "quantization" in recipe else None,
    )
    trainer.model.print_trainable_parameters()
    trainer.train()
    trainer.save_model()
