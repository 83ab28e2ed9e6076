"""Code generator for Jinja templates that spend a budget (see budget.py).

Each block of statements spends the weight of what it evaluates whenever it runs, so loops and macros are counted. What
an expression makes is counted as well. No expression is evaluated when the template is compiled.
"""

# ruff: noqa: N802 (methods have the names of the nodes that they visit)

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import StringIO
from typing import Any

from jinja2 import Environment, nodes
from jinja2.compiler import CodeGenerator, Frame, operators

from adapter.prompt.metered.budget import MAX_BITS

COUNTED = "items of a loop"
"""Name of the filter that spends for each item of an iterable. No template can spell it."""

_BUDGET_METHODS = ("concat", "contains", "joined", "key", "made", "text", "weighed")
_OPERATORS = ("modulo", "multiplied", "powered", "subtracted")
# In units: time, and memory of small objects that may be kept. Other nodes weigh 1.
_WEIGHTS: dict[type[nodes.Node], int] = {
    nodes.Call: 6,
    nodes.Filter: 4,
    nodes.Test: 3,
    nodes.Getattr: 3,
    nodes.Getitem: 3,
    nodes.List: 8,
    nodes.Tuple: 6,
    nodes.Dict: 8,
    nodes.Concat: 6,
    nodes.Add: 2,
    nodes.Sub: 2,
    nodes.Mul: 3,
    nodes.Div: 2,
    nodes.FloorDiv: 2,
    nodes.Mod: 3,
    nodes.For: 10,
    nodes.Macro: 40,
    nodes.CallBlock: 40,
    nodes.Block: 10,
}
# Branches of at most this weight are counted whether or not they are taken.
_LIGHT = 24
_MAX_OPERANDS = 4
"""Maximum number of operands of a sum that is not counted in between."""


class MeteredCodeGenerator(CodeGenerator):
    """Generates the code of a template. `undeclared` are the names of the variables that it reads."""

    def __init__(self, environment: Environment, *args: Any, **kwargs: Any) -> None:
        super().__init__(environment, *args, **{**kwargs, "optimized": False})
        self.undeclared: set[str] = set()
        # The value of this node is counted when it is written.
        self._written: nodes.Node | None = None
        # Weight of the defaults of a macro, which its body spends.
        self._owed = 0

    @property
    def code(self) -> str:
        """The Python code that was generated."""
        assert isinstance(self.stream, StringIO)
        return self.stream.getvalue()

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        _count_iterables(node)
        self.writeline(f"from adapter.prompt.metered.operators import {', '.join(_OPERATORS)}")
        super().visit_Template(node, frame)

    def write_commons(self) -> None:
        super().write_commons()
        self.writeline("budget = context.budget")
        for name in _BUDGET_METHODS:
            self.writeline(f"{name} = budget.{name}")

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        for action, name in frame.symbols.loads.values():
            if action == "resolve" and name is not None and name not in self.environment.globals:
                self.undeclared.add(name)

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        body = [*nodes]
        weight, self._owed = 1 + sum(map(weight_of, body)) + self._owed, 0
        if not frame.soft_frame:
            self.writeline(f"budget.left -= {weight}")
            self.writeline("if budget.left < 0: budget.refill()")
        elif weight > _LIGHT:
            self.writeline(f"budget.left -= {weight}")
        super().blockvisit(body, frame)

    def macro_body(self, node: nodes.Macro | nodes.CallBlock, frame: Frame) -> Any:
        self._owed = sum(map(weight_of, node.defaults))
        return super().macro_body(node, frame)

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData | nodes.Const):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write("text(")
        if frame.buffer is None and frame.block is None:
            self._written = node

    def _write_call(self, start: str, frame: Frame, *operands: nodes.Expr) -> None:
        """Write the call of a function, whose `start` has its name and may have arguments."""
        self.write(start)
        for operand in operands:
            self.visit(operand, frame)
            self.write(", ")
        self.write(")")

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        if isinstance(node.value, int) and node.value.bit_length() > MAX_BITS:
            self.fail(f"an integer exceeds {MAX_BITS} bits", node.lineno)
        super().visit_Const(node, frame)

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        operands = [*_operands(node)]
        counted = node is self._written or all(map(_is_constant, operands)) or any(map(_is_number, operands))
        first, rest = operands[:_MAX_OPERANDS], operands[_MAX_OPERANDS:]
        groups = [first, *(rest[at : at + 3] for at in range(0, len(rest), 3))]
        self.write("made(" * (len(groups) - 1) + ("(" if counted else "made("))
        for index, operand in enumerate(operands):
            if index:
                self.write(" + " if index < _MAX_OPERANDS or (index - _MAX_OPERANDS) % 3 else ") + ")
            self.visit(operand, frame)
        self.write(")")

    def visit_Sub(self, node: nodes.BinExpr, frame: Frame) -> None:
        if _is_number(node.left) or _is_number(node.right):
            super().visit_Sub(node, frame)
        else:
            self._write_call("subtracted(budget, ", frame, node.left, node.right)

    def visit_Mul(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._write_call("multiplied(budget, ", frame, node.left, node.right)

    def visit_Mod(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._write_call("modulo(budget, ", frame, node.left, node.right)

    def visit_Pow(self, node: nodes.BinExpr, frame: Frame) -> None:
        self._write_call("powered(budget, ", frame, node.left, node.right)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._write_call("joined(", frame, *node.nodes)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        operands = [node.expr, *(op.expr for op in node.ops)]
        is_membership = any(op.op in ("in", "notin") for op in node.ops)
        if all(map(_is_constant, operands[1:])) or (not is_membership and _is_constant(operands[0])):
            super().visit_Compare(node, frame)
        elif is_membership and len(operands) == 2:
            self._write_call("contains(" if node.ops[0].op == "in" else "(not contains(", frame, *operands)
            self.write("" if node.ops[0].op == "in" else ")")
        else:
            self.write("(")
            for sign, operand in zip(["", *(f" {operators[op.op]} " for op in node.ops)], operands, strict=True):
                self._write_call(f"{sign}weighed(", frame, operand)
            self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if isinstance(node.arg, nodes.Slice):
            self.write("made(")
            super().visit_Getitem(node, frame)
            self.write(")")
        elif _is_constant(node.arg):
            super().visit_Getitem(node, frame)
        else:
            self.write("environment.getitem(")
            self.visit(node.node, frame)
            self.write(", ")
            self._write_call("key(", frame, node.arg)
            self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("{")
        for item in node.items:
            self._write_call("key(", frame, item.key)
            self.write(": ")
            self.visit(item.value, frame)
            self.write(", ")
        self.write("}")

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:
        self.write("context.call(")
        self.visit(node.node, frame)
        self.signature(node, frame, {"caller": "caller"} if forward_caller else None)
        self.write(")")


def weight_of(node: nodes.Node) -> int:
    """Return the units that a node spends when it is evaluated, without the blocks in it, which spend their own."""
    if isinstance(node, nodes.If):
        branches = (sum(map(weight_of, body)) + 1 for body in (node.body, node.else_))
        tests = weight_of(node.test) + sum(map(weight_of, node.elif_))
        return 1 + tests + sum(weight for weight in branches if weight <= _LIGHT)
    own = _WEIGHTS.get(type(node), 1)
    return own + sum(map(weight_of, node.iter_child_nodes(exclude=_BODIES.get(type(node), ()))))


_BODIES: dict[type[nodes.Node], tuple[str, ...]] = {
    nodes.For: ("body", "else_", "test"),
    nodes.Macro: ("body", "defaults"),
    nodes.CallBlock: ("body", "defaults"),
    nodes.Block: ("body",),
    nodes.With: ("body",),
    nodes.Scope: ("body",),
    nodes.AssignBlock: ("body",),
    nodes.FilterBlock: ("body",),
}


def _count_iterables(template: nodes.Template) -> None:
    """Make those iterables spend for each item that no block of statements spends for."""
    for loop in [*template.find_all(nodes.For)]:
        if loop.test is not None:
            loop.iter = _counted(loop.iter, weight_of(loop.test) + 2)
    for call in [*template.find_all((nodes.Call, nodes.Filter, nodes.Test))]:
        assert isinstance(call, nodes.Call | nodes.Filter | nodes.Test)
        if call.dyn_args is not None:
            call.dyn_args = _counted(call.dyn_args, 1)
        if call.dyn_kwargs is not None:
            call.dyn_kwargs = _counted(call.dyn_kwargs, 2)


def _counted(node: nodes.Node, cost: int) -> nodes.Filter:
    return nodes.Filter(node, COUNTED, [nodes.Const(cost)], [], None, None, lineno=node.lineno)


def _operands(node: nodes.Expr) -> Iterator[nodes.Expr]:
    """Yield the operands of a sum, from left to right."""
    right = []
    while isinstance(node, nodes.Add):
        right.append(node.right)
        node = node.left
    yield node
    yield from reversed(right)


def _is_constant(node: nodes.Expr) -> bool:
    """Return True for an expression whose value has a constant size and no iterators."""
    if isinstance(node, nodes.List | nodes.Tuple):
        return all(map(_is_constant, node.items))
    return isinstance(node, nodes.Const | nodes.TemplateData)


def _is_number(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, int | float)
