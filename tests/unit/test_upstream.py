"""Drift tests of private names: each says which helper breaks when a library changes what docs/upstream.md lists."""

import inspect
import os
import warnings
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache, MixtralConfig, MixtralForCausalLM, Trainer, TrainerCallback, TrainingArguments
from trl import SFTTrainer

from helpers.export.adapter import with_base
from helpers.generate.four_bits import SOURCE, some_toolkit
from helpers.generate.products import GROUP, in_blocks, in_eight, in_four
from helpers.models import falcon
from helpers.models.load import load_model, load_tokenizer
from helpers.train.build import remove_printing_callbacks
from helpers.train.config import sft_config


@pytest.fixture
def plain_trainer(smoke, rows, tmp_path):
    """TRL's own, with the configuration of ours."""
    loaded, args = load_model(smoke), sft_config(smoke, tmp_path)
    args.eval_strategy = "no"
    return SFTTrainer(model=loaded.model, args=args, train_dataset=rows, processing_class=loaded.tokenizer)


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_torch_still_says_what_the_cpu_can_multiply():
    """Drift: hardware.cpu_has_bf16 asks these; when this fails, find their public successor."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        assert getattr(torch.cpu, name)() in (True, False), name


def test_trl_still_counts_tokens_and_keeps_metrics_under_these_names(plain_trainer):
    """Drift: LoraTrainer adds to both, and TimeForecast reads the count; look for TRL's new names."""
    assert plain_trainer._total_train_tokens == 0
    plain_trainer.train()
    assert plain_trainer._total_train_tokens > 0
    assert all(isinstance(values, list) for values in plain_trainer._metrics["train"].values())
    assert any("num_tokens" in row for row in plain_trainer.state.log_history)


def test_trl_still_adds_the_loss_of_a_router_unasked(smoke, rows, tmp_path):
    """Drift: router_share forbids it where the model's configuration does not ask; when this fails, it need not."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(**sizes, num_local_experts=2, num_key_value_heads=2, vocab_size=300)
    args = sft_config(smoke, tmp_path)
    args.eval_strategy, tokenizer = "no", load_tokenizer(smoke)
    assert not config.output_router_logits
    model = MixtralForCausalLM(config)
    assert SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer).aux_loss_enabled


def test_the_trainer_still_asks_where_a_checkpoint_goes(plain_trainer, tmp_path, monkeypatch):
    """Drift: LoraTrainer.save_aside redirects it; when this fails, checkpoints are no longer whole or absent."""
    assert parameters(Trainer._get_output_dir)[1:] == ["trial"]
    assert parameters(Trainer._save_checkpoint)[1:] == ["model", "trial"]
    plain_trainer.train()
    monkeypatch.setattr(plain_trainer, "_get_output_dir", lambda trial: str(tmp_path / "aside"))
    plain_trainer._save_checkpoint(plain_trainer.model, None)
    assert [path.name for path in (tmp_path / "aside").iterdir()] == [f"checkpoint-{plain_trainer.state.global_step}"]


def test_a_private_number_still_decides_how_many_gpus_are_taken(tmp_path):
    """Drift: sft_config sets _n_gpu to 1; when this fails, a notebook with several GPUs ends in TRL's error."""
    args = TrainingArguments(str(tmp_path), use_cpu=True)
    assert args.n_gpu == 0
    args._n_gpu = 7
    assert args.n_gpu == 7


def test_a_checkpoint_can_still_be_loaded_without_a_step(trainer, tmp_path):
    """Drift: run_loop loads a finished run with Trainer._load_from_checkpoint; look for its successor."""
    adapted = {name: p for name, p in trainer.model.named_parameters() if "lora_B" in name}
    trainer.model.save_pretrained(tmp_path / "saved")
    for weight in adapted.values():
        weight.data.fill_(3.0)
    trainer._load_from_checkpoint(str(tmp_path / "saved"))
    assert not any(weight.any() for weight in adapted.values())


def test_a_batch_is_still_prepared_by_this_name(trainer):
    """Drift: the preflight calls Trainer._prepare_inputs; look for its successor."""
    batch = {"input_ids": torch.tensor([[1, 2]])}
    assert torch.equal(trainer._prepare_inputs(batch)["input_ids"], batch["input_ids"])


def test_the_trainer_still_answers_an_interrupt_with_a_traceback_and_no_checkpoint(plain_trainer, tmp_path):
    """Drift: when this fails, the Trainer stops by itself with a checkpoint, and interrupt.StopGuard may go."""

    class Press(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    plain_trainer.add_callback(Press())
    with pytest.raises(KeyboardInterrupt):
        plain_trainer.train()
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_a_lora_layer_still_has_the_parts_that_the_fast_product_reads(trainer):
    """Drift: lora.lora_forward and is_plain read them; a new part may change what a layer computes."""
    from peft.tuners.lora import LoraLayer

    layer = next(module for module in trainer.model.modules() if isinstance(module, LoraLayer))
    assert list(layer.lora_A) == list(layer.lora_B) == list(layer.scaling) == list(layer.active_adapters)
    assert (layer.disable_adapters, layer.merged, len(layer.lora_variant)) == (False, False, 0)
    delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]
    torch.testing.assert_close(layer.get_delta_weight("default"), delta)
    adds = {"lora_A", "lora_B", "lora_dropout", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"}
    assert set(layer.adapter_layer_names) <= adds | {"lora_ga_config", "lora_variant"}, "a part that is not known here"


def test_a_flag_still_decides_whether_bitsandbytes_repacks_on_a_cpu():
    """Drift: load.keep_gradients_on_cpu clears it; when this fails, look how an evaluation repacks layers now."""
    from bitsandbytes.nn import Linear4bit

    assert hasattr(Linear4bit(16, 16), "support_avx512bf16_for_cpu")
    source = inspect.getsource(Linear4bit.forward)
    assert "support_avx512bf16_for_cpu" in source and "packing_format_for_cpu" in source and "training" in source


def test_a_mask_of_four_dimensions_still_reaches_the_attention_as_it_is(tiny_llama):
    """Drift: attention.mark_documents hangs the documents on it; when this fails, packed rows see each other."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    seen, mask = [], torch.zeros(1, 1, 1, 3)
    mask.documents = "mark"

    def attention(module, query, key, value, attention_mask, **kwargs):
        seen.append(getattr(attention_mask, "documents", None))
        return query.transpose(1, 2), None

    AttentionInterface.register("drift", attention)
    AttentionMaskInterface.register("drift", sdpa_mask)
    tiny_llama.set_attn_implementation("drift")
    tiny_llama(input_ids=torch.tensor([[5, 6, 7]]), attention_mask=mask, use_cache=False)
    assert seen == ["mark"] * tiny_llama.config.num_hidden_layers


def test_generate_still_takes_an_unset_top_k_for_fifty(tiny_llama):
    """Drift: Sampling.arguments passes top_k always; when this fails, transformers has another default."""
    from transformers import GenerationConfig

    config, _ = tiny_llama._prepare_generation_config(GenerationConfig(do_sample=True))
    assert config.top_k == 50


def test_a_cache_still_makes_its_layers_from_this_class(tiny_llama):
    """Drift: kv_cache.roomy_cache replaces it; when this fails, answers come without RoomyLayer or not at all."""
    cache = DynamicCache(config=tiny_llama.config)
    assert tiny_llama._supports_default_dynamic_cache() and hasattr(cache, "layer_class_to_replicate")
    layer = type(cache.layers[0])()
    states = torch.ones(1, 2, 3, 4)
    assert not layer.is_initialized
    layer.lazy_initialization(states, states)
    assert layer.is_initialized and layer.keys.numel() == layer.values.numel() == 0


@pytest.mark.parametrize("form", ["8 bits", "4 bits", "blocked"])
def test_torchs_private_products_still_give_the_product_of_the_rounded_weight(form):
    """Drift: products.py calls them; when this fails, the layout of the packed weight may have changed."""
    torch.manual_seed(0)
    weight = torch.randn(32, 2 * GROUP)
    rows = 5 if form == "blocked" else 1
    hidden = torch.randn(rows, weight.shape[1])
    if form == "blocked":
        torch.testing.assert_close(in_blocks(weight, rows)(hidden), hidden @ weight.T)
        return
    made = in_eight(weight) if form == "8 bits" else in_four(weight)
    found = made(hidden.bfloat16()).float()
    error = (found - hidden @ weight.T).norm() / (hidden @ weight.T).norm()
    assert error < (0.03 if form == "8 bits" else 0.15)


def test_a_folder_with_base_and_adapter_still_loads_both(smoke, trainer, tmp_path):
    """Drift: export.with_base makes such a folder; when this fails, what is served answers as the base does."""
    from transformers import AutoModelForCausalLM

    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.05)
    trainer.model.save_pretrained(tmp_path / "adapter")
    base = load_model(smoke).model
    base.save_pretrained(tmp_path / "base")
    both = AutoModelForCausalLM.from_pretrained(with_base(tmp_path / "adapter", tmp_path / "base", tmp_path / "both"))
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        found, plain = both(ids).logits, base(ids).logits
        expected = trainer.model.eval()(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, plain, atol=1e-3)


def test_a_falcon_still_says_its_kernel_and_splits_its_heads_under_these_names(tiny_falcon):
    """Drift: falcon.attention_forward reads both; look for their successors."""
    attention = tiny_falcon.get_decoder().h[0].self_attention
    assert attention.config._attn_implementation in ("sdpa", "eager")
    query, key, _ = attention._split_heads(torch.zeros(1, 2, attention.query_key_value.out_features))
    assert query.shape[-1] == key.shape[-1] == tiny_falcon.config.head_dim
    named = set(parameters(type(attention).forward)) - {"self", "kwargs"}
    assert named <= set(parameters(falcon.attention_forward)) | falcon.KNOWN


def test_ipython_still_remembers_its_folders_under_this_name(tmp_path):
    """Drift: written.first_cell looks there; else a notebook that changed its folder does not find the project."""
    from IPython.core.interactiveshell import InteractiveShell

    before = Path.cwd()
    shell = InteractiveShell()
    try:
        shell.run_cell(f"%cd -q {tmp_path}")
        assert [Path(folder).resolve() for folder in shell.user_ns["_dh"]] == [before.resolve(), tmp_path.resolve()]
    finally:
        os.chdir(before)


def test_jupyter_still_counts_who_looks_at_a_kernel_under_this_name():
    """Drift: site.OneKernelEach reads the count when a page is closed."""
    from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

    manager = AsyncMappingKernelManager()
    manager._kernels["a"] = None  # as if it were started
    manager._kernel_connections["a"] = 0
    manager.notify_connect("a")
    manager.notify_connect("a")
    manager.notify_disconnect("a")
    assert manager._kernel_connections == {"a": 1}


def test_the_printing_callbacks_still_have_their_names(tiny_llama, tmp_path):
    """Drift: build.remove_printing_callbacks takes them away; else a table is sent again at each step."""
    from transformers.utils.notebook import NotebookProgressCallback

    for quiet, name in ((False, "ProgressCallback"), (True, "PrinterCallback")):
        arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=quiet, report_to="none")
        trainer = Trainer(tiny_llama, arguments)
        assert name in [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
        trainer.add_callback(NotebookProgressCallback)
        remove_printing_callbacks(trainer)
        left = [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
        assert left == ["DefaultFlowCallback"], left


def test_families_still_say_whether_their_forward_pass_can_be_recorded(tiny_llama):
    """Drift: static_cache.can_be_static asks this; when it is renamed, families are recorded that cannot be."""
    from transformers import PreTrainedModel

    assert tiny_llama._can_compile_fullgraph is True and PreTrainedModel._can_compile_fullgraph is False


@pytest.mark.parametrize("asks", [True, False])
def test_peft_still_asks_the_hub_at_a_save_unless_it_is_told(tuned_llama, tmp_path, monkeypatch, asks):
    """Drift: build.save_without_asking tells it; when this fails, it asks no more, or by another way."""
    asked = []
    look = lambda model, file, **more: asked.append(model)
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", look)
    tuned_llama.peft_config["default"].base_model_name_or_path = "owner/model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned_llama.save_pretrained(tmp_path, **({} if asks else {"save_embedding_layers": False}))
    assert asked == (["owner/model"] if asks else [])


def test_a_configuration_still_keeps_the_models_name_under_this_name(tiny_llama):
    """Drift: embedded.convert sets config._name_or_path; look for its successor."""
    tiny_llama.config._name_or_path = "somebody/model"
    assert tiny_llama.config.name_or_path == "somebody/model"


def test_the_trainer_still_clips_through_this_name(tiny_llama, tmp_path):
    """Drift: LoraTrainer clips what is trained alone; when this fails, look where the Trainer clips now."""
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, max_grad_norm=1e-3, report_to="none")
    trainer = Trainer(tiny_llama, arguments)
    for parameter in tiny_llama.parameters():
        parameter.grad = torch.ones_like(parameter)
    length = trainer._clip_grad_norm(tiny_llama)
    total = sum(parameter.grad.square().sum() for parameter in tiny_llama.parameters())
    assert length > 1 and float(total) ** 0.5 == pytest.approx(1e-3, rel=0.01)
    assert "_clip_grad_norm(" in inspect.getsource(Trainer)


def test_torch_still_compiles_a_kernel_from_its_source():
    """Drift: when this fails, 4-bit products of an answer run through bitsandbytes again, slower."""
    asked = inspect.signature(torch.cuda._compile_kernel).parameters
    assert list(asked)[:2] == ["kernel_source", "kernel_name"]
    called = inspect.signature(torch.cuda._utils._CudaKernel.__call__).parameters
    assert list(called)[1:5] == ["grid", "block", "args", "shared_mem"]
    assert hasattr(torch.ops.bitsandbytes, "gemm_4bit")


def test_torch_still_asks_for_a_toolkit_whose_headers_nobody_includes(monkeypatch):
    """Drift: when this fails, four_bits.some_toolkit can be removed."""
    from torch.utils import cpp_extension

    assert 'include_paths("cuda")' in inspect.getsource(torch.cuda._utils._nvrtc_compile)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    with pytest.raises(OSError):
        cpp_extension.include_paths("cuda")
    with some_toolkit():
        assert cpp_extension.include_paths("cuda")
    assert cpp_extension.CUDA_HOME is None
    assert "#include" not in SOURCE.read_text(encoding="utf-8")
