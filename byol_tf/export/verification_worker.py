"""Runs the snippets of `USAGE.md` on photos, in a process that has their packages and nothing else.

Run by path, as `python -I -S verification_worker.py JOB.json`: it is no part of the library there,
and imports nothing of it.
"""

import importlib.util
import json
import os
import statistics
import sys
import time


def main(path: str) -> None:
    """Does the job in a JSON file, and writes its answer.

    The job has `packages` (the only folder of packages that is imported from), `folder` (to run
    in), `snippets` (name -> [code, "bytes" or "image"]), `photos` (PNG files), `out` (a folder).
    The answer: `<name>.npy` a snippet, float32 `[photos, d]`, and `times.json`, the median
    milliseconds of a photo.
    """
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    sys.path.append(job["packages"])
    for ours in ("byol_tf", "pipelines"):
        if importlib.util.find_spec(ours) is not None:
            raise SystemExit(f"{ours} can be imported here; the proof has to do without")
    import numpy as np

    os.chdir(job["folder"])
    times = {}
    for name, (code, takes) in job["snippets"].items():
        namespace = {}
        exec(compile(code, "USAGE.md", "exec"), namespace)
        photos = [_read(photo, takes) for photo in job["photos"]]
        outputs = [namespace["represent"](photo) for photo in photos]
        taken = []
        for photo in photos:
            began = time.perf_counter()
            namespace["represent"](photo)
            taken.append(time.perf_counter() - began)
        np.save(os.path.join(job["out"], f"{name}.npy"), np.stack(outputs))
        times[name] = 1000.0 * statistics.median(taken)
    with open(os.path.join(job["out"], "times.json"), "w", encoding="utf-8") as file:
        json.dump(times, file)


def _read(path: str, takes: str):
    if takes == "bytes":
        with open(path, "rb") as file:
            return file.read()
    from PIL import Image

    return Image.open(path).convert("RGB")


if __name__ == "__main__":
    main(sys.argv[1])
