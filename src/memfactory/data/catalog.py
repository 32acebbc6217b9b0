"""The public data sets that readers exist for: what they are, how large, under which licence, and where to get them.

Sizes and licences are as their publishers state them. Nothing of them ships with the project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from memfactory.core.errors import BadInput, did_you_mean


@dataclass(frozen=True)
class HubFile:
    """A file of a data set on the Hugging Face hub."""

    repository: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} (hub data set {self.repository})"


@dataclass(frozen=True)
class WebFile:
    """A file on a web page of its publishers. A tar archive is unpacked.

    `sha256` is the file's where its publishers do not change it; others are compared with what was fetched first.
    """

    url: str
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.name} ({self.url})"


@dataclass(frozen=True)
class DataSet:
    """One entry of the catalogue.

    `reader` is the data component that reads it, `parts` are its files by the names that `fetch` takes; without any
    it is generated here, and `make` says how. `making` is the command that makes files of it from other data.
    """

    name: str
    what: str
    reader: str
    size: str
    licence: str
    parts: Mapping[str, HubFile | WebFile] = field(default_factory=dict)
    make: str = ""
    making: str = ""

    @property
    def folder(self) -> str:
        """Where `fetch` puts it and benchmarks look for it, in the working folder."""
        return f"data/{self.name}"


_MEMAGENT = "BytedTsinghua-SIA/hotpotqa"
_HOTPOTQA = "https://curtis.ml.cmu.edu/datasets/hotpot/"
_LONGMEMEVAL = "xiaowu0162/longmemeval-cleaned"

CATALOG: tuple[DataSet, ...] = (
    DataSet(
        "facts",
        "synthetic reading task of the tiny policy, any length",
        "facts",
        "generated",
        "Apache-2.0 (this project)",
        make="data=facts, or memfactory data make facts",
    ),
    DataSet(
        "dialogues",
        "synthetic dialogues of many sessions",
        "dialogues",
        "generated",
        "Apache-2.0 (this project)",
        make="data=dialogues",
    ),
    DataSet(
        "ruler",
        "RULER: 13 tasks on texts of any length (arXiv 2404.06654)",
        "ruler",
        "generated",
        "Apache-2.0 (this project); essays and questions are yours",
        make="benchmark=ruler",
    ),
    DataSet(
        "babilong",
        "BABILong: reasoning qa1-qa5 in a haystack (arXiv 2406.10149)",
        "babilong",
        "generated",
        "Apache-2.0 (this project)",
        make="benchmark=babilong",
    ),
    DataSet(
        "hotpotqa",
        "HotpotQA, distractor setting (arXiv 1809.09600)",
        "hotpotqa",
        "dev 7,405 questions, 46 MB; train 90,447, 566 MB",
        "CC BY-SA 4.0",
        {
            "dev": WebFile(
                f"{_HOTPOTQA}hotpot_dev_distractor_v1.json",
                sha256="4e9ecb5c8d3b719f624d66b60f8d56bf227f03914f5f0753d6fa1b359d7104ea",
            ),
            "train": WebFile(
                f"{_HOTPOTQA}hotpot_train_v1.1.json",
                sha256="26650cf50234ef5fb2e664ed70bbecdfd87815e6bffc257e068efea5cf7cd316",
            ),
        },
    ),
    DataSet(
        "hotpotqa_long",
        "HotpotQA-long as MemAgent published it (arXiv 2507.02259)",
        "hotpotqa_long",
        "128 questions a file, 7 K to 896 K tokens each",
        "CC BY-SA 4.0 (HotpotQA)",
        {
            "train": HubFile(_MEMAGENT, "hotpotqa_train_32k.parquet"),
            "dev": HubFile(_MEMAGENT, "hotpotqa_dev.parquet"),
            **{
                f"eval_{paragraphs}": HubFile(_MEMAGENT, f"eval_{paragraphs}.json")
                for paragraphs in (50, 100, 200, 400, 800, 1600, 3200, 6400)
            },
        },
        make="or memfactory data make hotpotqa-long, also 12800 and 25600 paragraphs",
        making="memfactory data make hotpotqa-long --source HOTPOTQA.json --paragraphs N",
    ),
    DataSet(
        "musique",
        "MuSiQue, questions of 2 to 4 hops (arXiv 2108.00573)",
        "musique",
        "dev 30 MB, train 241 MB",
        "CC BY 4.0",
        {
            "dev": HubFile("dgslibisey/MuSiQue", "musique_ans_v1.0_dev.jsonl"),
            "train": HubFile("dgslibisey/MuSiQue", "musique_ans_v1.0_train.jsonl"),
        },
    ),
    DataSet(
        "2wikimultihopqa",
        "2WikiMultihopQA (arXiv 2011.01060)",
        "2wikimultihopqa",
        "dev 30 MB, train 343 MB",
        "Apache-2.0",
        {
            "dev": HubFile("xanhho/2WikiMultihopQA", "dev.parquet"),
            "train": HubFile("xanhho/2WikiMultihopQA", "train.parquet"),
        },
    ),
    DataSet(
        "squad",
        "SQuAD 2.0, the questions of RULER's qa_1 (arXiv 1806.03822)",
        "ruler",
        "dev 4 MB",
        "CC BY-SA 4.0",
        {"dev": WebFile("https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json")},
    ),
    DataSet(
        "locomo",
        "LoCoMo: questions about conversations of many sessions (arXiv 2402.17753)",
        "locomo",
        "10 conversations, 3 MB",
        "CC BY-NC 4.0",
        {
            "all": WebFile(
                "https://raw.githubusercontent.com/snap-research/locomo/main/data/locomo10.json",
            )
        },
    ),
    DataSet(
        "longmemeval",
        "LongMemEval: five abilities of chat assistants (arXiv 2410.10813)",
        "longmemeval",
        "500 questions; oracle 15 MB, s 278 MB, m 2.8 GB",
        "MIT",
        {
            "oracle": HubFile(_LONGMEMEVAL, "longmemeval_oracle.json"),
            "s": HubFile(_LONGMEMEVAL, "longmemeval_s_cleaned.json"),
            "m": HubFile(_LONGMEMEVAL, "longmemeval_m_cleaned.json"),
        },
    ),
    DataSet(
        "msc",
        "Multi-Session Chat (arXiv 2107.07567)",
        "msc",
        "501 test conversations a session",
        "CC BY 4.0",
        {
            "all": WebFile(
                "https://parl.ai/downloads/msc/msc_v0.1.tar.gz",
                sha256="e640e37cf4317cd09fc02a4cd57ef130a185f23635f4003b0cee341ffcb45e60",
            )
        },
    ),
)


def find(name: str) -> DataSet:
    """The data set of that name. Raises `BadInput` with the nearest name."""
    names = [entry.name for entry in CATALOG]
    if name not in names:
        hint = did_you_mean(name, names) or f"; known: {', '.join(names)}"
        raise BadInput(f"there is no data set '{name}'{hint}")
    return CATALOG[names.index(name)]


def where_to_get(path: str) -> str:
    """A hint for a data file that is not there; nothing for one that the catalogue does not know.

    A published file is fetched to where it is looked for. Another name in a folder of `fetch` is one of a file that
    is made here, or the published ones are to be named in its place.
    """
    *folders, name = path.replace("\\", "/").split("/")
    for entry in CATALOG:
        published = {file.name: part for part, file in entry.parts.items()}
        if not published:
            continue
        if folders[:2] != entry.folder.split("/"):
            if name not in published or name[:4] != entry.name[:4]:  # dev.parquet elsewhere may be anybody's
                continue
            where = "/".join(folders) or "."
            return f"; get it with: memfactory data fetch {entry.name} {published[name]} --output {where}"
        if name in published or any(file.endswith(".tar.gz") for file in published):
            return f"; get it with: memfactory data fetch {entry.name}"
        brought = f"memfactory data fetch {entry.name} brings {', '.join(published)}"
        if entry.making:
            return f"; make it with: {entry.making} --output {path}; or name a published file: {brought}"
        return f"; {brought}"
    return ""
