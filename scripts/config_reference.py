"""docs/configuration.md from the JSON Schema on standard input."""

import json
import sys

HEAD = """# Configuration

Written by `scripts/config-reference.sh` from `lictor schema`; do not edit. `lictor check` validates a file, `lictor config --origin` shows every
effective value and where it comes from. Later ones win: the default, older services' variables, the file, the file of the
environment beside it (`lictor.production.yaml` beside `lictor.yaml` where `ENVIRONMENT`, `APP_ENV` or `NODE_ENV` is `production`), the KV value, the environment, `--set`.
Every key can be set as `LICTOR_<SECTION>_<KEY>` too, and `${VAR}`, `${VAR:-default}` are replaced in values. [examples/full.yaml](../examples/full.yaml) has most keys.

A duration is `500ms`, `10s`, `1m`; a size `64KiB`; a share `20%` or `0.2`. `NAME` stands for a name of yours, `[]` for each entry of a list.
"""


def children(node):
    for name, child in node.get("properties", {}).items():
        yield name, child
    if isinstance(node.get("additionalProperties"), dict):
        yield "NAME", node["additionalProperties"]
    if isinstance(node.get("items"), dict):
        yield "[]", node["items"]


def join(path, name):
    return path + name if name == "[]" else f"{path}.{name}" if path else name


def cell(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")


def kinds(node):
    if "enum" in node:
        return ", ".join(f"`{cell(word)}`" for word in node["enum"])
    kind = node.get("type", "")
    return ", ".join(kind) if isinstance(kind, list) else kind


def rows(node, path, known):
    for name, child in children(node):
        here = join(path, name)
        # A policy has the same keys in `defaults`, for an upstream and on a route.
        shape = known.get(name)
        is_known = shape is not None and shape == child and child.get("properties")
        about = child.get("description", "")
        about = f"{about} Its keys are those of `defaults.{name}`." if is_known else about
        if name != "[]" or child.get("properties") or about:
            default = f"`{cell(child['default'])}`" if "default" in child else ""
            yield f"| `{here}` | {kinds(child)} | {default} | {cell(about)} |"
        if not is_known:
            yield from rows(child, here, known)


def main():
    schema = json.load(sys.stdin)
    defaults = schema["properties"]["defaults"].get("properties", {})
    print(HEAD)
    for name, node in schema["properties"].items():
        print(f"## {name}\n\n{node.get('description', '')}".rstrip() + "\n")
        print("| key | type | default | |\n|---|---|---|---|")
        default = f"`{cell(node['default'])}`" if "default" in node else ""
        print(f"| `{name}` | {kinds(node)} | {default} | |")
        print("\n".join(rows(node, name, {} if name == "defaults" else defaults)) + "\n" if list(children(node)) else "")


main()
