"""--trust-classes: module classes of an installed library load, and nothing of a file is called.

The libraries here are stand-ins, in a folder of packages as pip leaves them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.commands.running import Ran, environment

SCRIPT = Path(sys.executable).with_name("composecli")
LAYERS = """
import enum
from functools import partial
from pathlib import Path
import torch
from torch import nn
from torch.nn import functional as F

class Format(str, enum.Enum):
    NCHW = "NCHW"

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.format = Format.NCHW
        self.activation = F.silu
        self.norm_layer = partial(nn.LayerNorm, eps=1e-6)
        self.shift = nn.Buffer(torch.zeros(2), persistent=False)
    def forward(self, x):
        return self.activation(self.fc(x)) + self.shift

class WithState(nn.Module):
    def __init__(self, mark):
        super().__init__()
        self.mark = mark

    def __setstate__(self, state):
        Path(state["mark"]).touch()

class WithEnd(nn.Module):
    def __init__(self, mark):
        super().__init__()
        self.mark = mark

class Plain:
    pass

def build(mark):
    Path(mark).touch()
"""
# Only the reader's copy of the class has this method.
END = """
def end(self):
    if 'mark' in self.__dict__:
        Path(self.mark).touch()
WithEnd.__del__ = end
"""
BLOCKS = """
from collections import namedtuple
from torch import nn
BlockArgs = namedtuple("BlockArgs", ["kernel", "ratio"])

class EfficientNet(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)
        self.blocks = [BlockArgs(3, 0.5)]
"""
MODELING = """
from torch import nn
from transformers.models.bert.configuration_bert import BertConfig

class BertModel(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)
        self.config = BertConfig()
"""
CONFIGURATION = """
class BertConfig:
    def __init__(self):
        self.hidden_size = 3
"""
TASKS = """
from torch import nn

class DetectionModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.fc.type = self.type = "nn.Linear"
    def forward(self, x):
        return self.fc(x)
"""
# By library: its files, with the modules that it does not import itself.
PACKAGES = {
    "timm": {
        "__init__.py": "from timm import layers, utils\n",
        "layers.py": LAYERS,
        "utils.py": "from torch import nn\nclass Net(nn.Module): pass\n",
    },
    "efficientnet_pytorch": {
        "__init__.py": "from efficientnet_pytorch import utils\n",
        "utils.py": BLOCKS,
    },
    "transformers": {
        "__init__.py": "",
        "modeling_utils.py": "",
        "models/__init__.py": "",
        "models/bert/__init__.py": "",
        "models/bert/modeling_bert.py": MODELING,
        "models/bert/configuration_bert.py": CONFIGURATION,
    },
    "ultralytics": {"__init__.py": "", "nn/__init__.py": "", "nn/tasks.py": TASKS},
}
MODELS = {
    "timm": "timm.layers.Net()",
    "efficientnet_pytorch": "efficientnet_pytorch.utils.EfficientNet()",
    "transformers": "transformers.models.bert.modeling_bert.BertModel()",
    "ultralytics": "ultralytics.nn.tasks.DetectionModel()",
}
STORED = """
class Stored:
    def __init__(self, *reduced): self.reduced = reduced
    def __reduce__(self): return self.reduced
"""


@pytest.fixture(scope="module")
def installed_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the libraries, and a file of each beside them."""
    folder = tmp_path_factory.mktemp("site")
    for library, files in PACKAGES.items():
        install(folder, library, files)
    lines = [f"save({library!r}, {model!r})" for library, model in MODELS.items()]
    source = (
        "import importlib, torch\n"
        "def save(library, model):\n"
        "    importlib.import_module(model.rpartition('.')[0])\n"
        "    module = eval(model, {library: importlib.import_module(library)})\n"
        "    torch.save(module, library + '.pt')\n"
    )
    python(source + "\n".join(lines), folder, folder)
    return folder


def install(folder: Path, library: str, files: dict[str, str]) -> None:
    """Write a library and what tells that it is installed."""
    for name, text in files.items():
        path = folder / library / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = folder / f"{library}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: 1.0\n")


@pytest.fixture
def packages(installed_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the packages, and a current folder beside them with the files."""
    folder = tmp_path / "packages"
    shutil.copytree(installed_packages, folder)
    current = tmp_path / "current"
    current.mkdir()
    for file in folder.glob("*.pt"):
        file.rename(current / file.name)
    monkeypatch.chdir(current)
    return folder


def python(source: str, packages: Path, folder: Path | None = None) -> None:
    """Run Python code that can import the libraries."""
    variables = {**environment(), "PYTHONPATH": str(packages)}
    command = [sys.executable, "-c", source]
    subprocess.run(command, env=variables, check=True, timeout=120, cwd=folder)


def trusting(libraries: Iterable[str]) -> list[str]:
    return [word for library in libraries for word in ("--trust-classes", library)]


def run(packages: Path, *words: str) -> Ran:
    """Run the installed command where the library is installed."""
    path = f"{environment()['PYTHONPATH']}:{packages}"
    ran = subprocess.run(
        [SCRIPT, *words],
        capture_output=True,
        text=True,
        env={**environment(), "PYTHONPATH": path},
        timeout=200,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.mark.parametrize("isolation", ["best", "none"])
@pytest.mark.parametrize("library", list(MODELS))
def test_a_module_of_a_named_library_loads(library: str, isolation: str, packages: Path) -> None:
    words = ("inspect", f"{library}.pt", "--isolation", isolation)
    refused = run(packages, *words)
    assert (refused.code, f"--trust-classes {library}" in refused.err) == (3, True), refused.err
    loaded = run(packages, *words, "--trust-classes", library)
    contract = "float32[N, 3] -> float32[N, 2]"
    assert (loaded.code, contract in loaded.out) == (0, True), loaded.out + loaded.err


HOSTILE = {
    "a function of the library": "Stored(timm.layers.build, ('MARK',))",
    "a class that is no module": "timm.layers.Plain()",
    "a class with a state of its own": "timm.layers.WithState('MARK')",
    "a class with an end of its own": "timm.layers.WithEnd('MARK')",
    "what the library has imported": "Stored(timm.layers.Path, ('MARK',))",
    "a partial of a function": "functools.partial(timm.layers.build, 'MARK')",
    "a class that is called": "Stored(timm.layers.Net, ())",
    "a module class that the policy leaves out": "timm.utils.Net()",
    "a tensor that gets a class": "Stored(torch._tensor._rebuild_from_type_v2, "
    "(timm.layers.build, torch.Tensor, ('MARK',), {}))",
    "a tensor that gets other data": "Stored(torch._tensor._rebuild_from_type_v2, "
    "(torch._utils._rebuild_tensor_v2, torch.Tensor, (torch.zeros(1).untyped_storage(), "
    "0, (1,), (1,), False, None), {'data': torch.zeros(2)}))",
    "a tensor beyond its storage": "Stored(torch._tensor._rebuild_from_type_v2, "
    "(torch._utils._rebuild_tensor_v2, torch.Tensor, (torch.zeros(1).untyped_storage(), "
    "0, (100000,), (1,), False, None), {'persistent': True}))",
    "code beside it": "Stored(open, ('MARK', 'w'))",
}


@pytest.mark.parametrize("isolation", ["best", "none"])
@pytest.mark.parametrize("attribute", list(HOSTILE.values()), ids=list(HOSTILE))
def test_nothing_but_module_classes_is_granted(
    attribute: str, isolation: str, packages: Path
) -> None:
    mark = packages / "mark"
    source = (
        f"import functools, timm, torch\n{STORED}\n"
        "net = timm.layers.Net()\n"
        f"net.extra = {attribute.replace('MARK', str(mark))}\n"
        "torch.save(net, 'hostile.pt')\n"
    )
    python(source, packages)
    with (packages / "timm" / "layers.py").open("a") as file:
        file.write(END)
    words = ("inspect", "hostile.pt", "--trust-classes", "timm", "--isolation", isolation)
    ran = run(packages, *words)
    assert (ran.code, mark.exists(), "Traceback" in ran.err) == (3, False, False), ran.err


# By library: what its installed version has in place of what the file was made with.
OTHER_VERSIONS = {
    "a named tuple with code": (
        "efficientnet_pytorch",
        "utils.py",
        "class BlockArgs(tuple):\n    def __new__(cls, *args): open(MARK, 'w')\n",
    ),
    "a configuration that sets its state": (
        "transformers",
        "models/bert/configuration_bert.py",
        "class BertConfig:\n    def __setstate__(self, state): open(MARK, 'w')\n",
    ),
    "a configuration that answers for its state": (
        "transformers",
        "models/bert/configuration_bert.py",
        "class BertConfig:\n    def __getattr__(self, name): open(MARK, 'w')\n",
    ),
}


@pytest.mark.parametrize("isolation", ["best", "none"])
@pytest.mark.parametrize("version", list(OTHER_VERSIONS.values()), ids=list(OTHER_VERSIONS))
def test_a_class_that_runs_code_when_it_is_made_is_refused(
    version: tuple[str, str, str], isolation: str, packages: Path
) -> None:
    library, name, text = version
    mark = packages / "mark"
    with (packages / library / name).open("a") as file:
        file.write(text.replace("MARK", repr(str(mark))))
    words = ("inspect", f"{library}.pt", *trusting([library]), "--isolation", isolation)
    ran = run(packages, *words)
    assert (ran.code, mark.exists(), "CC909" in ran.err) == (3, False, True), ran.err


@pytest.mark.parametrize("isolation", ["best", "none"])
def test_a_file_does_not_have_other_modules_of_a_library_imported(
    isolation: str, packages: Path
) -> None:
    mark = packages / "mark"
    script = packages / "transformers" / "models" / "bert" / "convert_bert.py"
    script.write_text("class BertModel: pass\n")
    source = (
        "import torch\nfrom transformers.models.bert.modeling_bert import BertModel\n"
        "from transformers.models.bert import convert_bert\n"
        "net = BertModel()\nnet.extra = convert_bert.BertModel()\n"
        "torch.save(net, 'hostile.pt')\n"
    )
    python(source, packages)
    script.write_text(f"open({str(mark)!r}, 'w')\n")
    words = ("inspect", "hostile.pt", *trusting(["transformers"]), "--isolation", isolation)
    ran = run(packages, *words)
    assert (ran.code, mark.exists(), "convert_bert" in ran.err) == (3, False, True), ran.err


@pytest.mark.parametrize("value", ["[1]", "torch.nn.ReLU()", "torch.nn.functional.silu"])
def test_only_a_text_may_hide_the_method_that_a_library_hides(value: str, packages: Path) -> None:
    source = (
        "import torch\nfrom ultralytics.nn.tasks import DetectionModel\n"
        f"net = DetectionModel()\nnet.__dict__['type'] = {value}\n"
        "torch.save(net, 'hostile.pt')\n"
    )
    python(source, packages)
    ran = run(packages, "inspect", "hostile.pt", "--trust-classes", "ultralytics")
    assert (ran.code, "type is overridden" in ran.err) == (3, True), ran.err


def test_a_buffer_with_marks_needs_no_trust(packages: Path) -> None:
    source = (
        "import torch\nnet = torch.nn.Linear(3, 2)\n"
        "net.register_buffer('shift', torch.nn.Buffer(torch.zeros(2)))\n"
        "torch.save(net, 'marked.pt')\n"
    )
    python(source, packages)
    for isolation in ("best", "none"):
        ran = run(packages, "inspect", "marked.pt", "--isolation", isolation)
        assert ran.code == 0, ran.err


def test_a_file_that_is_trusted_as_a_whole_needs_no_classes(packages: Path) -> None:
    words = ("inspect", "timm.pt", "--trust", "timm.pt", "--trust-classes", "transformers")
    ran = run(packages, *words)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("key", ["forward", "_forward_hooks", "__class__", "train"])
def test_code_of_a_class_cannot_be_replaced(key: str, packages: Path) -> None:
    source = (
        "import timm, torch\nnet = timm.layers.Net()\n"
        f"net.__dict__[{key!r}] = {{1: torch.nn.Identity()}}\n"
        "torch.save(net, 'hostile.pt')\n"
    )
    python(source, packages)
    for isolation in ("best", "none"):
        words = ("inspect", "hostile.pt", "--trust-classes", "timm", "--isolation", isolation)
        ran = run(packages, *words)
        assert (ran.code, "CC9" in ran.err) == (3, True), ran.err


def test_a_library_of_the_current_folder_is_not_imported(packages: Path) -> None:
    Path("timm.py").write_text("open('mark', 'w')\n")
    shutil.rmtree(packages / "timm-1.0.dist-info")
    shutil.rmtree(packages / "timm")
    ran = run(packages, "inspect", "timm.pt", "--trust-classes", "timm")
    assert (ran.code, Path("mark").exists()) == (3, False)
    assert "timm is not installed" in ran.err


def test_only_libraries_with_a_policy_can_be_named(packages: Path) -> None:
    ran = run(packages, "inspect", "timm.pt", "--trust-classes", "os")
    assert (ran.code, "torchvision, timm" in ran.err) == (2, True)
