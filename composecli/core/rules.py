"""The rules: every kind of finding and of problem, with its code, name, severity and page of help."""

from __future__ import annotations

from enum import StrEnum


class Severity(StrEnum):
    """The effect of a finding on the verdict: `error` refuses, `unknown` leaves it open, `note` informs."""

    ERROR = "error"
    UNKNOWN = "unknown"
    NOTE = "note"


class Rule(StrEnum):
    """One kind of finding or problem. Its value is the code: `Rule("CC203") is Rule.SIZE_DIFFERS`.

    `slug` is its name on the command line, `help` the text of its page.
    """

    slug: str
    severity: Severity
    help: str

    def __new__(cls, code: str, slug: str, severity: Severity, help: str) -> Rule:
        rule = str.__new__(cls, code)
        rule._value_ = code
        rule.slug = slug
        rule.severity = severity
        rule.help = help
        return rule

    @property
    def bridgeable(self) -> bool:
        """Whether steps between two models may resolve a finding of this rule."""
        return self in (Rule.DTYPE_DIFFERS, Rule.RANK_DIFFERS, Rule.SIZE_DIFFERS)

    @property
    def about_every_size(self) -> bool:
        """Whether a finding speaks of other sizes than the example's, so that no probe can contradict it."""
        return self is Rule.NOT_AT_EVERY_SIZE

    INPUT_COUNT_DIFFERS = (
        "CC101",
        "input-count-differs",
        Severity.ERROR,
        (
            "The consumer needs another number of inputs than the producer gives outputs. Pick an"
            " output with --select, or join models whose counts agree."
        ),
    )
    STRUCTURE_DIFFERS = (
        "CC102",
        "structure-differs",
        Severity.ERROR,
        (
            "The producer returns a tuple, list or dict where the consumer takes a tensor, or "
            "keys that are no inputs of the consumer. --select PORT picks one output: --select "
            "logits, --select '[0]'; in a chain 2:logits names the second model."
        ),
    )
    NO_SUCH_OUTPUT = (
        "CC103",
        "no-such-output",
        Severity.ERROR,
        "--select names an output that the model does not have. The notes list those that it has.",
    )
    DTYPE_DIFFERS = (
        "CC201",
        "dtype-differs",
        Severity.ERROR,
        (
            "The dtype of the producer's output is not the one that the consumer takes. Numbers "
            "can be cast to floats (--bridge auto); floats are never cast to ids, because the "
            "values would mean nothing."
        ),
    )
    RANK_DIFFERS = (
        "CC202",
        "rank-differs",
        Severity.ERROR,
        (
            "The two sides have another number of axes. --bridge auto flattens trailing axes or "
            "squeezes axes of size 1 where that makes them fit."
        ),
    )
    SIZE_DIFFERS = (
        "CC203",
        "size-differs",
        Severity.ERROR,
        (
            "One axis has another size than the consumer takes. --bridge linear adds an nn.Linear"
            " along that axis; it is untrained and has to be fitted before its outputs mean "
            "anything."
        ),
    )
    SIZE_OUT_OF_RANGE = (
        "CC204",
        "size-out-of-range",
        Severity.ERROR,
        (
            "The size is outside what the consumer takes: too small, too large, or no multiple of"
            " what it needs."
        ),
    )
    FITS_ONLY_AT_SOME_SIZES = (
        "CC205",
        "fits-only-at-some-sizes",
        Severity.NOTE,
        (
            "The pair fits at the example input, and only where the condition holds. --strict "
            "asks for every size that the producer admits and makes this an error (CC206)."
        ),
    )
    NOT_AT_EVERY_SIZE = (
        "CC206",
        "not-at-every-size",
        Severity.ERROR,
        (
            "With --strict: the producer admits sizes at which the pair does not fit. The note "
            "gives the condition."
        ),
    )
    SIZES_NOT_KNOWN = (
        "CC207",
        "sizes-not-known",
        Severity.UNKNOWN,
        (
            "With --strict: a dim of the producer or of the consumer is not known as an "
            "expression of the input, so nothing can be said of every size. State the input with "
            "--input, or use torch.export with dynamic shapes."
        ),
    )
    FITS_BY_BROADCASTING = (
        "CC208",
        "fits-by-broadcasting",
        Severity.UNKNOWN,
        (
            "The consumer ran, but only because a size of 1 was broadcast against a parameter of "
            "another size. Such a seam trains and runs and is rarely what was meant, so it is not"
            " called compatible."
        ),
    )
    REFUSED_BY_CONSUMER = (
        "CC301",
        "refused-by-consumer",
        Severity.ERROR,
        (
            "Running the consumer on the producer's output failed inside the consumer, at the "
            "submodule and op that the finding names."
        ),
    )
    DEPENDS_ON_VALUES = (
        "CC302",
        "depends-on-values",
        Severity.UNKNOWN,
        (
            "The forward failed on these values and passes on zeros of the same sizes: a check on"
            " the data, or ids out of range, and not a mismatch of shapes. Give a real sample "
            "with --input @sample.pt."
        ),
    )
    COMPARISON_AND_PROBE_DISAGREE = (
        "CC303",
        "comparison-and-probe-disagree",
        Severity.UNKNOWN,
        (
            "The contracts say that the pair does not fit and the probe ran, or the other way "
            "round. The contract may be wrong (it rests on the evidence shown). State the input "
            "with --input."
        ),
    )
    CONTRACT_NOT_FOUND = (
        "CC304",
        "contract-not-found",
        Severity.UNKNOWN,
        (
            "The input of this model could not be found. The notes say what was tried and how far"
            " it got. State the input: --input 'float32[N,3,224,224]', once for each input in "
            "order, or by name: --input 'ids=int64[1,16]' --input 'rate:=16000'. Inputs that are "
            "lists or dicts come from a file: --input @sample.pt."
        ),
    )
    DEVICE_BAKED_IN = (
        "CC305",
        "device-baked-in",
        Severity.NOTE,
        (
            "A trace or script holds a device as a constant. It runs on that device alone, "
            "however it is loaded; trace it again on the device where it is to run."
        ),
    )
    RUNS_IN_EVAL_MODE = (
        "CC306",
        "runs-in-eval-mode",
        Severity.ERROR,
        (
            "The model refuses in train mode what it takes in eval mode: batch norm with one "
            "sample, usually. Use --training eval, or a larger batch with --input."
        ),
    )
    OUT_OF_MEMORY = (
        "CC307",
        "out-of-memory",
        Severity.UNKNOWN,
        (
            "The probe ran out of memory, so nothing is known of shapes. Give smaller sizes with "
            "--input."
        ),
    )
    PRODUCER_REFUSED = (
        "CC308",
        "producer-refused",
        Severity.UNKNOWN,
        "The first model refused its own example input, so nothing reached the seam.",
    )
    EXPLORED_ON_META = (
        "CC309",
        "explored-on-meta",
        Severity.NOTE,
        (
            "Shapes were explored on the meta device, which accepts what real kernels refuse; the"
            " verdict rests on a forward on the CPU."
        ),
    )
    INPUTS_NOT_SHARED = (
        "CC401",
        "inputs-not-shared",
        Severity.ERROR,
        (
            "In parallel every model gets the same input, and this one refuses what the first one"
            " takes."
        ),
    )
    MERGE_SIZES_DIFFER = (
        "CC402",
        "merge-sizes-differ",
        Severity.ERROR,
        (
            "cat needs equal sizes on every axis but the merge axis; add, mean and stack need "
            "equal sizes everywhere. --bridge linear brings the narrower side up; --dim picks "
            "another axis for cat."
        ),
    )
    MERGE_DIM_OUT_OF_RANGE = (
        "CC403",
        "merge-dim-out-of-range",
        Severity.ERROR,
        "--dim is no axis of the outputs that are merged.",
    )
    MERGE_DTYPE_DIFFERS = (
        "CC404",
        "merge-dtype-differs",
        Severity.NOTE,
        (
            "The outputs that are merged have other dtypes. PyTorch promotes them to one dtype "
            "that holds both."
        ),
    )
    MERGE_NEEDS_TENSORS = (
        "CC405",
        "merge-needs-tensors",
        Severity.ERROR,
        "A merge other than tuple takes one tensor of each model. --select picks it.",
    )
    GRADIENT_IS_CUT = (
        "CC501",
        "gradient-is-cut",
        Severity.NOTE,
        (
            "Some parameters get no gradient through the seam: an argmax, a detach or a cast to "
            "whole numbers stands on the way. The join behaves as the parts do."
        ),
    )
    LOST_IN_TRACING = (
        "CC502",
        "lost-in-tracing",
        Severity.NOTE,
        (
            "The model went into the join by tracing. Tracing keeps one path through the code, "
            "drops the ranges and guards of a torch.export archive, and fixes train or eval mode "
            "as it was."
        ),
    )
    BRIDGE_IS_UNTRAINED = (
        "CC503",
        "bridge-is-untrained",
        Severity.NOTE,
        (
            "The bridge holds a generated layer that nobody has trained. Its outputs mean nothing"
            " until it is fitted."
        ),
    )
    ONE_BATCH_SIZE_VERIFIED = (
        "CC504",
        "one-batch-size-verified",
        Severity.NOTE,
        (
            "Axis 0 of the input is not free, so the joined file was verified at one size with "
            "two seeds instead of at two batch sizes."
        ),
    )
    NO_CHECKSUMS = (
        "CC505",
        "no-checksums",
        Severity.NOTE,
        (
            "The archive was saved without checksums "
            "(torch.serialization.set_crc32_options(False)), so that a flipped bit in its weights"
            " cannot be seen."
        ),
    )
    NO_SUCH_FILE = (
        "CC901",
        "no-such-file",
        Severity.UNKNOWN,
        "There is nothing at this path, or it cannot be read.",
    )
    NOT_A_REGULAR_FILE = (
        "CC902",
        "not-a-regular-file",
        Severity.UNKNOWN,
        (
            "The path is a directory, a device or a pipe. Older SavedModel-like folders are not "
            "models here: save one file with torch.jit.save or torch.export.save."
        ),
    )
    EMPTY_FILE = (
        "CC903",
        "empty-file",
        Severity.UNKNOWN,
        "The file has no bytes: an interrupted download or save.",
    )
    TRUNCATED_ARCHIVE = (
        "CC904",
        "truncated-archive",
        Severity.UNKNOWN,
        (
            "The file starts as a zip archive and has no directory at its end: an interrupted "
            "download or save. Fetch or save it again."
        ),
    )
    GIT_LFS_POINTER = (
        "CC905",
        "git-lfs-pointer",
        Severity.UNKNOWN,
        "The file is the text that git-lfs leaves in the place of a large file. Run git lfs pull.",
    )
    ONNX_FILE = (
        "CC906",
        "onnx-file",
        Severity.UNKNOWN,
        (
            "The file is an ONNX model. composecli reads models saved by PyTorch: export the "
            "original module with torch.export.save or torch.jit.save."
        ),
    )
    STATE_DICT_ALONE = (
        "CC907",
        "state-dict-alone",
        Severity.UNKNOWN,
        (
            "The file holds weights and no code, so it cannot be run. Name a factory that makes "
            "the module: package.module:factory@weights.pt."
        ),
    )
    NOT_A_MODEL = (
        "CC908",
        "not-a-model",
        Severity.UNKNOWN,
        (
            "The file is readable and holds something else: text, a web page, another kind of "
            "archive, a bare tensor."
        ),
    )
    IMPORTS_NOT_TRUSTED = (
        "CC909",
        "imports-not-trusted",
        Severity.UNKNOWN,
        (
            "A pickle imports what it names and runs it. Modules made only of torch.nn classes "
            "load as they are; this one names more. If you know where the file comes from, "
            "--trust loads it."
        ),
    )
    HOOKS_NOT_TRUSTED = (
        "CC910",
        "hooks-not-trusted",
        Severity.UNKNOWN,
        (
            "The pickled module carries forward hooks or an overridden forward: code that runs "
            "beside or instead of the class's own. --trust keeps them; without it the file is "
            "refused."
        ),
    )
    LEGACY_FORMAT = (
        "CC911",
        "legacy-format",
        Severity.UNKNOWN,
        (
            "The file was saved by PyTorch before 1.6 or with "
            "_use_new_zipfile_serialization=False. Load it where it is trusted and save it again "
            "with torch.save."
        ),
    )
    KEYS_DO_NOT_FIT = (
        "CC912",
        "keys-do-not-fit",
        Severity.UNKNOWN,
        (
            "The weights do not fit the module that the factory made. --key picks the entry of "
            "the checkpoint that holds them."
        ),
    )
    COULD_NOT_LOAD = (
        "CC913",
        "could-not-load",
        Severity.UNKNOWN,
        "PyTorch could not load the file. The note holds what it said.",
    )
    FACTORY_FAILED = (
        "CC914",
        "factory-failed",
        Severity.UNKNOWN,
        "The factory could not be imported or called without arguments, or gave no nn.Module.",
    )
    NO_SUCH_DEVICE = (
        "CC915",
        "no-such-device",
        Severity.UNKNOWN,
        "The device that was asked for is not there.",
    )
    WORKER_CRASHED = (
        "CC916",
        "worker-crashed",
        Severity.UNKNOWN,
        (
            "The process that loads and runs models died. The note names the signal and what it "
            "was doing."
        ),
    )
    WORKER_TIMED_OUT = (
        "CC917",
        "worker-timed-out",
        Severity.UNKNOWN,
        "Loading or one forward took longer than --timeout and was ended.",
    )
    WORKER_ANSWERED_NONSENSE = (
        "CC918",
        "worker-answered-nonsense",
        Severity.UNKNOWN,
        (
            "The process that loads and runs models sent what is no answer: something inside it "
            "wrote over the protocol."
        ),
    )
    OUTPUT_EXISTS = (
        "CC919",
        "output-exists",
        Severity.UNKNOWN,
        "The output is there already. --force replaces it once the new file is verified.",
    )
    OUTPUT_IS_AN_INPUT = (
        "CC920",
        "output-is-an-input",
        Severity.UNKNOWN,
        "The output is one of the inputs, by path, link or hard link. Inputs are never changed.",
    )
    COULD_NOT_WRITE = (
        "CC921",
        "could-not-write",
        Severity.UNKNOWN,
        "The output could not be written: no such folder, no permission, no space left.",
    )
    COULD_NOT_BUILD = (
        "CC922",
        "could-not-build",
        Severity.UNKNOWN,
        (
            "The parts are compatible and PyTorch could not make one TorchScript module of them. "
            "The note holds what it said."
        ),
    )
    VERIFICATION_FAILED = (
        "CC923",
        "verification-failed",
        Severity.UNKNOWN,
        (
            "The file was written and does not do what its parts do one after the other, so it "
            "was not kept."
        ),
    )
    PACKAGE_MISSING = (
        "CC924",
        "package-missing",
        Severity.UNKNOWN,
        "A package that this file needs is not installed.",
    )
    INPUT_DOES_NOT_APPLY = (
        "CC925",
        "input-does-not-apply",
        Severity.UNKNOWN,
        (
            "An --input names an argument that the model does not have, or the sample file cannot"
            " be read."
        ),
    )
    PROGRAM_NOT_TRUSTED = (
        "CC926",
        "program-not-trusted",
        Severity.UNKNOWN,
        (
            "A TorchScript or torch.export archive is a program. This one holds an op, a class or"
            " a member that is not on the list of what computes and does nothing else. --allow-op"
            " NS::OP allows one op, --trust FILE a whole file."
        ),
    )
    RECORDS_DO_NOT_FIT = (
        "CC927",
        "records-do-not-fit",
        Severity.UNKNOWN,
        (
            "A record of the archive is shorter or longer than the tensors that are said to lie "
            "in it. PyTorch does not check this and would read beyond its end. The file is "
            "damaged, or made to do harm."
        ),
    )
    FILE_CHANGED = (
        "CC928",
        "file-changed",
        Severity.UNKNOWN,
        "The file was written to while composecli read it. Run it again when it is whole.",
    )
    NOT_THE_FILE_THAT_IS_TRUSTED = (
        "CC929",
        "not-the-file-that-is-trusted",
        Severity.UNKNOWN,
        (
            "--trust FILE@sha256:HEX vouches for one content, and the file has another. sha256sum"
            " FILE prints its own."
        ),
    )
    ISOLATION_MISSING = (
        "CC930",
        "isolation-missing",
        Severity.UNKNOWN,
        (
            "--isolation required was given, and this system lacks a measure that confines the "
            "process which runs models."
        ),
    )
    MEMORY_RAN_OUT = (
        "CC931",
        "memory-ran-out",
        Severity.UNKNOWN,
        (
            "Loading or running the models took more memory than --max-memory allows, or than "
            "there is."
        ),
    )
    A_BUG_OF_OURS = (
        "CC970",
        "a-bug-of-ours",
        Severity.UNKNOWN,
        (
            "composecli failed in a way that it should not. Run it again with --debug and report "
            "what it prints."
        ),
    )
