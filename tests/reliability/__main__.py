"""`python -m tests.reliability REPORT.jsonl`: the table of what was run, how often and for how
long, as Markdown."""

import json
import sys
from pathlib import Path


def main() -> None:
    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    newest = {(str(line["row"]), line["what"], line["test"]): line for line in lines}.values()
    print("| row | what was done, and what held | times | seconds | test |\n|---|---|---|---|---|")
    for line in sorted(
        newest, key=lambda line: (not isinstance(line["row"], int), line["row"], line["test"])
    ):
        test = line["test"].removeprefix("tests/reliability/")
        print(
            f"| {line['row']} | {line['what']} | {line['times']:,} | {line['seconds']:g} | "
            f"`{test}` |"
        )


if __name__ == "__main__":
    main()
