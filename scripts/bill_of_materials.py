"""What is linked into lictor, from Cargo.lock: `cyclonedx` is the software bill of materials (CycloneDX 1.6, JSON), `licences` the texts that
have to go with the binary. The same commit gives the same bytes; times come from SOURCE_DATE_EPOCH."""

import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

TEXTS = re.compile(r"^(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICEN[CS]E)", re.IGNORECASE)
ORIGIN = "lictor"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["cyclonedx", "licences"])
    parser.add_argument("--target", required=True)
    options = parser.parse_args()
    packages, edges = linked(options.target)
    sys.stdout.write(cyclonedx(packages, edges) if options.what == "cyclonedx" else licences(packages))


def linked(target):
    """Packages that end up in the binary, and who needs whom: normal dependencies from `lictor` on, not those of builds and tests."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    start = next(identity for identity, package in packages.items() if package["name"] == ORIGIN)
    edges, waiting = {}, [start]
    while waiting:
        identity = waiting.pop()
        if identity in edges:
            continue
        needs = nodes[identity]["deps"]
        edges[identity] = [dep["pkg"] for dep in needs if any(kind["kind"] is None for kind in dep["dep_kinds"])]
        waiting += edges[identity]
    is_macro = lambda identity: any("proc-macro" in target["kind"] for target in packages[identity]["targets"])
    macros = {identity for identity in edges if is_macro(identity)}
    reached, waiting = set(), [start]  # what only a macro needs runs in the compiler
    while waiting:
        identity = waiting.pop()
        if identity not in reached and identity not in macros:
            reached.add(identity)
            waiting += edges[identity]
    order = sorted(reached, key=lambda identity: (packages[identity]["name"], packages[identity]["version"]))
    return [packages[identity] for identity in order], {
        identity: [needed for needed in edges[identity] if needed in reached] for identity in reached
    }


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    entry = {
        "type": "application" if package["name"] == ORIGIN else "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package["description"]:
        entry["description"] = " ".join(package["description"].split())
    if package["license"]:
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def cyclonedx(packages, edges):
    lock = tomllib.loads(pathlib.Path("Cargo.lock").read_text())
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}
    by_id = {package["id"]: package for package in packages}
    time = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.timezone.utc)
    components = [component(package, checksums) for package in packages]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": next(entry for entry in components if entry["name"] == ORIGIN),
        },
        "components": [entry for entry in components if entry["name"] != ORIGIN],
        "dependencies": [
            {"ref": reference(package), "dependsOn": sorted({reference(by_id[needed]) for needed in edges[package["id"]]})}
            for package in packages
        ],
    }
    content = json.dumps(document, sort_keys=True)
    return json.dumps({"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"} | document, indent=1) + "\n"


def licences(packages):
    """Each text once, after the packages that it is of."""
    texts, lines = {}, ["What is linked into lictor, and under which terms.", ""]
    for package in packages:
        if package["source"] is None:
            continue  # ours: LICENSE
        name = f"{package['name']} {package['version']}"
        lines.append(f"{name}: {package['license'] or 'see below'}")
        folder = pathlib.Path(package["manifest_path"]).parent
        files = sorted(path for path in folder.iterdir() if path.is_file() and TEXTS.match(path.name))
        if not files:
            lines[-1] += " (its package has no text of it)"
        for path in files:
            texts.setdefault(path.read_text(errors="replace").strip(), []).append(f"{name} ({path.name})")
    for text, names in texts.items():
        lines += ["", "=" * 80, *names, "-" * 80, "", text]
    return "\n".join(lines) + "\n"


main()
