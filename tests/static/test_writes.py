"""Every call that writes to a disk, and who answers where the disk is full or may not be written."""

import ast
import json
import re

import pytest

from helpers.machine.paths import NOTEBOOKS, PROJECT

PACKAGE = PROJECT / "helpers"
# Calls that write: of Python, of libraries, and of this project's own where they raise what those raise.
WRITES = {
    *("write_text", "write_bytes", "touch", "mkdir", "makedirs", "symlink_to", "hardlink_to", "extractall", "writestr"),
    *("mkdtemp", "mkstemp", "TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"),
    *("copyfile", "copy2", "copytree", "copyfileobj", "move", "make_archive", "unpack_archive", "FileLock", "rename"),
    *("save_pretrained", "save_file", "savez", "to_csv", "to_parquet", "save_to_disk", "screenshot"),
    *("GGUFWriter", "OSFile", "snapshot_download", "hf_hub_download", "execute_notebook", "FileHandler"),
    *("write_json", "replace_text", "atomic", "write_csv", "write_manifest", "seal", "save_card"),
}
OF_A_MODULE = {"os": ("replace", "link", "symlink", "rename"), "nbformat": ("write",), "shutil": ("copy",)}
OF_A_MODULE |= {"torch": ("save",), "picture": ("save",), "json": ("dump",), "pickle": ("dump",)}
# What answers such a call in its own function: a block, or a call that is given a function which writes.
BLOCKS = ("writes_to", "folder_aside", "scratch_folder")
GIVEN_TO = ("keep", "save_rest", "save_adapter")
ALLOWED = {"project.doctor", "project.needs"}  # they write nothing but what places.write_fault tries
# In wings that only commands use, the command's net answers (project/ending.py, explain.in_a_sentence).
COMMANDS = ("project", "__main__", "panels/app")
# Elsewhere: who answers for the function, and by which of these tests that is held.
ELSEWHERE = {
    "machine/paths": {"atomic": "who opens it", "write_json": "who calls it", "replace_text": "who calls it"},
    "machine/places": {"lock": "itself: it tries the folder, and else takes the one for temporary files"},
    "watch/history": {"write_csv": "save_rest in train/build.py; a reader's own cell names its own path"},
    "models/manifest": {"write_manifest": "folder_aside, in the functions that make a folder"},
    "models/starts": {"save_pretrained": "save_adapter, by write_adapter"},
    "train/saving": {
        "whole_folder": "save_adapter, which opens it",
        "mend": "save_adapter, which opens whole_folder",
        "write_adapter": "save_adapter, which is given it",
    },
    "train/checkpoints": {"seal": "LoraTrainer.save_aside: the training goes on"},
    "train/interrupt": {"leave_terminal": "nobody: it is the null device"},
    "run": {"Run.save_card": "save_rest, or keep"},
    "export/by_library": {"write_merged": "writes_to in merge"},
    "export/merge": dict.fromkeys(("write_shard", "name_shards", "write_rest"), "writes_to in merge"),
    "export/gguf": {"write_natively": "writes_to in write_gguf"},
    "export/adapter": {"link_or_copy": "writes_to in with_base"},
    "serve/serving": {"Server.__init__": "the net of the command `app`, the only one to start it"},
}


def calls(tree):
    """(call, what encloses it from inside outwards) of each call that writes."""

    def walk(node, above):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call) and writes(child):
                yield child, [node, *above]
            yield from walk(child, [node, *above])

    return list(walk(tree, []))


def writes(call):
    """Whether a call writes to a disk."""
    name = called_alone(call)
    owner = getattr(getattr(call.func, "value", None), "id", "")
    if name == "open":
        given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        modes = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        return any(re.fullmatch(r"[rwax]?[bt]?\+?[bt]?", mode) and set(mode) & set("wax+") for mode in modes)
    if name == "replace":  # a path's has one argument, a text's two, and that of a dataclass is no method
        return owner == "os" or (isinstance(call.func, ast.Attribute) and len(call.args) == 1 and not call.keywords)
    return name in WRITES or name in OF_A_MODULE.get(owner, ())


def called(node):
    """The names of what is called in an expression."""
    return {called_alone(one) for one in ast.walk(node) if isinstance(one, ast.Call)}


def answered(call, above):
    """Whether the function in which a call stands answers for it: by a block, by a handler, or by handing it on."""
    inside = call
    for node in above:
        if isinstance(node, ast.With) and inside in node.body and any(map(answers, node.items)):
            return True
        if isinstance(node, ast.With):  # several in one head: those to the left are open already
            heads = [item.context_expr for item in node.items]
            if any(map(answers, node.items[: heads.index(inside)] if inside in heads else [])):
                return True
        if isinstance(node, ast.Try) and inside in node.body and any(map(takes_errors, node.handlers)):
            return True
        if isinstance(node, ast.Call) and isinstance(inside, ast.Lambda) and called(node) & set(GIVEN_TO):
            return True
        if isinstance(node, ast.FunctionDef) and any(hands_on(other, node.name) for other in above):
            return True
        if isinstance(node, ast.withitem):
            inside = node.context_expr
            continue
        inside = node
    return False


def hands_on(node, name):
    """Whether a function gives an inner one of this name to what answers for what it writes."""
    given = [one for one in ast.walk(node) if isinstance(one, ast.Call) and called_alone(one) in GIVEN_TO]
    return any(isinstance(arg, ast.Name) and arg.id == name for one in given for arg in one.args)


def called_alone(call):
    """The name of what a call calls."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def answers(item):
    """Whether one head of a `with` answers for what is written in its block."""
    head = item.context_expr
    return bool(called(head) & set(BLOCKS)) or ("suppress" in called(head) and "OSError" in ast.unparse(head))


def takes_errors(handler):
    """Whether a handler takes an OSError."""
    named = {one.id for one in ast.walk(handler.type) if isinstance(one, ast.Name)} if handler.type else {"Exception"}
    return bool(named & {"OSError", "Exception", "BaseException", "FULL"})


def sites():
    """(module, function, line, whether it is answered there) of each call in helpers/ that writes."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        for call, above in calls(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.name for node in above if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
            yield module, ".".join(reversed(names)), call.lineno, answered(call, above)


SITES = list(sites())


@pytest.mark.parametrize("module", sorted({module for module, *_ in SITES}))
def test_each_call_that_writes_has_somebody_who_answers_for_a_full_or_locked_disk(module):
    if module.startswith(COMMANDS):
        return
    left = {(function, line) for name, function, line, done in SITES if name == module and not done}
    known = ELSEWHERE.get(module, {})
    assert [(function, line) for function, line in sorted(left) if function not in known] == []


def test_no_function_is_named_as_answered_elsewhere_that_needs_nobody():
    left = {(module, function) for module, function, _, done in SITES if not done}
    named = {(module, function) for module, known in ELSEWHERE.items() for function in known}
    assert named <= left, sorted(named - left)


def test_notebooks_use_nothing_that_only_a_commands_net_answers_for():
    for path in sorted(NOTEBOOKS.rglob("*.ipynb")):
        code = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        text = "\n".join("".join(cell["source"]) for cell in code)
        used = set(re.findall(r"helpers\.(project\.\w+|panels\.app|serve\.serving)", text))
        assert used <= ALLOWED, (path.name, used)
