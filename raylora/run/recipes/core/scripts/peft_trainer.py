"""Trains the recipe of recipe.yaml on train.jsonl with PEFT and transformers' Trainer."""

import torch
import yaml
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

if __name__ == "__main__":
    with open("recipe.yaml", encoding="utf-8") as file:
        recipe = yaml.safe_load(file)
    arguments = TrainingArguments(**recipe["training"])
    torch.manual_seed(arguments.seed)
    bits = BitsAndBytesConfig(**recipe["quantization"]) if "quantization" in recipe else None
    base = AutoModelForCausalLM.from_pretrained(recipe["model"], dtype=recipe["dtype"], quantization_config=bits)
    model = get_peft_model(base, LoraConfig(**recipe["lora"]))
    model.print_trainable_parameters()
    optimizer = None
    if "loraplus_lr_ratio" in recipe:
        optimizer = create_loraplus_optimizer(
            model=model,
            optimizer_cls=torch.optim.AdamW,
            lr=arguments.learning_rate,
            loraplus_lr_ratio=recipe["loraplus_lr_ratio"],
            weight_decay=arguments.weight_decay,
        )
    tokenizer = AutoTokenizer.from_pretrained(recipe["model"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=load_dataset("json", data_files="train.jsonl", split="train"),
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        optimizers=(optimizer, None),
    )
    trainer.train()
    trainer.save_model()
