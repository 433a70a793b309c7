"""`python -m dianaq_service.keys OWNER`: make a key for an owner, and print it once."""

from __future__ import annotations

import argparse
import os
import sys

from dianaq.errors import DianaqError
from dianaq_service.database import Database
from dianaq_service.keys.service import add, make_key
from dianaq_service.settings import Settings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dianaq_service.keys", description=__doc__)
    parser.add_argument("owner", help="whom the key belongs to")
    owner = parser.parse_args().owner
    try:
        settings = Settings.from_env({**os.environ, "DIANAQ_OWNER": owner})
        database = Database(settings.database)
        database.create_tables()
    except DianaqError as error:
        print(f"dianaq: {error.detail}", file=sys.stderr)
        return 2
    key = make_key()
    with database.write() as session:
        add(session, owner, key)
    database.close()
    print(key)
    return 0


if __name__ == "__main__":
    sys.exit(main())
