"""The page that runs a model in the browser: its files, its graphs, and ONNX Runtime in WebAssembly."""
