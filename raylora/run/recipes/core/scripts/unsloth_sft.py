"""Trains the recipe of recipe.yaml on train.jsonl with Unsloth and TRL's SFTTrainer."""

from unsloth import FastLanguageModel  # first: it changes the libraries below  # isort: skip

import yaml
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

if __name__ == "__main__":
    with open("recipe.yaml", encoding="utf-8") as file:
        recipe = yaml.safe_load(file)
    model, tokenizer = FastLanguageModel.from_pretrained(**recipe["model"])
    model = FastLanguageModel.get_peft_model(model, **recipe["lora"])
    model.print_trainable_parameters()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**recipe["training"]),
        train_dataset=load_dataset("json", data_files="train.jsonl", split="train"),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
