"""The folder of a page that runs a model in the browser: its files, its graphs, and the runtime of ONNX in WebAssembly."""
