"""Why each setting is what it is where neither the profile nor the machine decides. Text alone."""

from helpers.machine.language import phrase

REASONS = {
    "model": phrase("the profile's own"),
    "revision": phrase("a folder or a model of this project needs none"),
    "data": phrase("the profile's own"),
    "data_format": phrase("what the columns say; for another data set a name such as alpaca or sharegpt"),
    "columns": phrase("the columns have names that are known; else: question=<yours>,answer=<yours>"),
    "template": phrase("the form of both data sets"),
    "thinking": phrase(
        "what rows have of it is trained where the template writes it; 'left out' trains the answers alone"
    ),
    "quantization": phrase("nothing is quantized unless the profile asks for it"),
    "max_length": phrase("longer than nearly all rows of the profile's data; 02 shows what it cuts"),
    "assistant_only_loss": phrase("the model should learn to answer, not to ask"),
    "packing": phrase("rows of a batch are laid end to end all the same, so nothing is padded"),
    "per_device_train_batch_size": phrase(
        "rows in a forward pass; 32 a step taught 14 to 36 points fewer facts than 8 over the same rows "
        "(docs/settings.md)"
    ),
    "gradient_accumulation_steps": phrase("forward passes in a step"),
    "gradient_checkpointing": phrase("costs time to save memory; off where memory is not short"),
    "num_train_epochs": phrase("a run of minutes; twice as many taught 4 to 14 points more facts (docs/settings.md)"),
    "max_steps": phrase("-1: as many as the epochs make"),
    "minutes": phrase("0: the steps decide how long it takes"),
    "learning_rate": phrase(
        "LoRA wants a larger rate than full fine-tuning: of those tried, 3e-3 and 5e-4 taught most (docs/settings.md)"
    ),
    "lr_scheduler_type": phrase("falls to zero, so that the last steps settle"),
    "warmup_steps": phrase("a share of all steps, while AdamW has no statistics yet"),
    "max_grad_norm": phrase("one bad batch must not throw the adapter off"),
    "early_stopping": phrase("off: the steps are few, and the rate falls to zero"),
    "early_stopping_threshold": phrase("any improvement counts"),
    "keep_best": phrase("off: the rate falls to zero, so that the last steps settle"),
    "best_by": phrase("of 32 rows, the loss is steadier than a count of right answers"),
    "r": phrase("room for the facts: with 4, 13 to 35 points fewer were right than with 32 (docs/settings.md)"),
    "lora_alpha": phrase("twice r, the usual scale"),
    "lora_dropout": phrase("off: few epochs, and faster"),
    "target_modules": phrase(
        "every linear layer: with attention alone, 25 to 30 points fewer facts were right (docs/settings.md)"
    ),
    "layers_to_transform": phrase("every decoder layer has an adapter"),
    "use_rslora": phrase("off: it is another lora_alpha at every r but one"),
    "use_dora": phrase("off: within noise, -3 to +4 points of the facts (docs/settings.md), and no fast product"),
    "init_lora_weights": phrase(
        "PEFT's own: A random, B zero; PiSSA's facts are within noise, its NLL of ordinary text 1.07 to 1.76 higher "
        "(docs/settings.md)"
    ),
    "evaluation_questions": phrase("of each slice; 0 is all"),
    "max_new_tokens": phrase("room for the longest answers"),
    "seed": phrase("repeatable on the same machine"),
    "tracking": phrase("the chart and history.csv are enough; 'tensorboard' and 'trackio' write files on this machine"),
}
