"""The model registry on MLflow: runs logged, models as versions, aliases moved. MLflow is imported inside of functions."""
