"""`ray up clusters/local.yaml` over ssh to this machine, a search on that cluster, and `ray down`.

All in namespaces of its own: `ray stop`, which the launcher runs, ends every Ray of the user, and sees this one alone
there. The home folder is a layer over the user's, so that no key and no setting of ssh is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clusters

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent

SCRIPT = r"""
set -eu
mount --make-rprivate /
ip link set lo up
mount -t tmpfs tmpfs /mnt
mkdir -p /mnt/upper /mnt/layer /mnt/tmp /mnt/run/sshd /mnt/work
mount -t overlay overlay -o lowerdir="$HOME",upperdir=/mnt/upper,workdir=/mnt/layer "$HOME"
cp -r "$GIVEN" /mnt/given
mount --bind /mnt/run /run
mount --bind /mnt/tmp /tmp
chmod 1777 /tmp
rm -rf "$HOME/.ray" "$HOME/.ssh"
mkdir -m 700 "$HOME/.ssh"
ssh-keygen -q -t ed25519 -N '' -f "$HOME/.ssh/id_ed25519"
ssh-keygen -q -t ed25519 -N '' -f /mnt/host_key
cp "$HOME/.ssh/id_ed25519.pub" "$HOME/.ssh/authorized_keys"
printf 'Host 127.0.0.1\n  Port 2222\n  StrictHostKeyChecking no\n' > "$HOME/.ssh/config"
printf 'Port 2222\nListenAddress 127.0.0.1\nHostKey /mnt/host_key\nPidFile /mnt/sshd.pid\nUsePAM no\n' > /mnt/sshd.conf
/usr/sbin/sshd -f /mnt/sshd.conf
ray get-auth-token --generate > /dev/null
# `ray start` gives up a node that is not there in half a minute, as on a machine that does much else.
ray up -y /mnt/given/local.yaml || ray up -y /mnt/given/local.yaml
cp /mnt/given/spec.yaml /mnt/work/
# The job imports what travels with it, whichever checkout is installed.
for package in raylora searchers trainables clusters; do ln -s "$PYTHONPATH/$package" /mnt/work/; done
cd /mnt/work
RAY_AUTH_MODE=token python -m raylora submit spec.yaml --address http://127.0.0.1:8265
grep -q '"trials": 2' /mnt/runs/run/summary.json
echo "two trials are there"
cd /
ray down -y /mnt/given/local.yaml
if pgrep gcs_server; then exit 1; fi
echo "the cluster is gone"
"""


@pytest.mark.real
def test_a_search_runs_on_a_cluster_that_ray_up_started_over_ssh(tiny_model, sums, write_spec, tmp_path) -> None:
    if os.environ.get("RAYLORA_SSH") != "1":
        pytest.skip("needs root, sshd, rsync and RAYLORA_SSH=1")
    path = os.pathsep.join([str(BIN), os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [name for name in ("sshd", "ssh", "rsync", "unshare", "ip") if shutil.which(name, path=path) is None]
    assert not missing and os.geteuid() == 0, f"RAYLORA_SSH=1 needs root, and misses {missing}"
    given = tmp_path / "given"
    given.mkdir()
    text = (clusters.FOLDER / "local.yaml").read_text()
    for mine, here in (
        ("HEAD_ADDRESS", "127.0.0.1"),
        ("[WORKER_ADDRESS, WORKER_ADDRESS]", "[]"),
        (": USER", ": root"),
        ("/shared/raylora/.venv/bin", str(BIN)),
    ):
        assert mine in text
        text = text.replace(mine, here)
    (given / "local.yaml").write_text(text)
    shutil.copytree(tiny_model, given / "model")
    shutil.copytree(sums, given / "rows")
    spec = write_spec(
        model="/mnt/given/model",
        storage_path="/mnt/runs",
        search={"searcher": "random", "trials": 2},
        resources={"hosts": "auto"},
        task__path="/mnt/given/rows",
        final={"enabled": False},
    )
    shutil.copy(spec, given / "spec.yaml")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(Path.home()), "GIVEN": str(given)}
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child", "bash", "-c", SCRIPT]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "two trials are there" in done.stdout and done.stdout.rstrip().endswith("the cluster is gone")
