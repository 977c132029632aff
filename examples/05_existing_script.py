"""A script you already have, unchanged, in a session; the same as `browsercloud run title.py …`."""

import asyncio
from pathlib import Path

from browsercloud import BrowserCloud

SCRIPT = Path(__file__).parent / "existing" / "title.py"


async def main() -> None:
    async with BrowserCloud() as client:
        address = "data:text/html,<title>Unchanged</title>"
        code = await client.puppeteer.run(SCRIPT, args=[address], browser="headless-shell")
        print("it ended with", code)


asyncio.run(main())
