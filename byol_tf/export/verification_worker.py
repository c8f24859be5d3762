"""Runs snippets of `USAGE.md` on images in a process where byol_tf can't be imported.

Run as a script, `python -P verification_worker.py JOB.json`, since `python -m` would import
byol_tf first.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any


def main(job_path: str) -> None:
    """Runs the job that a JSON file describes.

    The job has the keys `blocked` (names of packages whose import has to fail), `folder` (the
    export folder), `snippets` (each with `code` and `takes_bytes`), `function` (the one that each
    of them defines), `images` (PNG files, or NumPy's) and `results`: the file for the answer, an
    `.npz` with the outputs of each snippet, float32 `[images, d]`, as `arr_0`, `arr_1`, ..., and
    the median time of one image, `milliseconds`.
    """
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    for package in job["blocked"]:
        sys.modules[package] = None  # type: ignore[assignment]  # an import raises ImportError
    import numpy as np

    os.chdir(job["folder"])
    representations, milliseconds = [], []
    for snippet in job["snippets"]:
        namespace: dict[str, Any] = {}
        exec(compile(snippet["code"], "USAGE.md", "exec"), namespace)
        images = [_read(path, snippet["takes_bytes"]) for path in job["images"]]
        # The first call for a size of images compiles a graph, and isn't timed.
        representations.append(np.stack([namespace[job["function"]](image) for image in images]))
        seconds = []
        for image in images:
            start = time.perf_counter()
            namespace[job["function"]](image)
            seconds.append(time.perf_counter() - start)
        milliseconds.append(1000.0 * statistics.median(seconds))
    np.savez(job["results"], *representations, milliseconds=np.array(milliseconds))


def _read(path: str, as_bytes: bool) -> Any:
    if as_bytes:
        return Path(path).read_bytes()
    if path.endswith(".npy"):
        import numpy as np

        return np.load(path)
    from PIL import Image

    return Image.open(path).convert("RGB")


if __name__ == "__main__":
    main(sys.argv[1])
