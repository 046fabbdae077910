"""The rules: every kind of finding and of problem, with its code, name, severity and help."""

from __future__ import annotations

from enum import StrEnum


class Severity(StrEnum):
    """The effect of a finding on the verdict: a warning and a note have none.

    A warning is counted beside the verdict.
    """

    ERROR = "error"
    UNKNOWN = "unknown"
    WARNING = "warning"
    NOTE = "note"


_EXIT_CODES = {Severity.ERROR: 1, Severity.UNKNOWN: 3, Severity.WARNING: 0, Severity.NOTE: 0}
# By the codes of rules. 128 and the number of a signal is what shells make of that signal.
_OWN_EXIT_CODES = {
    "CC919": 2,
    "CC920": 2,
    "CC942": 130,
    "CC943": 143,
    "CC950": 2,
    "CC951": 2,
    "CC952": 2,
    "CC960": 2,
    "CC961": 2,
    "CC970": 70,
}


class Rule(StrEnum):
    """One kind of finding or problem. Its value is the code: `Rule("CC203") is Rule.SIZE_DIFFERS`.

    `slug` is its name on the command line, and `help` is what `composecli explain` prints. Codes,
    slugs and severities are public: scripts depend on them.
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

    # CC1xx: how the outputs of one model become the inputs of the next.
    INPUT_COUNT_DIFFERS = (
        "CC101",
        "input-count-differs",
        Severity.ERROR,
        (
            "The consumer needs a different number of inputs than the producer has outputs. "
            "Select an output with --select, or use models whose counts match."
        ),
    )
    STRUCTURE_DIFFERS = (
        "CC102",
        "structure-differs",
        Severity.ERROR,
        (
            "The producer returns a tuple, list or dict where the consumer expects a tensor, or "
            "it returns keys that are not inputs of the consumer. --select PORT selects one "
            "output: --select logits, --select '[0]'; in a chain, 2:logits names the second "
            "model."
        ),
    )
    NO_SUCH_OUTPUT = (
        "CC103",
        "no-such-output",
        Severity.ERROR,
        (
            "--select names an output that the model does not have. The notes list the outputs "
            "that it has."
        ),
    )
    # CC2xx: the dtype and the dims of two ports.
    DTYPE_DIFFERS = (
        "CC201",
        "dtype-differs",
        Severity.ERROR,
        (
            "The dtype of the producer's output is not the dtype that the consumer expects. "
            "Numbers can be cast to floats (--bridge auto). Floats are never cast to ids, "
            "because the resulting ids would be meaningless."
        ),
    )
    RANK_DIFFERS = (
        "CC202",
        "rank-differs",
        Severity.ERROR,
        (
            "The producer's output has a different number of axes than the consumer expects. "
            "--bridge auto flattens trailing axes or squeezes axes of size 1 if that makes them "
            "fit."
        ),
    )
    SIZE_DIFFERS = (
        "CC203",
        "size-differs",
        Severity.ERROR,
        (
            "One axis has a different size than the consumer expects. --bridge linear adds an "
            "nn.Linear along that axis. The layer is untrained and has to be fitted before its "
            "outputs mean anything."
        ),
    )
    SIZE_OUT_OF_RANGE = (
        "CC204",
        "size-out-of-range",
        Severity.ERROR,
        (
            "The size is not one that the consumer accepts: it is too small, too large, or not "
            "a multiple of the required step; or the sizes break a relation of its contract, such "
            "as C*H*W == 1024. In a consumer of any rank, --bridge linear flattens the axes and "
            "adds an nn.Linear behind them, which is untrained, if their product is wrong."
        ),
    )
    FITS_ONLY_AT_SOME_SIZES = (
        "CC205",
        "fits-only-at-some-sizes",
        Severity.NOTE,
        (
            "The pair fits at the example input, but only under the condition that is shown, in "
            "the symbols of the first model's input. It was run at sizes on both sides of the "
            "condition. --strict requires a fit at every size that the producer admits, and "
            "turns this note into an error (CC206)."
        ),
    )
    NOT_AT_EVERY_SIZE = (
        "CC206",
        "not-at-every-size",
        Severity.ERROR,
        (
            "With --strict: the producer admits sizes at which the pair does not fit. The "
            "message states the condition, and the notes the smallest sizes that failed when "
            "the pair was run."
        ),
    )
    SIZES_NOT_KNOWN = (
        "CC207",
        "sizes-not-known",
        Severity.UNKNOWN,
        (
            "A dim of the producer or of the consumer is not known as an expression of the "
            "input, so it cannot be decided whether the pair fits at other sizes than that of "
            "the example: at any, if it fails there, or at every one, with --strict. Or the pair "
            "failed wherever it was tried, and no reason was found why other sizes fail, too. "
            "State the input with --input, or use torch.export with dynamic shapes."
        ),
    )
    FITS_BY_BROADCASTING = (
        "CC208",
        "fits-by-broadcasting",
        Severity.UNKNOWN,
        (
            "The consumer ran, but only because a size of 1 was broadcast against a parameter "
            "of another size. Such a seam runs and even trains, but is rarely intended, so it "
            "is not called compatible."
        ),
    )
    SIZE_FOLLOWS_VALUES = (
        "CC209",
        "size-follows-values",
        Severity.UNKNOWN,
        (
            "An axis of the producer's output has several sizes for inputs of the same sizes, "
            "because its forward reads their values: it branches on them, or selects by them. "
            "The consumer accepts only some of these sizes, so no answer holds for every input."
        ),
    )
    SAMPLES_ARE_MIXED = (
        "CC210",
        "samples-are-mixed",
        Severity.WARNING,
        (
            "The producer keeps the samples of a batch apart, and the consumer, given that tensor, "
            "mixes them or loses their axis: each row of its result does not belong to one sample. "
            "The pair runs, but computes something else than it seems to. The usual causes are a "
            "recurrent or attention layer without batch_first=True, a view that does not keep the "
            "size of the batch, and a reduction over axis 0. --fail-on warning makes it exit 1."
        ),
    )
    BATCH_NORM_TRAINS = (
        "CC211",
        "batch-norm-trains",
        Severity.NOTE,
        (
            "A batch norm in train mode normalizes by the mean and variance of the whole batch, so "
            "that each sample's result depends on the others. --training eval uses the statistics "
            "that were collected in training."
        ),
    )
    SAMPLES_NOT_KNOWN = (
        "CC212",
        "samples-not-known",
        Severity.NOTE,
        (
            "The producer keeps the samples of a batch apart, and it could not be decided whether "
            "the consumer, given that tensor, does. The note says why: an op through which they "
            "cannot be followed, or a result that other samples reach without a change of its "
            "values, as in a product with zeros. To find out, change one sample of a real batch "
            "and compare the results of the others."
        ),
    )
    # CC3xx: running the models.
    REFUSED_BY_CONSUMER = (
        "CC301",
        "refused-by-consumer",
        Severity.ERROR,
        (
            "The consumer failed when it ran on the producer's output. The finding names the "
            "submodule and the op that failed."
        ),
    )
    DEPENDS_ON_VALUES = (
        "CC302",
        "depends-on-values",
        Severity.UNKNOWN,
        (
            "The forward failed on these values but succeeds on zeros of the same sizes. The "
            "cause is a check on the data, or ids that are out of range, and not a mismatch of "
            "shapes. Provide a real sample with --input @sample.pt."
        ),
    )
    COMPARISON_AND_PROBE_DISAGREE = (
        "CC303",
        "comparison-and-probe-disagree",
        Severity.UNKNOWN,
        (
            "According to the contracts the pair does not fit, but the probe ran, or the other "
            "way round. The contract may be wrong: it rests on the evidence that is shown. "
            "State the input with --input."
        ),
    )
    CONTRACT_NOT_FOUND = (
        "CC304",
        "contract-not-found",
        Severity.UNKNOWN,
        (
            "No input that this model accepts was found, so nothing is known about its seams. The "
            "notes list what was tried and how far it got. State the input: --input "
            "'float32[N,3,224,224]', once for each input in order, or by name: --input "
            "'ids=int64[1,16]' --input 'rate:=16000'. Inputs that are lists or dicts are read "
            "from a file: --input @sample.pt."
        ),
    )
    DEVICE_BAKED_IN = (
        "CC305",
        "device-baked-in",
        Severity.NOTE,
        (
            "The traced or scripted model contains a device as a constant. It runs only on that "
            "device, however it is loaded. Trace it again on the device that it is meant to "
            "run on."
        ),
    )
    RUNS_IN_EVAL_MODE = (
        "CC306",
        "runs-in-eval-mode",
        Severity.ERROR,
        (
            "The model fails in train mode on an input that it accepts in eval mode. The usual "
            "cause is batch norm with a single sample. Use --training eval, or a larger batch "
            "with --input."
        ),
    )
    OUT_OF_MEMORY = (
        "CC307",
        "out-of-memory",
        Severity.UNKNOWN,
        (
            "The probe ran out of memory, so nothing is known about the shapes. State smaller "
            "sizes with --input."
        ),
    )
    PRODUCER_REFUSED = (
        "CC308",
        "producer-refused",
        Severity.UNKNOWN,
        (
            "No output reached the seam: the process of the producer died of its input, or an "
            "earlier seam does not fit."
        ),
    )
    EXPLORED_ON_META = (
        "CC309",
        "explored-on-meta",
        Severity.NOTE,
        (
            "Shapes were explored on the meta device, which accepts inputs that real kernels "
            "reject. The verdict rests on a forward on the CPU."
        ),
    )
    STATED_INPUT_REFUSED = (
        "CC310",
        "stated-input-refused",
        Severity.ERROR,
        (
            "The first model fails on the input that --input states for it, so nothing reaches "
            "the seam. The finding names the submodule and the op that failed. Without --input, "
            "the input is inferred."
        ),
    )
    IDS_OUT_OF_RANGE = (
        "CC311",
        "ids-out-of-range",
        Severity.ERROR,
        (
            "The producer gives ids that the consumer looks up in a table of fewer rows. The "
            "finding has the id that failed. Use models of the same vocabulary, or an output of as "
            "many classes as the table has rows."
        ),
    )
    IDS_MAY_NOT_FIT = (
        "CC312",
        "ids-may-not-fit",
        Severity.NOTE,
        (
            "The producer's ids are positions along an axis that is longer than the consumer's "
            "table has rows. It gave none without a row at the values that were tried."
        ),
    )
    # CC4xx: merging the outputs of parallel models.
    INPUTS_NOT_SHARED = (
        "CC401",
        "inputs-not-shared",
        Severity.ERROR,
        (
            "In parallel mode every model receives the same input, and this model fails on an "
            "input that the first model accepts."
        ),
    )
    MERGE_SIZES_DIFFER = (
        "CC402",
        "merge-sizes-differ",
        Severity.ERROR,
        (
            "cat needs equal sizes on every axis except the merge axis; add, mean and stack "
            "need equal sizes on every axis. --bridge linear widens the narrower output; --dim "
            "selects another axis for cat."
        ),
    )
    MERGE_DIM_OUT_OF_RANGE = (
        "CC403",
        "merge-dim-out-of-range",
        Severity.ERROR,
        "--dim names an axis that the merged outputs do not have.",
    )
    MERGE_DTYPE_DIFFERS = (
        "CC404",
        "merge-dtype-differs",
        Severity.NOTE,
        (
            "The merged outputs have different dtypes. PyTorch promotes them to one dtype that "
            "can hold both."
        ),
    )
    MERGE_NEEDS_TENSORS = (
        "CC405",
        "merge-needs-tensors",
        Severity.ERROR,
        ("Every merge except tuple needs one tensor from each model. Select it with --select."),
    )
    # CC5xx: joined files.
    GRADIENT_IS_CUT = (
        "CC501",
        "gradient-is-cut",
        Severity.NOTE,
        (
            "Some parameters receive no gradient through the seam, because of an argmax, a "
            "detach or a cast to integers on the way. The joined model behaves like the "
            "separate models."
        ),
    )
    LOST_IN_TRACING = (
        "CC502",
        "lost-in-tracing",
        Severity.NOTE,
        (
            "The model was traced so that it could be joined. Tracing keeps one path through "
            "the code, and fixes the model in its current train or eval mode. The file checks "
            "the ranges and guards of a torch.export archive. Plain values of the call, such as "
            "an integer, become constants, which the file checks. Objects that TorchScript does "
            "not have become None in the result, and an autograd function loses its own backward."
        ),
    )
    BRIDGE_IS_UNTRAINED = (
        "CC503",
        "bridge-is-untrained",
        Severity.NOTE,
        (
            "The bridge contains a generated layer that nobody has trained. Its outputs are "
            "meaningless until it is fitted."
        ),
    )
    ONE_BATCH_SIZE_VERIFIED = (
        "CC504",
        "one-batch-size-verified",
        Severity.NOTE,
        (
            "The joined models accept no other size of any axis, so the joined file was verified "
            "at one size with two seeds instead of at two sizes."
        ),
    )
    NO_CHECKSUMS = (
        "CC505",
        "no-checksums",
        Severity.NOTE,
        (
            "The archive was saved without checksums "
            "(torch.serialization.set_crc32_options(False)), so a flipped bit in its weights "
            "cannot be detected."
        ),
    )
    TRAINING_MODE_WRITTEN = (
        "CC506",
        "training-mode-written",
        Severity.NOTE,
        (
            "With --training eval or train the models are put into that mode before they are "
            "joined, and the joined file is in that mode when it is loaded. Its train() and "
            "eval() methods change it. Without the option each model keeps its saved mode."
        ),
    )
    HOLDS_AT_SOME_SIZES = (
        "CC507",
        "holds-at-some-sizes",
        Severity.NOTE,
        (
            "The model was traced, and its code turns a size into a number: len(x), range(len(x)), "
            "int(x.shape[0]), a loop over a tensor, a branch. A trace keeps that number, so the "
            "joined file checks its input where the code did this, and refuses one with another "
            "number. It was verified at the sizes for which it holds. To keep every size, write "
            "the code so that torch.jit.script accepts it, or use x.shape[0] only in view, "
            "reshape, arange and the like. With --strict such a file is not written."
        ),
    )
    VALUE_BUILT_IN = (
        "CC508",
        "value-built-in",
        Severity.NOTE,
        (
            "--input 2:rate:=16000 states a plain value for a later model. Nothing in the chain "
            "produces it, so the joined file has it as a constant, and no input for it."
        ),
    )
    # CC8xx: the items of suites.
    NOT_AS_EXPECTED = (
        "CC801",
        "not-as-expected",
        Severity.ERROR,
        (
            "An item of a suite found something else than the suite expects: another verdict, or "
            "another contract. If what it found is right, change what the item expects."
        ),
    )

    # CC9xx: problems that keep a command from answering.
    NO_SUCH_FILE = (
        "CC901",
        "no-such-file",
        Severity.UNKNOWN,
        "There is no file at this path, or the file cannot be read.",
    )
    NOT_A_REGULAR_FILE = (
        "CC902",
        "not-a-regular-file",
        Severity.UNKNOWN,
        (
            "The path is a directory, a device or a pipe. Folders in the style of SavedModel "
            "are not supported: save one file with torch.jit.save or torch.export.save."
        ),
    )
    EMPTY_FILE = (
        "CC903",
        "empty-file",
        Severity.UNKNOWN,
        "The file is empty. The usual cause is an interrupted download or save.",
    )
    TRUNCATED_ARCHIVE = (
        "CC904",
        "truncated-archive",
        Severity.UNKNOWN,
        (
            "The file starts like a zip archive but is incomplete or damaged, or two readers "
            "could read it differently. The usual cause is an interrupted download or save. "
            "Download or save it again."
        ),
    )
    GIT_LFS_POINTER = (
        "CC905",
        "git-lfs-pointer",
        Severity.UNKNOWN,
        ("The file is the text that git-lfs stores in place of a large file. Run git lfs pull."),
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
            "The file contains weights but no code, so it cannot be run. Name a factory that "
            "builds the module, or its class: package.module:factory@weights.pt, net.py:Net@w.pt."
        ),
    )
    NOT_A_MODEL = (
        "CC908",
        "not-a-model",
        Severity.UNKNOWN,
        (
            "The file can be read but is not a model: it is text, a web page, another kind of "
            "archive, or a bare tensor, for example."
        ),
    )
    IMPORTS_NOT_TRUSTED = (
        "CC909",
        "imports-not-trusted",
        Severity.UNKNOWN,
        (
            "Loading a pickle imports and runs what the pickle names. Modules that consist only "
            "of torch.nn classes load without trust, whatever is beside them in the file; this one "
            "names something else. If you have the code of its class, name that: "
            "train.py:Net@net.pth reads the tensors of the pickle and does not run it. If the "
            "classes are those of a well-known library that is installed, such as timm, "
            "--trust-classes timm makes empty objects of them without calling their constructors. "
            "If you know where the file comes from, --trust loads it."
        ),
    )
    HOOKS_NOT_TRUSTED = (
        "CC910",
        "hooks-not-trusted",
        Severity.UNKNOWN,
        (
            "The pickled module carries forward hooks or an overridden forward: code that runs "
            "in addition to, or instead of, the code of its class. --trust keeps it; without "
            "--trust the file is refused."
        ),
    )
    LEGACY_FORMAT = (
        "CC911",
        "legacy-format",
        Severity.UNKNOWN,
        (
            "The file is a tar archive, as PyTorch saved models before 2017. Load it somewhere "
            "where it is trusted, and save it again with torch.save. The format that followed, "
            "until PyTorch 1.6, is read."
        ),
    )
    KEYS_DO_NOT_FIT = (
        "CC912",
        "keys-do-not-fit",
        Severity.UNKNOWN,
        (
            "The weights do not fit the module that the factory built, or several entries of the "
            "checkpoint could be meant. --key selects the entry that holds the weights or the "
            "module."
        ),
    )
    COULD_NOT_LOAD = (
        "CC913",
        "could-not-load",
        Severity.UNKNOWN,
        "PyTorch could not load the file. The note contains its error message.",
    )
    FACTORY_FAILED = (
        "CC914",
        "factory-failed",
        Severity.UNKNOWN,
        (
            "A module that --import names could not be imported, or the factory could not be "
            "imported or called, or did not return an nn.Module. A factory is a class or a "
            "function: file.py:Net or package.module:make, with literal arguments if it needs "
            "any ('net.py:Net(10, act=\"relu\")'). --import FOLDER adds a folder in "
            "which its imports are found."
        ),
    )
    NO_SUCH_DEVICE = (
        "CC915",
        "no-such-device",
        Severity.UNKNOWN,
        "The requested device is not available on this machine.",
    )
    WORKER_CRASHED = (
        "CC916",
        "worker-crashed",
        Severity.UNKNOWN,
        (
            "The process that loads and runs models died. The note names the signal and what "
            "the process was doing."
        ),
    )
    WORKER_TIMED_OUT = (
        "CC917",
        "worker-timed-out",
        Severity.UNKNOWN,
        "Loading a model, or one forward, took longer than --timeout and was stopped.",
    )
    WORKER_ANSWERED_NONSENSE = (
        "CC918",
        "worker-answered-nonsense",
        Severity.UNKNOWN,
        (
            "The process that loads and runs models sent an invalid message, because something "
            "inside it wrote over the protocol."
        ),
    )
    OUTPUT_EXISTS = (
        "CC919",
        "output-exists",
        Severity.UNKNOWN,
        (
            "The output file already exists. --force replaces it once the new file is verified; "
            "the help of the message has a name that is free."
        ),
    )
    OUTPUT_IS_AN_INPUT = (
        "CC920",
        "output-is-an-input",
        Severity.UNKNOWN,
        (
            "The output is one of the inputs, by path, symbolic link or hard link. Inputs are "
            "never changed."
        ),
    )
    COULD_NOT_WRITE = (
        "CC921",
        "could-not-write",
        Severity.UNKNOWN,
        (
            "The output could not be written: the folder does not exist, permission is denied, "
            "or no space is left."
        ),
    )
    COULD_NOT_BUILD = (
        "CC922",
        "could-not-build",
        Severity.UNKNOWN,
        (
            "The models are compatible, but PyTorch could not build one TorchScript module from "
            "them. The note contains its error message."
        ),
    )
    VERIFICATION_FAILED = (
        "CC923",
        "verification-failed",
        Severity.UNKNOWN,
        (
            "The file was written, but its results differ from those of the separate models, so "
            "it was not kept."
        ),
    )
    PACKAGE_MISSING = (
        "CC924",
        "package-missing",
        Severity.UNKNOWN,
        (
            "A module of Python that this file needs is not installed or not loaded: a package, "
            "the class of a pickle, or the library that registers an op such as torchvision::nms. "
            "--import NAME imports a module or a file.py before the models, and a folder is "
            "searched for modules. Its code runs, so this is consent."
        ),
    )
    INPUT_DOES_NOT_APPLY = (
        "CC925",
        "input-does-not-apply",
        Severity.UNKNOWN,
        (
            "An --input names an argument that the model does not have, or the sample file "
            "cannot be read."
        ),
    )
    PROGRAM_NOT_TRUSTED = (
        "CC926",
        "program-not-trusted",
        Severity.UNKNOWN,
        (
            "A TorchScript or torch.export archive is a program. This one contains an op, a "
            "class or a member that is not on the list of those that only compute, or source or "
            "values that PyTorch does not write. --allow-op NS::OP allows one op, --trust FILE a "
            "whole file."
        ),
    )
    RECORDS_DO_NOT_FIT = (
        "CC927",
        "records-do-not-fit",
        Severity.UNKNOWN,
        (
            "A record of the archive is shorter or longer than the tensors that it should "
            "contain. PyTorch does not check this and would read past its end. The file is "
            "damaged, or crafted to do harm."
        ),
    )
    FILE_CHANGED = (
        "CC928",
        "file-changed",
        Severity.UNKNOWN,
        (
            "The file was changed while composecli was reading it. Run the command again when "
            "the file is complete."
        ),
    )
    NOT_THE_FILE_THAT_IS_TRUSTED = (
        "CC929",
        "not-the-file-that-is-trusted",
        Severity.UNKNOWN,
        (
            "--trust FILE@sha256:HEX trusts one particular content, and the file has another. The "
            "hash of an index covers the index alone, so each shard that it names needs one, too. "
            "sha256sum FILE prints the hash of the file."
        ),
    )
    ISOLATION_MISSING = (
        "CC930",
        "isolation-missing",
        Severity.UNKNOWN,
        (
            "A measure that isolates the process that runs models is missing. With --isolation "
            "required, and if the system has the measure but could not apply it, nothing is run. "
            "With --isolation best, untrusted models run without it, and this is a warning. The "
            "notes say what is missing and why."
        ),
    )
    MEMORY_RAN_OUT = (
        "CC931",
        "memory-ran-out",
        Severity.UNKNOWN,
        (
            "Loading or running the models needed more memory than --max-memory allows, or than "
            "the machine has."
        ),
    )
    TOO_MANY_OUTPUTS = (
        "CC932",
        "too-many-outputs",
        Severity.UNKNOWN,
        (
            "The model returns more tensors than composecli describes: each one takes time to "
            "learn about, and a line on the screen."
        ),
    )
    INVALID_CONTRACT_FILE = (
        "CC933",
        "invalid-contract-file",
        Severity.UNKNOWN,
        (
            "A contract file has a mistake: the message names the line, the key and what is "
            "expected there. 'composecli inspect MODEL --write-contract FILE' writes a correct "
            "one, and 'composecli schema contract' prints the JSON Schema for editors."
        ),
    )
    CONTRACT_ALONE = (
        "CC934",
        "contract-alone",
        Severity.UNKNOWN,
        (
            "A contract file says what a model accepts and returns, and holds no module. It can "
            "be checked against models and other contracts, but not joined. Join the model that "
            "it describes."
        ),
    )
    SYSTEM_REFUSED = (
        "CC940",
        "system-refused",
        Severity.UNKNOWN,
        (
            "The operating system refused something that composecli needs in order to run: an "
            "open file (ulimit -n), a process (ulimit -u), memory, or space on a disk. The title "
            "has the reason of the system."
        ),
    )
    COULD_NOT_PRINT = (
        "CC941",
        "could-not-print",
        Severity.UNKNOWN,
        (
            "The report could not be written to stdout, because stdout is closed or its disk is "
            "full. A reader that closes a pipe early, as head does, is not an error."
        ),
    )
    INTERRUPTED = (
        "CC942",
        "was-interrupted",
        Severity.UNKNOWN,
        "Ctrl-C (SIGINT) ended the command before any result was known.",
    )
    TERMINATED = (
        "CC943",
        "was-terminated",
        Severity.UNKNOWN,
        "SIGTERM ended the command. No output file was written.",
    )
    USAGE = (
        "CC950",
        "usage-error",
        Severity.UNKNOWN,
        (
            "The command line has a wrong argument or option. With --format json the error is "
            "the report; otherwise the usage of the command is printed with it."
        ),
    )
    OUTPUT_IS_NOT_A_FILE = (
        "CC951",
        "output-is-not-a-file",
        Severity.UNKNOWN,
        "The output is a folder, a device, a pipe or a socket. Name a file with -o.",
    )
    OUTPUT_IS_ANOTHER_FORMAT = (
        "CC952",
        "output-is-another-format",
        Severity.UNKNOWN,
        (
            "The name of the output ends like that of another format, such as .pt2. join writes "
            "TorchScript, which is named .pt."
        ),
    )
    INVALID_SUITE = (
        "CC960",
        "invalid-suite",
        Severity.UNKNOWN,
        (
            "A suite file has a mistake: the message names the line, the key and the nearest one "
            "that is valid. 'composecli schema suite' prints the JSON Schema for editors."
        ),
    )
    NO_SUCH_REVISION = (
        "CC961",
        "no-such-revision",
        Severity.UNKNOWN,
        (
            "--changed-since needs a commit, branch or tag of the git repository that holds the "
            "suite file. A shallow clone may lack it: fetch it first."
        ),
    )
    CODE_OF_A_SUITE = (
        "CC962",
        "code-of-a-suite",
        Severity.UNKNOWN,
        (
            "A suite names a factory, whose code would run with your permissions. A suite file may "
            "come from somebody else, so its code runs only if the command line trusts the suite: "
            "--trust FILE.toml. FILE.toml@sha256:HEX pins its content."
        ),
    )
    ITEM_NOT_SUPPORTED = (
        "CC963",
        "item-not-supported",
        Severity.UNKNOWN,
        "This version of composecli reads an item of this kind and cannot run it yet.",
    )
    A_BUG_OF_OURS = (
        "CC970",
        "a-bug-of-ours",
        Severity.UNKNOWN,
        (
            "composecli failed in a way that it should not. Run it again with --debug and "
            "report what it prints."
        ),
    )

    @property
    def is_problem(self) -> bool:
        """Whether it keeps a command from answering, and is not a finding about a seam."""
        return self.value.startswith("CC9")

    @property
    def exit_code(self) -> int:
        """The exit code of a command that has no worse finding or problem."""
        own = _OWN_EXIT_CODES.get(self.value)
        if own is not None:
            return own
        return _EXIT_CODES[self.severity]

    @property
    def bridgeable(self) -> bool:
        """Whether a bridge may resolve a finding of this rule."""
        return self in (
            Rule.DTYPE_DIFFERS,
            Rule.RANK_DIFFERS,
            Rule.SIZE_DIFFERS,
            Rule.SIZE_OUT_OF_RANGE,
            Rule.MERGE_SIZES_DIFFER,
        )

    @property
    def about_every_size(self) -> bool:
        """Whether a finding is about sizes other than the example's, which no probe tests."""
        return self is Rule.NOT_AT_EVERY_SIZE
