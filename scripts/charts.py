"""For scripts/manifests.sh, in a virtual environment with helm-python-sdk: renders deploy/helm/lictor, and holds it, deploy/kustomize and deploy/kubernetes together.

    charts.py WORK               writes WORK/rendered-helm-*.yaml, of the chart as a gateway and as another chart's sidecar; and WORK/orders, an overlay's input
    charts.py WORK --compare     the sidecar and the gateway are the same, whichever of the three deploys them, and so is their version"""

import pathlib
import re
import shutil
import sys

import helm_python as helm
import yaml

CHART = pathlib.Path("deploy/helm/lictor")
ORDERS = pathlib.Path("deploy/kubernetes/order-service.yaml")
# What only a few have.
VALUES = {
    "consul": {"address": "https://consul.example:8501", "token": {"secret": "consul", "key": "acl"}},
    "env": [{"name": "JWT_SECRET", "valueFrom": {"secretKeyRef": {"name": "edge", "key": "jwt"}}}],
    "volumeMounts": [{"name": "certs", "mountPath": "/certs", "readOnly": True}],
    "gateway": {
        "ports": [{"name": "https", "port": 443, "target": 8443}, {"name": "http", "port": 80, "target": 8080}],
        "service": {"type": "LoadBalancer", "annotations": {"example/internal": "true"}},
        "volumes": [{"name": "certs", "secret": {"secretName": "edge-tls"}}],
        "imagePullSecrets": [{"name": "registry"}],
    },
}
# Values that are refused, with what is said about them.
REFUSED = [({}, "config is empty"), ({"config": "a", "gatway": {}}, "gatway"), ({"config": "a", "gateway": {"replicas": "2"}}, "replicas"), ({"config": {"a": 1}}, "config")]


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def render(folder, values, name):
    with helm.Chart.load(str(folder)) as chart:
        return documents("\n---\n".join(chart.render(values, name=name, namespace="default").values()))


def kinds(found):
    return {document["kind"]: document for document in found}


def pod(found):
    return kinds(found)["Deployment"]["spec"]["template"]["spec"]


def alone(pod_of_one):
    """A pod with lictor taken out of it."""
    return [container for container in pod_of_one.get("initContainers", []) + pod_of_one["containers"] if container["name"] != "lictor"]


def parent(work):
    """Another chart, with the order-service of deploy/kubernetes without its sidecar, that has this chart as a dependency."""
    folder = work / "parent"
    shutil.copytree(CHART, folder / "charts/lictor")
    (folder / "templates").mkdir()
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: orders\nversion: 1.0.0\ndependencies: [{name: lictor, version: '*'}]\n")
    config, deployment = documents(ORDERS.read_text())
    (folder / "values.yaml").write_text(yaml.safe_dump({"lictor": {"config": config["data"]["lictor.yaml"], "gateway": {"enabled": False}}}))
    spec = deployment["spec"]["template"]["spec"]
    kept = {**spec, "initContainers": "SIDECAR", "volumes": "VOLUME", "terminationGracePeriodSeconds": "GRACE"}
    deployment["spec"]["template"]["spec"] = kept
    text = yaml.safe_dump(deployment)
    for word, call in (("SIDECAR", "sidecar"), ("VOLUME", "volume")):
        text = re.sub(rf": {word}$", f':\n        {{{{- include "lictor.{call}" .Subcharts.lictor | nindent 8 }}}}', text, flags=re.MULTILINE)
    (folder / "templates/deployment.yaml").write_text(text.replace(": GRACE", ": {{ .Values.lictor.grace }}"))
    # The same without Helm: what a component of kustomize is put over.
    bare = {key: value for key, value in spec.items() if key not in ("initContainers", "volumes", "terminationGracePeriodSeconds")}
    deployment["spec"]["template"]["spec"] = bare
    deployment["metadata"]["labels"]["lictor"] = "sidecar"
    (work / "orders/deployment.yaml").write_text(yaml.safe_dump(deployment))
    (work / "orders/lictor.yaml").write_text(config["data"]["lictor.yaml"])
    return folder


def write(work):
    found = helm.lint(str(CHART), {"config": "a: 1"})
    told = [message for message in found["messages"] if "icon is recommended" not in message["error"]]
    assert not told and not found["errors"], found
    config = (work / "edge/lictor.yaml").read_text()
    cases = {
        "gateway": render(CHART, {"config": config}, "edge"),
        "values": render(CHART, {"config": config, **VALUES}, "edge"),
        "long": render(CHART, {"config": config}, "e" * 53),  # the longest name of a release
        "sidecar": render(parent(work), {}, "orders"),
    }
    for name, found in cases.items():
        (work / f"rendered-helm-{name}.yaml").write_text(yaml.safe_dump_all(found))
    for values, word in REFUSED:
        try:
            render(CHART, values, "edge")
        except helm.HelmError as error:
            assert word in str(error), (values, error)
        else:
            raise AssertionError(f"the chart takes {values}")
    assert kinds(cases["gateway"])["ConfigMap"]["data"]["lictor.yaml"].strip() == config.strip()
    values = pod(cases["values"])
    env = {variable["name"]: variable for variable in values["containers"][0]["env"]}
    assert env["CONSUL_HTTP_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "consul", "key": "acl"} and "JWT_SECRET" in env
    assert {port["name"] for port in values["containers"][0]["ports"]} == {"https", "http", "lictor-public"}
    assert set(kinds(cases["sidecar"])) == {"ConfigMap", "Deployment"}, "a dependency brings no gateway"
    print(f"the chart: {len(cases)} renderings, {len(REFUSED)} refusals")


def compare(work):
    def read(name):
        return documents((work / f"rendered-{name}.yaml").read_text())

    helm_sidecar, kustomize_sidecar = pod(read("helm-sidecar")), pod(read("kustomize-orders"))
    plain = documents(ORDERS.read_text())[1]["spec"]["template"]["spec"]
    sidecar = helm_sidecar["initContainers"][0]
    assert sidecar == kustomize_sidecar["initContainers"][0], "Helm's sidecar and kustomize's"
    for key, value in plain["initContainers"][0].items():
        if key in ("image", "volumeMounts"):  # the registry's and the image that is built here; the volume's name
            continue
        if key == "env":
            assert all(variable in sidecar["env"] for variable in value), "the variables of deploy/kubernetes"
        elif key == "securityContext":  # the pod says the rest
            assert value.items() <= sidecar[key].items()
        else:
            assert sidecar[key] == value, f"{key} of the sidecar"
    assert alone(helm_sidecar) == alone(kustomize_sidecar) == alone(plain), "the application stays as it is"
    graces = {found["terminationGracePeriodSeconds"] for found in (helm_sidecar, kustomize_sidecar, plain)}
    assert graces == {50}, graces

    chart, base = pod(read("helm-gateway"))["containers"][0], pod(read("kustomize-gateway"))["containers"][0]
    assert chart == base, "Helm's gateway and kustomize's"
    same = [key for key in chart if key not in ("ports", "restartPolicy")]
    assert all(chart[key] == sidecar[key] for key in same), "the gateway and the sidecar"
    assert "book-service" in kinds(read("kustomize-edge"))["ConfigMap"]["data"]["lictor.yaml"], "an overlay's routes"
    for name in ("helm-gateway", "helm-values", "kustomize-gateway"):
        found = kinds(read(name))
        labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
        ports = {port["name"] for port in pod(read(name))["containers"][0]["ports"]}
        for selector in (found["Service"]["spec"]["selector"], *(found[kind]["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget"))):
            assert selector.items() <= labels.items(), name
        assert {port["targetPort"] for port in found["Service"]["spec"]["ports"]} <= ports, name

    version = re.search(r'^version = "(.*)"', pathlib.Path("Cargo.toml").read_text(), re.MULTILINE)[1]
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    tags = {image.rpartition(":")[2] for image in (chart["image"], sidecar["image"], base["image"])}
    assert {metadata["version"], metadata["appVersion"], *tags} == {version}, (metadata, tags, version)
    print(f"one sidecar and one gateway, by Helm, kustomize and deploy/kubernetes; version {version} everywhere")


if __name__ == "__main__":
    (compare if "--compare" in sys.argv else write)(pathlib.Path(sys.argv[1]))
