"""Audit this deployment while it runs: known vulnerabilities, bills of materials, the CIS Docker Benchmark.

Exits with 1 if a locked dependency has a known vulnerability, or a container deviates from a rule without being named,
with the reason, in DEVIATIONS. AUDIT_ONLINE=1 makes it an error too if the database of vulnerabilities is out of reach.
"""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import docker
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from docker.models.containers import Container
from packageurl import PackageURL

Host = dict[str, Any]  # what `docker inspect` calls HostConfig

BILLS = Path("audit")

# Prints a package URL for each package that Debian's or Alpine's manager, Python's, or Go's build put into an image.
PACKAGES = """
if command -v dpkg-query >/dev/null; then
  dpkg-query --show --showformat 'pkg:deb/debian/${Package}@${Version}?arch=${Architecture}\\n'
else
  apk info -v | sed -E 's|(.*)-([^-]+-r[0-9]+)|pkg:apk/alpine/\\1@\\2|'
fi
for python in /venv/bin/python /usr/bin/python3; do
  ! [ -x $python ] || $python -c '
from importlib.metadata import distributions
for each in distributions():
    print(f"pkg:pypi/{each.name}@{each.version}")'
done
! command -v caddy >/dev/null || caddy build-info | awk '$1 == "dep" { print "pkg:golang/" $2 "@" $3 }'
"""


def host_ports(host: Host) -> list[tuple[str, int]]:
    """Return the published addresses and ports."""
    bound = [binding for bindings in (host["PortBindings"] or {}).values() for binding in bindings]
    return [(binding["HostIp"], int(binding["HostPort"])) for binding in bound]


def mounts(container: Container) -> Iterable[str]:
    """Return the host's paths that are mounted; volumes are not."""
    return [mount["Source"] for mount in container.attrs["Mounts"] if mount["Type"] == "bind"]


# The rules of section 5, "Container Runtime", of the CIS Docker Benchmark 1.6 that can be read off a container.
RULES: dict[str, tuple[str, Callable[[Container, Host], object]]] = {
    "5.2": ("AppArmor is not switched off", lambda c, h: "apparmor=unconfined" not in (h["SecurityOpt"] or [])),
    "5.3": ("SELinux is not switched off", lambda c, h: "label=disable" not in (h["SecurityOpt"] or [])),
    "5.4": ("No kernel capabilities", lambda c, h: h["CapDrop"] == ["ALL"] and not h["CapAdd"]),
    "5.5": ("Not privileged", lambda c, h: not h["Privileged"]),
    "5.6": ("No directory of the host is mounted", lambda c, h: not mounts(c)),
    "5.7": ("No SSH server", lambda c, h: "sshd" not in str(c.top()["Processes"])),
    "5.8": ("No privileged port is published", lambda c, h: all(port >= 1024 for _, port in host_ports(h))),
    "5.9": ("No port is published", lambda c, h: not host_ports(h)),
    "5.10": ("The host's network is not shared", lambda c, h: h["NetworkMode"] != "host"),
    "5.11": ("Memory is limited", lambda c, h: h["Memory"]),
    "5.12": ("CPU is limited", lambda c, h: h["NanoCpus"] or h["CpuQuota"] or h["CpuShares"]),
    "5.13": ("The root file system is read-only", lambda c, h: h["ReadonlyRootfs"]),
    "5.14": ("Published on loopback alone", lambda c, h: all(ip == "127.0.0.1" for ip, _ in host_ports(h))),
    "5.15": ("Restarts are limited", lambda c, h: h["RestartPolicy"]["Name"] in {"", "no", "on-failure"}),
    "5.16": ("The host's processes are not shared", lambda c, h: h["PidMode"] != "host"),
    "5.17": ("The host's IPC is not shared", lambda c, h: h["IpcMode"] != "host"),
    "5.18": ("No device of the host", lambda c, h: not h["Devices"]),
    "5.19": ("The default ulimits hold", lambda c, h: not h["Ulimits"]),
    "5.20": ("No mount is shared", lambda c, h: all(m.get("Propagation") != "shared" for m in c.attrs["Mounts"])),
    "5.21": ("The host's name space UTS is not shared", lambda c, h: h["UTSMode"] != "host"),
    "5.22": ("seccomp is not switched off", lambda c, h: "seccomp=unconfined" not in (h["SecurityOpt"] or [])),
    "5.25": ("The default cgroup", lambda c, h: not h["CgroupParent"]),
    "5.26": ("No new privileges", lambda c, h: "no-new-privileges:true" in (h["SecurityOpt"] or [])),
    "5.27": ("Its health is checked", lambda c, h: c.attrs["Config"].get("Healthcheck")),
    "5.29": ("The number of processes is limited", lambda c, h: (h["PidsLimit"] or 0) > 0),
    "5.30": ("Not on the default bridge", lambda c, h: h["NetworkMode"] not in {"default", "bridge"}),
    "5.31": ("The host's user name space is not chosen", lambda c, h: h["UsernsMode"] != "host"),
    "5.32": ("No Docker socket", lambda c, h: not any(path.endswith("docker.sock") for path in mounts(c))),
}

# Where a rule does not hold, and why; "*" is every container.
DEVIATIONS = {
    ("5.4", "postgres"): "its entrypoint takes its directories, then becomes the user postgres, who has none",
    ("5.6", "gate"): "the engine's socket: the gate is there to hold it",
    ("5.32", "gate"): "the gate is there so that nothing else does",
    ("5.8", "edge"): "HTTPS belongs on 443, and its redirect on 80",
    ("5.9", "edge"): "HTTPS and its redirect: what the profile is for",
    ("5.9", "dagit"): "the web interface",
    ("5.14", "edge"): "it is for other machines; PUBLISH_ADDRESS narrows it",
    ("5.12", "*"): "services share by demand; runs, and password checks at the edge, are limited",
    (
        "5.13",
        "user_code",
    ): "your code may write in its home, in /tmp and beside itself, until the container ends",
    ("5.13", "run"): "as user_code",
    ("5.15", "*"): "a service returns however long what it needs was down",
    ("5.27", "run"): "the daemon watches it",
}


def name(container: Container) -> str:
    """Return its service, or `run`."""
    labels = container.labels
    run = labels["com.docker.compose.oneoff"] == "True"
    return "run" if run else str(labels["com.docker.compose.service"])


def check_containers(engine: docker.DockerClient, project: str) -> bool:
    """Print where each rule holds and where not, and why; return whether nothing is unexpected."""
    containers = engine.containers.list(filters={"label": f"com.docker.compose.project={project}"})
    if not containers:
        sys.exit("Nothing runs that could be audited: make up")
    print(f"Running: {', '.join(sorted(map(name, containers)))}\n")
    options = str(engine.info()["SecurityOptions"])
    unexpected = False
    for rule, (says, holds) in RULES.items():
        lacks = [module for module in ("AppArmor", "SELinux") if module in says and module.lower() not in options]
        print(f"{rule:<5} {says}{'; this engine has none' if lacks else ''}")
        deviating = defaultdict(list)
        for container in sorted(containers, key=name):
            if not holds(container, container.attrs["HostConfig"]):
                who = name(container)
                deviating[DEVIATIONS.get((rule, who)) or DEVIATIONS.get((rule, "*"))].append(who)
        for reason, names in deviating.items():
            print(f"      not {', '.join(names)}: {reason or 'UNEXPECTED'}")
            unexpected |= reason is None
    print("\n5.1, 5.23, 5.24 and 5.28 (swarm mode, docker exec, newest images) are about the engine and its use.")
    return not unexpected


def write_bills(engine: docker.DockerClient, project: str, images: list[str]) -> None:
    """Write what each image is made of to audit/, as CycloneDX JSON."""
    BILLS.mkdir(exist_ok=True)
    for image in images:
        command = ["-euc", PACKAGES]
        listed = engine.containers.run(
            image, command, entrypoint="sh", network_mode="none", user="65534", read_only=True, remove=True
        )
        urls = [PackageURL.from_string(line) for line in sorted(set(listed.decode().splitlines()))]
        parts = [Component(name=url.name, version=url.version, purl=url, bom_ref=str(url)) for url in urls]
        bom = Bom(components=parts)
        bom.metadata.component = Component(name=image, type=ComponentType.CONTAINER)
        bom.register_dependency(bom.metadata.component, parts)
        stem = re.sub(f"^{project}-([^:]*).*", r"\1", image)  # our own have the same whatever their tag
        bill = BILLS / f"{re.sub('[/:]', '-', stem)}.cdx.json"
        outputter = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
        outputter.output_to_file(str(bill), allow_overwrite=True, indent=1)
        print(f"{bill}: {len(parts)} packages")


def check_vulnerabilities() -> bool:
    """Print the known vulnerabilities of the locked dependencies; return whether there are none."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--format=json"]
    files = [f"--requirement={path}" for path in sorted(Path("requirements").glob("*.txt"))]
    done = subprocess.run([*command, "--progress-spinner=off", *files], capture_output=True, check=False)
    if not done.stdout:
        sys.exit(done.stderr.decode())
    packages = json.loads(done.stdout)["dependencies"]
    # pip-audit succeeds if it could ask about no package at all.
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, each["id"]) for package in packages for each in package.get("vulns", [])]
    print(f"{len(packages)} locked packages, {len(found)} known vulnerabilities, {len(skipped)} packages not looked up")
    for package, identifier in found:
        print(f"      {package['name']} {package['version']}: {identifier}")
    if skipped:
        names = "any of them" if len(skipped) == len(packages) else ", ".join(skipped)
        print(f"NOT AUDITED: the database of vulnerabilities is out of reach, or does not know {names}")
    return not found and not (skipped and os.getenv("AUDIT_ONLINE") == "1")


def main() -> None:
    """Run the three parts; exit with 1 if one found what must not be."""
    config = json.loads(subprocess.check_output(["docker", "compose", "config", "--format=json"]))
    engine = docker.from_env()
    print("# CIS Docker Benchmark, section 5\n")
    good = check_containers(engine, config["name"])
    print("\n# Bills of materials\n")
    write_bills(engine, config["name"], sorted({service["image"] for service in config["services"].values()}))
    print("\n# Known vulnerabilities\n")
    good &= check_vulnerabilities()
    sys.exit(not good)


if __name__ == "__main__":
    main()
