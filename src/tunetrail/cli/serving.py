"""Commands that put a model to work."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunetrail.cli.output import print_json, print_table
from tunetrail.cli.root import JsonOption, app
from tunetrail.layout import MODEL

if TYPE_CHECKING:
    from tunetrail.serving.models import Model

_MODEL = "models:/NAME@champion, models:/NAME/VERSION, or a folder of the export stage."
_SERVED = f"{_MODEL.removesuffix('.')}, or one that `tunetrail share` wrote."


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help=_SERVED)],
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
        bool, typer.Option("--json", help="Print URL and models as a line of JSON, once ready.")
    ] = False,
) -> None:
    """Serve an exported model by HTTP: raw text in, class and scores (or a number, an answer) out.

    POST /predict, or /models/NAME/predict where there are several; GET /health, /ready, /models,
    /metrics, /openapi.json. Only the bytes that were certified (and registered) are served. SIGTERM
    and Ctrl-C end it once everything accepted is answered. With TUNETRAIL_SERVE_TOKEN set, requests
    need that token.

    \b
    Examples:
      tunetrail serve models:/sentiment-movie@champion --follow 60
      tunetrail serve runs/export/movie/lora --port 9000
      tunetrail serve runs/shared
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

    def ready(url: str, opened: Sequence[Model]) -> None:
        if as_json:
            told = [
                {"name": m.name, "version": m.version, "run": m.run, "sha256": m.sha256}
                for m in opened
            ]
            typer.echo(json.dumps({"url": url, "models": told}))
        else:
            typer.echo(f"{', '.join(m.shown for m in opened)}: ready at {url} (Ctrl-C ends it)")
            for one in opened:
                rows = json.dumps(dict.fromkeys(one.columns, "…"), ensure_ascii=False)
                path = "/predict" if len(opened) == 1 else f"/models/{one.name}/predict"
                typer.echo(
                    f"  curl {url}{path} -H 'Content-Type: application/json' "
                    f"-d '{{\"rows\": [{rows}]}}'"
                )
        sys.stdout.flush()

    server.serve(settings, ready)


@app.command()
def share(
    models: Annotated[
        list[str],
        typer.Argument(
            help="runs/export/TASK/METHOD, models:/NAME@champion or models:/NAME/VERSION."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write, for `tunetrail serve`.")],
    as_json: JsonOption = False,
) -> None:
    """Put models of one base and method into a folder, to be served by one session.

    The base is there once, and what each model trained is an adapter. Each is compared with its
    certified ONNX file on its whole test set. To be called in the project that trained them.

    \b
    Examples:
      tunetrail share runs/export/movie/lora runs/export/amazon/lora --out runs/shared
      tunetrail share models:/sentiment-movie@champion --out runs/shared
    """
    from tunetrail.serving.sharing import part_of, share

    shared = share([part_of(reference) for reference in models], out)
    if as_json:
        print_json(shared.model_dump(mode="json"))
        return
    base = (out / MODEL).stat().st_size
    print_table(
        ("model", "adapter bytes", "rows", "largest difference"),
        [
            (
                m.name,
                f"{m.adapter_bytes:,} bytes",
                f"{m.rows:,}",
                f"{m.largest_logit_difference:.2g}",
            )
            for m in shared.models
        ],
    )
    typer.echo(f"{out}: on a base of {base:,} bytes, as certified: tunetrail serve {out}")


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
