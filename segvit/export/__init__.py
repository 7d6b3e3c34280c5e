"""Export models to other runtimes: ONNX and torch.export."""
