"""Chat templates are programs of strangers: rendered within bounds of work, time and text. Knows no models.

Upstream: transformers renders a template in Jinja's sandbox, which keeps it from files and code, but not from counting
for ever or filling the memory; the class of that sandbox is a name of transformers/utils/chat_template_utils.py.
Breaks: a template with nested loops hangs whatever loads its tokenizer.
Drift: test_bounded.py::test_transformers_still_compiles_templates_in_a_sandbox_of_this_name
"""

import functools
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import chain, islice
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.environment import Environment, Template
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from helpers.machine.language import tr

STEPS = 500_000  # iterations and calls in one rendering: a hundred tools take some thousands
SECONDS = 4.0  # of this thread's own time on the processor
TEXT = 2**24  # characters of any one text
WRITTEN = 2**28  # characters that one rendering may write, in all its parts
SOURCE = 2**20  # characters of a template; published ones have up to 60,000
WIDE = re.compile(r"\d{5,}|%[^a-zA-Z%]*\*|\{[^}]*\{")  # in a format: a field that fills the memory
JINJAS = (Environment, Context, EvalContext)  # what some filters get first; asking an undefined value anything raises
SLOW = ("urlize", "striptags", "wordwrap", "pprint")  # of web pages: minutes for a long text, in one call
GROW = {"replace", "join", "center", "ljust", "rjust", "indent", "expandtabs", "translate", "wordwrap", "batch"}


class TemplateLimit(TemplateError):
    """A template asks for more than any conversation needs."""


class Budget(threading.local):
    """What is left of one rendering, in this thread."""

    steps, written, until = 0, 0, float("inf")


class BoundedTemplate(Template):
    """A template whose every rendering begins with a whole budget."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        self.environment.begin()  # type: ignore[attr-defined]
        return super().render(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        self.environment.begin()  # type: ignore[attr-defined]
        yield from super().generate(*args, **kwargs)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with a count of loops, calls and characters. A template that went too far once is refused."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    template_class = BoundedTemplate

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs, finalize=self.write)
        self.budget, self.refused = Budget(), ""
        self.filters: Any = Filters(self, self.filters)
        self.globals.pop("lipsum", None)  # makes text out of nothing, for as long as one likes
        for name in SLOW:
            self.filters.pop(name, None)

    def begin(self) -> None:
        """Fills the budget of this thread. Raises TemplateLimit for a template that was refused before."""
        if self.refused:
            raise TemplateLimit(self.refused)
        self.budget.steps, self.budget.written = STEPS, WRITTEN
        self.budget.until = time.thread_time() + SECONDS

    def refuse(self, why: str) -> TemplateLimit:
        """The error, remembered for the next rendering."""
        self.refused = tr("the chat template {why}", why=why)
        return TemplateLimit(self.refused)

    def spend(self, steps: int = 1, characters: int = 0) -> None:
        """Takes from the budget. Raises TemplateLimit."""
        self.budget.steps -= steps
        self.budget.written -= characters
        if self.budget.steps < 0 or time.thread_time() > self.budget.until:
            raise self.refuse(tr("does not come to an end: its loops and calls are more than any conversation needs"))
        if self.budget.written < 0:
            raise self.refuse(tr("writes more than {most:,} characters", most=WRITTEN))

    def write(self, value: Any) -> Any:
        """What is written, counted."""
        text = value if isinstance(value, str) else str(value)
        self.spend(1, len(text))
        return text

    def checked(self, value: Any) -> Any:
        """A value that was made. Raises TemplateLimit when it is larger than any text of a conversation."""
        if (isinstance(value, (str, bytes)) and len(value) > TEXT) or (isinstance(value, int) and abs(value) > 2**256):
            raise self.refuse(tr("makes a value of more than {most:,} characters", most=TEXT))
        if isinstance(value, (list, tuple, dict)):
            self.weigh(value)
        return value

    def weigh(self, value: Any) -> None:
        """Raises TemplateLimit for a list or dict that has no end, or more than TEXT characters, written out."""
        count = characters = 0
        for one in islice(leaves(value), STEPS):
            count, characters = count + 1, characters + (len(one) if isinstance(one, (str, bytes)) else 0)
            if characters > TEXT:
                raise self.refuse(tr("makes a list of more than {most:,} characters", most=TEXT))
        if count == STEPS:
            raise self.refuse(tr("makes a list of lists that has no end"))

    def loop(self, values: Any, weight: int) -> Any:
        """What a loop goes through, paid beforehand where its length is known. weight: characters of its body."""
        if isinstance(values, Sized):
            self.spend(len(values), len(values) * weight)
            return values
        return self.counted(values, weight)

    def counted(self, values: Iterable, weight: int) -> Iterable:
        """The values, each paid for."""
        for value in values:
            self.spend(1, weight)
            yield value

    def grows(self, name: str, given: list[Any]) -> None:
        """Raises TemplateLimit for arguments that would make a text of more than TEXT characters."""
        self.spend()
        if any(isinstance(one, int) and abs(one) > 10_000 for one in given[1:]):
            raise self.refuse(tr("asks {name} for a number of characters that fills the memory", name=name))
        if name in ("format", "format_map") and isinstance(given[0], str) and WIDE.search(given[0]):
            raise self.refuse(tr("writes a format that fills the memory"))
        sizes = [len(one) for one in given if isinstance(one, Sized)]
        if name in GROW and len(sizes) > 1 and sizes[0] * max(sizes[1:]) > 4 * TEXT:
            raise self.refuse(tr("makes a text of more than {most:,} characters with {name}", most=TEXT, name=name))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.spend()
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if operator == "**" and numbers and (abs(right) > 64 or abs(left) > 2**32):
            raise self.refuse(tr("asks for a power that fills the memory"))
        if operator == "*" and not numbers:
            size, times = (left, right) if isinstance(left, Sized) else (right, left)
            if isinstance(size, Sized) and isinstance(times, int) and len(size) * times > TEXT:
                raise self.refuse(tr("makes a value of more than {most:,} characters", most=TEXT))
        if operator == "%" and isinstance(left, str) and WIDE.search(left):
            raise self.refuse(tr("writes a format that fills the memory"))
        return self.checked(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        inner = getattr(obj, "__wrapped__", obj)
        owner = getattr(inner, "__self__", None)
        if isinstance(owner, str):
            self.grows(getattr(inner, "__name__", ""), [owner, *args, *kwargs.values()])
        else:
            self.spend()
        return self.checked(super().call(context, obj, *args, **kwargs))

    def compile(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        """The compiled template, with its loops and joined texts counted."""
        self.begin()  # what is constant is worked out here
        if isinstance(source, str):
            if len(source) > SOURCE:
                raise self.refuse(tr("has {n:,} characters", n=len(source)))
            source = Counting(self).visit(self.parse(source))
            nodes.Node.set_environment(source, self)
        return super().compile(source, *args, **kwargs)


class Filters(dict):
    """Jinja's filters, each checked; those that are added later as well."""

    def __init__(self, environment: BoundedEnvironment, given: dict[str, Callable]):
        super().__init__()
        self.environment = environment
        for name, function in given.items():
            self[name] = function
        super().__setitem__("counted_loop", environment.loop)
        super().__setitem__("checked_value", environment.checked)

    def __setitem__(self, name: str, function: Callable) -> None:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            given = [one for one in (*args, *kwargs.values()) if not isinstance(one, JINJAS) and one is not None]
            self.environment.grows(name, given[-len(args) - len(kwargs) :] or [None])
            return self.environment.checked(function(*args, **kwargs))

        super().__setitem__(name, checked)


class Counting(NodeTransformer):
    """Puts the counting filters around what loops go through, around joined texts and around lists."""

    def __init__(self, environment: BoundedEnvironment):
        self.environment = environment

    def filtered(self, node: Any, name: str, *values: int) -> nodes.Filter:
        """The node behind one of our filters."""
        behind = nodes.Filter(node, name, [nodes.Const(value) for value in values], [], None, None)
        behind.set_lineno(node.lineno)
        return behind

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        weight = sum(len(part.data) for part in node.find_all(nodes.TemplateData))
        node.iter = self.filtered(node.iter, "counted_loop", weight)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        joined = node.nodes[0]
        for right in node.nodes[1:]:
            joined = self.filtered(nodes.Concat([joined, right]).set_lineno(node.lineno), "checked_value")
        return joined

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return self.filtered(node, "checked_value") if node.items else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return self.filtered(node, "checked_value") if node.items else node


def leaves(value: Any) -> Iterable[Any]:
    """Everything inside a value of lists and dicts, one after the other."""
    if isinstance(value, dict):
        value = chain(value, value.values())
    for one in value:
        yield one
        if isinstance(one, (list, tuple, dict)):
            yield from leaves(one)


def install_bounded_compiler() -> None:
    """Makes transformers compile chat templates in this environment."""
    from transformers.utils import chat_template_utils

    chat_template_utils.ImmutableSandboxedEnvironment = BoundedEnvironment  # type: ignore[misc]
