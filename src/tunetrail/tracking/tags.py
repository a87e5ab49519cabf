"""Tags that identify what is in MLflow already."""

RUN_TAG = "tunetrail.run"
CONTENT_TAG = "tunetrail.content"
ONNX_TAG = "tunetrail.onnx_sha256"
