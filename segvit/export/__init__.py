"""Models for other runtimes: ONNX, and torch.export."""
