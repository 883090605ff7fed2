"""Public functions of helpers/ say what they take and give; whether it fits together is mypy's step of the runner."""

import ast

import pytest

from helpers.machine.paths import PROJECT

MODULES = sorted((PROJECT / "helpers").rglob("*.py"))
HANDED_ON = ("forward", "backward", "jvp", "setup_context")  # torch.autograd.Function's, with torch's own signatures
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def dotted(path):
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts)


def is_autograd(node):
    """Whether a class is a torch.autograd.Function."""
    return any("autograd.Function" in ast.unparse(base) for base in node.bases)


def public_functions(tree):
    """(name, function) of each public function of a module, and of each public method and __init__ of a public class.

    What torch.autograd calls has the library's signature: left out.
    """
    for node in tree.body:
        if isinstance(node, FUNCTIONS) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if not isinstance(method, FUNCTIONS):
                    continue
                own = method.name == "__init__" or not method.name.startswith("_")
                if own and not (is_autograd(node) and method.name in HANDED_ON):
                    yield f"{node.name}.{method.name}", method


def without_type(function):
    """What of a function has no annotation: parameters other than self, cls, *args and **kwargs, and "return".

    What __init__ gives needs none.
    """
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    missing = [one.arg for one in named if one.annotation is None and one.arg not in ("self", "cls")]
    return missing + (["return"] if function.returns is None and function.name != "__init__" else [])


def mutable_defaults(tree):
    """(function, default) where a default is a list, a dict or a set: one that all calls would share."""
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.Lambda)):
            for default in [*node.args.defaults, *node.args.kw_defaults]:
                literal = isinstance(default, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
                made = isinstance(default, ast.Call) and ast.unparse(default.func) in ("list", "dict", "set")
                if literal or made:
                    yield getattr(node, "name", "lambda"), ast.unparse(default)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_public_functions_say_what_they_take_and_give(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {name: missing for name, function in public_functions(tree) if (missing := without_type(function))}
    assert not found, f"{path.relative_to(PROJECT)}: no type for {found}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_default_is_shared_between_calls(path):
    found = list(mutable_defaults(ast.parse(path.read_text(encoding="utf-8"))))
    assert not found, f"{path.relative_to(PROJECT)}: {found}; give a tuple, or None"


def test_what_is_looked_for_is_found():
    tree = ast.parse(
        "def f(a, *b, c: int = 0) -> int: ...\n"
        "def _g(a): ...\n"
        "class A:\n"
        "    def __init__(self, a): ...\n"
        "    def h(self, a: int): ...\n"
        "    def on_log(self, args): ...\n"
        "class B(torch.autograd.Function):\n"
        "    @staticmethod\n"
        "    def forward(context, x): ...\n"
        "def k(a: list = []): ...\n"
    )
    found = {name: without_type(function) for name, function in public_functions(tree)}
    assert found == {
        "f": ["a"],
        "A.__init__": ["a"],
        "A.h": ["return"],
        "A.on_log": ["args", "return"],
        "k": ["return"],
    }
    assert list(mutable_defaults(tree)) == [("k", "[]")]
