"""Arguments and help texts of `mimo-audio serve`. Imports nothing heavy."""

from pathlib import Path

from mimo_audio.cli.language_arguments import language_model
from mimo_audio.cli.parsing import Commands, command, positive


def add_serving_commands(commands: Commands) -> None:
    """serve."""
    serve = command(
        commands, "serve", "answer over HTTP, as OpenAI's audio endpoints do, and show a page to talk to",
        """
        Endpoints: /v1/audio/speech, /v1/audio/transcriptions, /v1/chat/completions, /v1/audio/voices, /v1/models,
        /v1/realtime (WebSocket), /health, /ready, /metrics, and a page at /. docs/serving.md tells them.
        API keys are those of --api-keys and of the variable MIMO_API_KEYS (separated by commas); without any, only this
        machine is listened to, unless --no-api-keys. SIGTERM and Ctrl-C let answers end first; again: at once.
        """,
        "mimo-audio serve", "mimo-audio serve --model MiMo-Audio-7B-Instruct/ --port 8080",
        "mimo-audio serve --host 0.0.0.0 --api-keys keys.txt --tls-cert cert.pem --tls-key key.pem",
    )  # fmt: skip
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="(default: %(default)s)")
    serve.add_argument("--name", metavar="NAME", help="of the model, for clients (default: that of its folder)")
    language_model(serve)

    access = serve.add_argument_group("who may ask")
    keys = access.add_mutually_exclusive_group()
    keys.add_argument("--api-keys", type=Path, metavar="FILE", help="API keys, one a line")
    keys.add_argument("--no-api-keys", action="store_true", help="answer anybody who reaches the address")
    access.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate (PEM), for https")
    access.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    access.add_argument(
        "--cors", action="append", default=[], metavar="ORIGIN",
        help="let web pages of another origin ask, as https://example.org; * for all; may be repeated",
    )  # fmt: skip

    limits = serve.add_argument_group("limits")
    limits.add_argument("--slots", type=positive, default=8, metavar="N", help="answers made at once (default: 8)")
    limits.add_argument("--max-waiting", type=int, default=32, metavar="N", help="more that may wait (default: 32)")
    limits.add_argument("--max-per-minute", type=positive, metavar="N", help="requests of a key, or of an address")
    limits.add_argument("--max-upload-mb", type=positive, default=25, metavar="MB", help="(default: %(default)s)")
    limits.add_argument(
        "--max-audio-seconds", type=float, default=600.0, metavar="S", help="of a recording (default: %(default)g)"
    )
    limits.add_argument(
        "--max-answer-seconds", type=float, default=300.0, metavar="S",
        help="an answer ends then with what there is (default: %(default)g)",
    )  # fmt: skip
    limits.add_argument(
        "--drain-seconds", type=positive, default=30, metavar="S",
        help="how long answers may go on when the server is told to stop (default: %(default)s)",
    )  # fmt: skip
    serve.add_argument("--json-logs", action="store_true", help="the log as an object a line")
