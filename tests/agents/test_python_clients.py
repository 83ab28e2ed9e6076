"""LangChain's standard tests, and agents of further frameworks in Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.agents.running import HERE, PYTHON, run, run_json
from tests.scripted_model import ScriptedModel, call, serving, turns

JOKE = {"setup": "Why did the cat cross the road?", "punchline": "To nap in the sun."}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "magic_function": {"input": 3},
    "magic_function_no_args": {},
    "get_weather": {"location": "San Francisco, CA"},
    "unicode_customer": {"customer_name": "你好啊集团, こんにちは株式会社", "description": "技术"},
    "Joke": JOKE,
    "greeting_generator": {"answer_style": "Pirate"},
}
SUNNY = "It's sunny in San Francisco."
RAIN = "It will rain."
DOG = '{"name": "Rex", "age": 3}'


def standard_answer(prompt: str) -> str:
    """Return what LangChain's standard tests want: the first offered tool is called, without tools it is a joke."""
    offered = re.search(r'<tools>.*?"name": ?"(\w+)"', prompt, re.DOTALL)
    if offered is not None and not prompt.rstrip("\n").endswith("</tool_response><|im_end|>\n<|im_start|>assistant"):
        return call(offered[1], **ARGUMENTS.get(offered[1], {}))
    return str(JOKE).replace("'", '"') if "joke" in prompt else SUNNY


async def test_langchain_standard_tests(tmp_path: Path) -> None:
    """LangChain's standard tests pass."""
    tests = HERE / "python" / "langchain_standard.py"
    options = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--noconftest", "-o", "asyncio_mode=auto"]
    # LangChain keeps connections between tests.
    options += ["-o", "asyncio_default_test_loop_scope=session", "-o", "asyncio_default_fixture_loop_scope=session"]
    async with serving(ScriptedModel(standard_answer)) as url:
        output = await run([PYTHON, "-m", "pytest", *options, tests], tmp_path, {"GATEWAY_URL": url})
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None
    assert int(passed[1]) >= 39
    assert "failed" not in output


async def test_smolagents(tmp_path: Path) -> None:
    """An agent of smolagents calls a tool, and then the tool that ends its run, streamed and not."""
    # It sends results of tools back in messages of the user.
    answers = {True: call("final_answer", answer=RAIN), False: call("weather", town="Oslo")}
    model = ScriptedModel(lambda prompt: answers["days of rain" in prompt], failing=True)
    async with serving(model) as url:
        assert await run_json([PYTHON, HERE / "python" / "frameworks.py", "smolagents", url], tmp_path) == [RAIN, RAIN]
    assert "3 days of rain in Oslo" in model.prompts[-1]


async def test_haystack(tmp_path: Path) -> None:
    """An agent of Haystack calls a tool, and answers with its result, streamed and not."""
    model = ScriptedModel(turns(call("weather", town="Oslo", days=2), RAIN), failing=True)
    async with serving(model) as url:
        assert await run_json([PYTHON, HERE / "python" / "frameworks.py", "haystack", url], tmp_path) == [RAIN, RAIN]
    assert "2 days of rain in Oslo" in model.prompts[-1]


async def test_llm(tmp_path: Path) -> None:
    """The command `llm` prints an answer, runs a tool, and gets an object of a schema."""
    model = ScriptedModel(turns(call("multiply", a=6, b=7), "It is 42.", without_tools=DOG))
    async with serving(model) as url:
        features = "supports_tools: true\n  supports_schema: true"
        (tmp_path / "extra-openai-models.yaml").write_text(
            f"- model_id: gateway\n  model_name: mock\n  api_base: {url}\n  {features}\n"
        )
        environ = {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "any"}
        function = 'def multiply(a: int, b: int) -> int:\n    "Multiply."\n    return a * b\n'
        command: list[str | Path] = [PYTHON, "-m", "llm", "--model", "gateway"]
        called = await run([*command, "--functions", function, "What is 6 times 7?"], tmp_path, environ)
        dog = await run([*command, "--schema", "name, age int", "Invent a dog."], tmp_path, environ)
    assert called.strip() == "It is 42."
    assert dog.strip() == DOG
    assert "<tool_response>\n42\n" in "".join(model.prompts)
