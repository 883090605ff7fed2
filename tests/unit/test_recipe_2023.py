"""What today's releases do with the lines of 2023: the table in notebook 01, line by line."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, pipeline
from trl import SFTConfig, SFTTrainer

from helpers.models import tiny


def test_load_in_4bit_as_an_argument_raises():
    with pytest.raises(TypeError, match="load_in_4bit"):
        AutoModelForCausalLM.from_pretrained(tiny.tiny_folder("tiny-llama"), load_in_4bit=True)


def test_the_defaults_of_the_quantization_are_fp4_and_float32():
    config = BitsAndBytesConfig(load_in_4bit=True)
    assert config.bnb_4bit_quant_type == "fp4" and config.bnb_4bit_compute_dtype == torch.float32
    assert not config.bnb_4bit_use_double_quant


@pytest.mark.parametrize("argument", ["dataset_text_field", "max_seq_length", "tokenizer", "packing"])
def test_arguments_of_the_trainer_that_moved_raise(argument, rows, tiny_llama):
    with pytest.raises(TypeError, match=argument):
        SFTTrainer(model=tiny_llama, train_dataset=rows, **{argument: 1})


def test_max_seq_length_is_not_an_argument_of_the_configuration_either(tmp_path):
    with pytest.raises(TypeError, match="max_seq_length"):
        SFTConfig(str(tmp_path), use_cpu=True, max_seq_length=512)


def test_an_added_pad_token_lies_outside_the_embedding(tiny_falcon):
    tokenizer = tiny.build_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<PAD>"})
    assert tokenizer.pad_token_id == tiny_falcon.get_input_embeddings().num_embeddings
    with pytest.raises(IndexError):
        tiny_falcon(torch.tensor([[tokenizer.pad_token_id]]))


def test_a_tokenizer_cannot_be_loaded_from_a_model(tiny_llama):
    with pytest.raises((TypeError, ValueError, OSError, AttributeError)):
        AutoTokenizer.from_pretrained(tiny_llama)


def test_max_new_tokens_counts_the_answer_and_max_length_does_not(tiny_llama, tokenizer):
    write = pipeline("text-generation", model=tiny_llama, tokenizer=tokenizer)
    prompt = "a" * 20
    tiny_llama.generation_config.eos_token_id = None
    tiny_llama.generation_config.max_length = None

    def generated(**limit):
        text = write(prompt, do_sample=False, return_tensors=True, **limit)
        return len(text[0]["generated_token_ids"])

    assert generated(max_new_tokens=24) == len(prompt) + 24
    # transformers 5.23 counts the prompt as well; 5.15 ignores max_length for the pipeline's own 256 new tokens
    assert generated(max_length=24) in (24, len(prompt) + 256)


def test_the_pipeline_returns_the_prompt_unless_told_otherwise(tiny_llama, tokenizer):
    write = pipeline("text-generation", model=tiny_llama, tokenizer=tokenizer)
    assert write("abc", max_new_tokens=2)[0]["generated_text"].startswith("abc")
    assert not write("abc", max_new_tokens=2, return_full_text=False)[0]["generated_text"].startswith("abc")
