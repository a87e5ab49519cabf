"""Commands that put a model to work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tunetrail.cli.output import print_json
from tunetrail.cli.root import JsonOption, app

_MODEL = "models:/NAME@champion, models:/NAME/VERSION, or a folder of the export stage."


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help=_MODEL)],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Rows given to the model at once; 1: no batching.")
    ] = 32,
    max_wait_ms: Annotated[
        float,
        typer.Option(min=0, help="That a request waits for others while the model is free."),
    ] = 2.0,
    queue: Annotated[
        int, typer.Option(min=1, help="Rows that may wait; beyond that: 503, Retry-After.")
    ] = 1024,
    max_rows: Annotated[int, typer.Option(min=1, help="Of a request.")] = 256,
    max_characters: Annotated[int, typer.Option(min=1, help="Of a text.")] = 20_000,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Of a request.")] = 4 << 20,
    threads: Annotated[
        int, typer.Option(min=0, help="That compute (0: as many as there are cores).")
    ] = 0,
    follow: Annotated[
        float | None,
        typer.Option(
            help="Look at the alias every so many seconds, and change to the version it is on."
        ),
    ] = None,
    linger: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds of service after the signal to stop, while /ready says 503."
        ),
    ] = 0.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print URL and model as a line of JSON, once ready.")
    ] = False,
) -> None:
    """Serve an exported model by HTTP: raw text in, class and scores (or a number, an answer) out.

    POST /predict; GET /health, /ready, /model, /metrics, /openapi.json. Only the bytes that were
    certified (and registered) are served. SIGTERM and Ctrl-C end it once everything accepted is
    answered. With TUNETRAIL_SERVE_TOKEN set, requests need that token.

    \b
    Examples:
      tunetrail serve models:/sentiment-movie@champion --follow 60
      tunetrail serve runs/export/movie/lora --port 9000
    """
    from tunetrail.serving import server
    from tunetrail.serving.contract import Limits
    from tunetrail.settings import parse

    settings = parse(
        server.Serving,
        {
            "model": model,
            "host": host,
            "port": port,
            "max_batch": max_batch,
            "max_wait_ms": max_wait_ms,
            "queue": queue,
            "limits": Limits(rows=max_rows, characters=max_characters, body_bytes=max_body_bytes),
            "threads": threads,
            "follow": follow,
            "linger": linger,
        },
        "tunetrail serve",
    )
    for warning in server.warnings(settings, server.token_of_environment()):
        typer.echo(f"warning: {warning}", err=True)

    def ready(url: str, opened: Any) -> None:
        if as_json:
            content = {
                "url": url,
                "name": opened.name,
                "version": opened.version,
                "run": opened.run,
                "sha256": opened.sha256,
            }
            typer.echo(json.dumps(content))
        else:
            rows = json.dumps(dict.fromkeys(opened.columns, "…"), ensure_ascii=False)
            typer.echo(
                f"{opened.shown} answers at {url} (Ctrl-C ends it):\n"
                f"  curl {url}/predict -H 'Content-Type: application/json' "
                f"-d '{{\"rows\": [{rows}]}}'"
            )
        sys.stdout.flush()

    server.serve(settings, ready)


@app.command()
def predict(
    file: Annotated[
        Path, typer.Argument(help="CSV, TSV, JSON Lines or Parquet, one text (or pair) a row.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help=f"{_MODEL} Default: the one that this project has registered."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write (default: FILE.predictions.csv, …).")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows given to the model at once.")] = 32,
    threads: Annotated[
        int, typer.Option(min=0, help="That compute (0: as many as there are cores).")
    ] = 0,
    text: Annotated[str | None, typer.Option(help="Column with the text, or the question.")] = None,
    pair: Annotated[
        str | None, typer.Option(help="Column with the second text, or the context.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the rows of a file with predictions beside them: all columns, then the new ones.

    Files of any size need little memory. The result appears when it is whole.

    \b
    Example:
      tunetrail predict tickets.csv --text message --model models:/support-tickets@champion
    """
    from tunetrail.serving.models import open_model
    from tunetrail.serving.predict import predict_file, registered_model

    reference = registered_model(Path("receipt.json")) if model is None else model
    target = file.with_suffix(f".predictions{file.suffix}") if out is None else out
    opened = open_model(reference, threads, batch)
    rows = predict_file(file, opened, target, (text, pair))
    if as_json:
        print_json(
            {
                "rows": rows,
                "out": str(target),
                "name": opened.name,
                "version": opened.version,
                "run": opened.run,
                "sha256": opened.sha256,
            }
        )
    else:
        typer.echo(f"{target}: {rows:,} rows, predicted by {opened.shown}")
