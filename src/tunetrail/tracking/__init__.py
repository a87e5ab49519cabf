"""MLflow: runs, registered winners, and the model that it serves. Nothing else imports MLflow."""
