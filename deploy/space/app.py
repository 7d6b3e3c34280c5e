"""A Space of the Hugging Face Hub that serves `segvit app` (README.md beside this file has the steps).

    python app.py            # http://127.0.0.1:7860

SEGVIT_MODEL names the models, with spaces between them. Default: model.safetensors beside this file.
A Space sets GRADIO_SERVER_NAME itself, and its proxy expects the page at port 7860.
"""

import os
import sys
from pathlib import Path

from segvit.cli.main import main

if __name__ == "__main__":
    models = os.environ.get("SEGVIT_MODEL", "").split() or [str(Path(__file__).with_name("model.safetensors"))]
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    port = os.environ.get("GRADIO_SERVER_PORT", "7860")
    sys.argv = ["segvit", "app", *models, "--host", host, "--port", port]
    main()
