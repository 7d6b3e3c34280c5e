"""The web page of a model: `segvit app MODEL...`; server.py starts it, page.py lays it out, worker.py does the work."""
