"""The benchmarks: `make bench`, or `python tests/bench/run.py NAME ...` for some of them.

Each prints a table of ratios against something run beside it. Nothing here asserts a time.
"""

import argparse
import importlib
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

BENCHES = {
    "executor": "detect and embed on Ray against a plain loop over the same stages",
    "nodes": "the same on clusters of 1, 2 and 3 Ray nodes on this machine",
    "models": "detect and embed on decoded images: time around the networks, and against "
    "insightface",
    "gpu": "detect with RetinaFace-R50 and embed with iresnet100 on one GPU",
    "again": "a run that has nothing to do, and a plan",
    "memory": "all processes of a run over photographs of 12 megapixels",
    "clean_truth": "what cleaning keeps of real photographs, as they are and with other people "
    "mixed in",
    "clean": "cleaning many people, and one of many faces, against scikit-learn loops",
    "crawl": "fetching images from local servers, beside img2dataset, and how well limits are kept",
    "scale": "planning, publishing and querying as a dataset grows, without images",
    "stats": "opening the catalogue, every statistic and the report, without images",
}


def machine() -> str:
    """What the figures were measured on."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = f"{len(lines)} x {lines[0]}" if lines else model
    meminfo = Path("/proc/meminfo")
    memory = (
        f"{int(meminfo.read_text().split()[1]) / 2**20:.0f} GiB"
        if meminfo.exists()
        else "unknown memory"
    )
    return (
        f"{model}, {memory}, {platform.system()} {platform.release()}, Python "
        f"{platform.python_version()}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=", ".join(f"{name} ({what})" for name, what in BENCHES.items()),
    )
    parser.add_argument(
        "--full", action="store_true", help="the large sizes: minutes to an hour, gigabytes of disk"
    )
    asked = parser.parse_args().names or list(BENCHES)
    unknown = [name for name in asked if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHES)}")
    print(f"machine: {machine()}")
    for name in asked:
        print(f"\n== {name}: {BENCHES[name]}", flush=True)
        importlib.import_module(f"tests.bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
