"""Names of the files that stages leave for each other."""

#: ingest: canonical rows, dataset card, the frozen task.
DATA = "data.parquet"
CARD = "card.json"
TASK = "task.json"
#: validate: outcome of every check.
RESULT = "result.json"
#: corpus: tokens of a domain's text.
TEXT = "text.parquet"
#: pretrain: what decided the checkpoint, and what it gained.
PRETRAIN = "pretrain.json"
#: tune: folder of a task's tuning, the ledger of a method and budget, and its trials.
TUNED = "tuned"
LEDGER = "ledger.json"
TRIALS = "trials"
#: train: loss and selection curves.
HISTORY = "history.json"
#: evaluate: scores, and every prediction.
METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
#: select: the choice of a task, and the frozen run of each chosen method.
CHOICE = "choice.json"
RUN = "run.json"
#: export: model, certificate, and what serving needs.
MODEL = "model.onnx"
CERTIFICATE = "certificate.json"
SERVING = "serving.json"
TOKENIZER = "tokenizer.json"
#: share: what is in a folder of models on one base, and what each was compared with.
SHARED = "shared.json"
ADAPTER = "adapter.onnx_adapter"
#: compare: every score, their summary, the table and the report.
COMPARISON = "comparison.json"
SCORES = "scores.json"
MEANS = "means.json"
TABLE = "table.md"
REPORT = "report.html"
#: register: what each winner comes from, and its model card.
LINEAGE = "lineage.json"
MODEL_CARD = "model_card.md"
