"""The rules: each kind of finding and each problem, with its code, its name, what it does, and its page of help."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """What a finding does to the verdict: `error` refuses, `unknown` leaves open, `note` only informs."""

    ERROR = "error"
    UNKNOWN = "unknown"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Rule:
    code: str
    slug: str
    severity: Severity
    help: str


_E, _U, _N = Severity.ERROR, Severity.UNKNOWN, Severity.NOTE

_ALL = (
    Rule(
        "CC101",
        "input-count-differs",
        _E,
        "The consumer needs another number of inputs than the producer gives outputs. Pick an output with "
        "--select, or join models whose counts agree.",
    ),
    Rule(
        "CC102",
        "structure-differs",
        _E,
        "The producer returns a tuple, list or dict where the consumer takes a tensor, or keys that are no inputs"
        " of the consumer. --select PORT picks one output: --select logits, --select '[0]'; in a chain 2:logits "
        "names the second model.",
    ),
    Rule(
        "CC103",
        "no-such-output",
        _E,
        "--select names an output that the model does not have. The notes list those that it has.",
    ),
    Rule(
        "CC201",
        "dtype-differs",
        _E,
        "The dtype of the producer's output is not the one that the consumer takes. Numbers can be cast to floats"
        " (--bridge auto); floats are never cast to ids, because the values would mean nothing.",
    ),
    Rule(
        "CC202",
        "rank-differs",
        _E,
        "The two sides have another number of axes. --bridge auto flattens trailing axes or squeezes axes of size"
        " 1 where that makes them fit.",
    ),
    Rule(
        "CC203",
        "size-differs",
        _E,
        "One axis has another size than the consumer takes. --bridge linear adds an nn.Linear along that axis; it"
        " is untrained and has to be fitted before its outputs mean anything.",
    ),
    Rule(
        "CC204",
        "size-out-of-range",
        _E,
        "The size is outside what the consumer takes: too small, too large, or no multiple of what it needs.",
    ),
    Rule(
        "CC205",
        "fits-only-at-some-sizes",
        _N,
        "The pair fits at the example input, and only where the condition holds. --strict asks for every size "
        "that the producer admits and makes this an error (CC206).",
    ),
    Rule(
        "CC206",
        "not-at-every-size",
        _E,
        "With --strict: the producer admits sizes at which the pair does not fit. The note gives the condition.",
    ),
    Rule(
        "CC207",
        "sizes-not-known",
        _U,
        "With --strict: a dim of the producer or of the consumer is not known as an expression of the input, so "
        "nothing can be said of every size. State the input with --input, or use torch.export with dynamic "
        "shapes.",
    ),
    Rule(
        "CC208",
        "fits-by-broadcasting",
        _U,
        "The consumer ran, but only because a size of 1 was broadcast against a parameter of another size. Such a"
        " seam trains and runs and is rarely what was meant, so it is not called compatible.",
    ),
    Rule(
        "CC301",
        "refused-by-consumer",
        _E,
        "Running the consumer on the producer's output failed inside the consumer, at the submodule and op that "
        "the finding names.",
    ),
    Rule(
        "CC302",
        "depends-on-values",
        _U,
        "The forward failed on these values and passes on zeros of the same sizes: a check on the data, or ids "
        "out of range, and not a mismatch of shapes. Give a real sample with --input @sample.pt.",
    ),
    Rule(
        "CC303",
        "comparison-and-probe-disagree",
        _U,
        "The contracts say that the pair does not fit and the probe ran, or the other way round. The contract may"
        " be wrong (it rests on the evidence shown). State the input with --input.",
    ),
    Rule(
        "CC304",
        "contract-not-found",
        _U,
        "The input of this model could not be found. The notes say what was tried and how far it got. State the "
        "input: --input 'float32[N,3,224,224]', once for each input in order, or by name: --input "
        "'ids=int64[1,16]' --input 'rate:=16000'. Inputs that are lists or dicts come from a file: --input @sample.pt.",
    ),
    Rule(
        "CC305",
        "device-baked-in",
        _N,
        "A trace or script holds a device as a constant. It runs on that device alone, however it is loaded; "
        "trace it again on the device where it is to run.",
    ),
    Rule(
        "CC306",
        "runs-in-eval-mode",
        _E,
        "The model refuses in train mode what it takes in eval mode: batch norm with one sample, usually. Use "
        "--training eval, or a larger batch with --input.",
    ),
    Rule(
        "CC307",
        "out-of-memory",
        _U,
        "The probe ran out of memory, so nothing is known of shapes. Give smaller sizes with --input.",
    ),
    Rule(
        "CC308",
        "producer-refused",
        _U,
        "The first model refused its own example input, so nothing reached the seam.",
    ),
    Rule(
        "CC309",
        "explored-on-meta",
        _N,
        "Shapes were explored on the meta device, which accepts what real kernels refuse; the verdict rests on a "
        "forward on the CPU.",
    ),
    Rule(
        "CC401",
        "inputs-not-shared",
        _E,
        "In parallel every model gets the same input, and this one refuses what the first one takes.",
    ),
    Rule(
        "CC402",
        "merge-sizes-differ",
        _E,
        "cat needs equal sizes on every axis but the merge axis; add, mean and stack need equal sizes everywhere."
        " --bridge linear brings the narrower side up; --dim picks another axis for cat.",
    ),
    Rule(
        "CC403",
        "merge-dim-out-of-range",
        _E,
        "--dim is no axis of the outputs that are merged.",
    ),
    Rule(
        "CC404",
        "merge-dtype-differs",
        _N,
        "The outputs that are merged have other dtypes. PyTorch promotes them to one dtype that holds both.",
    ),
    Rule(
        "CC405",
        "merge-needs-tensors",
        _E,
        "A merge other than tuple takes one tensor of each model. --select picks it.",
    ),
    Rule(
        "CC501",
        "gradient-is-cut",
        _N,
        "Some parameters get no gradient through the seam: an argmax, a detach or a cast to whole numbers stands "
        "on the way. The join behaves as the parts do.",
    ),
    Rule(
        "CC502",
        "lost-in-tracing",
        _N,
        "The model went into the join by tracing. Tracing keeps one path through the code, drops the ranges and "
        "guards of a torch.export archive, and fixes train or eval mode as it was.",
    ),
    Rule(
        "CC503",
        "bridge-is-untrained",
        _N,
        "The bridge holds a generated layer that nobody has trained. Its outputs mean nothing until it is fitted.",
    ),
    Rule(
        "CC504",
        "one-batch-size-verified",
        _N,
        "Axis 0 of the input is not free, so the joined file was verified at one size with two seeds instead of "
        "at two batch sizes.",
    ),
    Rule(
        "CC505",
        "no-checksums",
        _N,
        "The archive was saved without checksums (torch.serialization.set_crc32_options(False)), so that a flipped bit "
        "in its weights cannot be seen.",
    ),
    Rule(
        "CC901",
        "no-such-file",
        _U,
        "There is nothing at this path, or it cannot be read.",
    ),
    Rule(
        "CC902",
        "not-a-regular-file",
        _U,
        "The path is a directory, a device or a pipe. Older SavedModel-like folders are not models here: save one"
        " file with torch.jit.save or torch.export.save.",
    ),
    Rule(
        "CC903",
        "empty-file",
        _U,
        "The file has no bytes: an interrupted download or save.",
    ),
    Rule(
        "CC904",
        "truncated-archive",
        _U,
        "The file starts as a zip archive and has no directory at its end: an interrupted download or save. Fetch"
        " or save it again.",
    ),
    Rule(
        "CC905",
        "git-lfs-pointer",
        _U,
        "The file is the text that git-lfs leaves in the place of a large file. Run git lfs pull.",
    ),
    Rule(
        "CC906",
        "onnx-file",
        _U,
        "The file is an ONNX model. composecli reads models saved by PyTorch: export the original module with "
        "torch.export.save or torch.jit.save.",
    ),
    Rule(
        "CC907",
        "state-dict-alone",
        _U,
        "The file holds weights and no code, so it cannot be run. Name a factory that makes the module: "
        "package.module:factory@weights.pt.",
    ),
    Rule(
        "CC908",
        "not-a-model",
        _U,
        "The file is readable and holds something else: text, a web page, another kind of archive, a bare tensor.",
    ),
    Rule(
        "CC909",
        "imports-not-trusted",
        _U,
        "A pickle imports what it names and runs it. Modules made only of torch.nn classes load as they are; this"
        " one names more. If you know where the file comes from, --trust loads it.",
    ),
    Rule(
        "CC910",
        "hooks-not-trusted",
        _U,
        "The pickled module carries forward hooks or an overridden forward: code that runs beside or instead of "
        "the class's own. --trust keeps them; without it the file is refused.",
    ),
    Rule(
        "CC911",
        "legacy-format",
        _U,
        "The file was saved by PyTorch before 1.6 or with _use_new_zipfile_serialization=False. Load it where it "
        "is trusted and save it again with torch.save.",
    ),
    Rule(
        "CC912",
        "keys-do-not-fit",
        _U,
        "The weights do not fit the module that the factory made. --key picks the entry of the checkpoint that "
        "holds them.",
    ),
    Rule(
        "CC913",
        "could-not-load",
        _U,
        "PyTorch could not load the file. The note holds what it said.",
    ),
    Rule(
        "CC914",
        "factory-failed",
        _U,
        "The factory could not be imported or called without arguments, or gave no nn.Module.",
    ),
    Rule(
        "CC915",
        "no-such-device",
        _U,
        "The device that was asked for is not there.",
    ),
    Rule(
        "CC916",
        "worker-crashed",
        _U,
        "The process that loads and runs models died. The note names the signal and what it was doing.",
    ),
    Rule(
        "CC917",
        "worker-timed-out",
        _U,
        "Loading or one forward took longer than --timeout and was ended.",
    ),
    Rule(
        "CC918",
        "worker-answered-nonsense",
        _U,
        "The process that loads and runs models sent what is no answer: something inside it wrote over the protocol.",
    ),
    Rule(
        "CC919",
        "output-exists",
        _U,
        "The output is there already. --force replaces it once the new file is verified.",
    ),
    Rule(
        "CC920",
        "output-is-an-input",
        _U,
        "The output is one of the inputs, by path, link or hard link. Inputs are never changed.",
    ),
    Rule(
        "CC921",
        "could-not-write",
        _U,
        "The output could not be written: no such folder, no permission, no space left.",
    ),
    Rule(
        "CC922",
        "could-not-build",
        _U,
        "The parts are compatible and PyTorch could not make one TorchScript module of them. The note holds what "
        "it said.",
    ),
    Rule(
        "CC923",
        "verification-failed",
        _U,
        "The file was written and does not do what its parts do one after the other, so it was not kept.",
    ),
    Rule(
        "CC924",
        "package-missing",
        _U,
        "A package that this file needs is not installed.",
    ),
    Rule(
        "CC925",
        "input-does-not-apply",
        _U,
        "An --input names an argument that the model does not have, or the sample file cannot be read.",
    ),
    Rule(
        "CC926",
        "program-not-trusted",
        _U,
        "A TorchScript or torch.export archive is a program. This one holds an op, a class or a member that is not on "
        "the list of what computes and does nothing else. --allow-op NS::OP allows one op, --trust FILE a whole file.",
    ),
    Rule(
        "CC927",
        "records-do-not-fit",
        _U,
        "A record of the archive is shorter or longer than the tensors that are said to lie in it. PyTorch does not "
        "check this and would read beyond its end. The file is damaged, or made to do harm.",
    ),
    Rule(
        "CC928",
        "file-changed",
        _U,
        "The file was written to while composecli read it. Run it again when it is whole.",
    ),
    Rule(
        "CC929",
        "not-the-file-that-is-trusted",
        _U,
        "--trust FILE@sha256:HEX vouches for one content, and the file has another. sha256sum FILE prints its own.",
    ),
    Rule(
        "CC930",
        "isolation-missing",
        _U,
        "--isolation required was given, and this system lacks a measure that confines the process which runs models.",
    ),
    Rule(
        "CC931",
        "memory-ran-out",
        _U,
        "Loading or running the models took more memory than --max-memory allows, or than there is.",
    ),
    Rule(
        "CC970",
        "a-bug-of-ours",
        _U,
        "composecli failed in a way that it should not. Run it again with --debug and report what it prints.",
    ),
)

RULES = {rule.code: rule for rule in _ALL}
