"""Installs the package `las`, the console script of the same name, and the extras `demo` and `dev`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "las/__init__.py").read_text(encoding="utf-8")).group(1)

setup(
    name="las",
    version=VERSION,
    description="Attention-based speech recognition: Listen, Attend and Spell and its family",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["las", "las.*"]),
    package_data={"las": ["pretrained/*/*", "pretrained/*/*/*", "evaluate/page.css", "evaluate/page.js"]},
    entry_points={"console_scripts": ["las=las.cli:main"]},
    install_requires=[
        "torch==2.11.*",
        "torchaudio==2.11.0",  # 2.11.1 says torch>=2.11 but wants symbols of a later torch
        "numpy>=1.26",
        "soundfile>=0.13",
        "av>=14",
        "sentencepiece>=0.2",
        "webdataset>=1.0.2",
        "fsspec>=2025.3",
        "jiwer>=4",
        "omegaconf>=2.3",
        "typer>=0.15",
        "rich>=13",
        "safetensors>=0.5",
        "tensorboard>=2.18",
        "matplotlib>=3.9",
    ],
    extras_require={
        "demo": ["espeakng-loader>=0.2"],
        "dev": ["pytest>=8", "hypothesis>=6", "ruff>=0.9", "mypy>=1.14"],
    },
)
