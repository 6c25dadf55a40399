"""Prints the results of an Autobahn report by chapter, and each case that is not as it should be; exits with 1 if there
is one besides those that are not strict. Usage: summary.py index.json AGENT"""

import collections
import json
import sys

CHAPTERS = {
    1: "framing", 2: "pings and pongs", 3: "reserved bits", 4: "opcodes", 5: "fragmentation", 6: "UTF-8",
    7: "closing", 9: "large messages, many messages", 10: "fragmented by the client",
}
COLUMNS = ["OK", "NON-STRICT", "INFORMATIONAL", "FAILED"]
GOOD = {"OK", "INFORMATIONAL", "UNIMPLEMENTED"}

cases = json.load(open(sys.argv[1]))[sys.argv[2]]
number = lambda case: [int(part) for part in case.split(".")]
chapters, bad, notes = collections.defaultdict(collections.Counter), 0, []
for case in sorted(cases, key=number):
    result, close = cases[case]["behavior"], cases[case]["behaviorClose"]
    for chapter in (number(case)[0], 0):
        chapters[chapter]["cases"] += 1
        chapters[chapter][result if result in COLUMNS or result == "UNIMPLEMENTED" else "FAILED"] += 1
        chapters[chapter]["bad closes"] += close not in GOOD
    if result not in GOOD or close not in GOOD:
        notes.append(f"{case}: {result}, close {close}, code {cases[case].get('remoteCloseCode')}")
        bad += result != "NON-STRICT" or close not in GOOD

columns = ["cases", *COLUMNS, "bad closes"]
print(f"{sys.argv[2]}\n| chapter | " + " | ".join(columns) + " |")
print("|---|" + "---|" * len(columns))
for chapter in [*sorted(set(chapters) - {0}), 0]:
    name = f"{chapter} {CHAPTERS.get(chapter, '')}" if chapter else "**all**"
    print(f"| {name} | " + " | ".join(str(chapters[chapter][column]) for column in columns) + " |")
print(*notes, sep="\n")
sys.exit(bool(bad))
