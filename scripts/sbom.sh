#!/usr/bin/env bash
# Writes target/lictor.cdx.json and target/THIRD-PARTY-LICENCES.txt, and validates the first against CycloneDX's schema
# with CycloneDX's own library, from PyPI, in a virtual environment under target/tools.
set -euo pipefail
cd "$(dirname "$0")/.."
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
target=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p target/tools
python3 scripts/bill_of_materials.py cyclonedx --target "$target" > target/lictor.cdx.json
python3 scripts/bill_of_materials.py licences --target "$target" > target/THIRD-PARTY-LICENCES.txt
venv=target/tools/sbom
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import cyclonedx, jsonschema' 2>/dev/null; then
  echo "scripts/sbom.sh: fetching CycloneDX's validator" >&2
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'cyclonedx-python-lib[json-validation]==11.12.0'
fi
"$venv/bin/python" - target/lictor.cdx.json <<'EOF'
import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = open(sys.argv[1]).read()
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
if error:
    sys.exit(f"{sys.argv[1]} is not CycloneDX 1.6: {error}")
bill = json.loads(text)
known = {bill["metadata"]["component"]["bom-ref"], *(entry["bom-ref"] for entry in bill["components"])}
lost = {ref for entry in bill["dependencies"] for ref in [entry["ref"], *entry["dependsOn"]]} - known
if lost:
    sys.exit(f"{sys.argv[1]} names what it does not list: {sorted(lost)}")
print(f"{sys.argv[1]}: CycloneDX 1.6, {len(bill['components'])} components")
EOF
