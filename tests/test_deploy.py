"""What is deployed beside the package: the unit is one that systemd takes, and the containers install what exists."""

import re
import shutil
import subprocess

import pytest

from reid_edge.runtime.cuda import remedy
from tests.commands import run_command
from tests.conftest import REPOSITORY

UNIT = REPOSITORY / "deploy/systemd/reid-edge@.service"
GALLERY_UNIT = REPOSITORY / "deploy/systemd/reid-edge-gallery.service"
CONTAINERS = sorted((REPOSITORY / "deploy/container").glob("Containerfile*"))

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")


@pytest.fixture(params=[UNIT, GALLERY_UNIT], ids=lambda path: path.stem)
def unit(request, tmp_path):
    """A unit, of several instances the one of a camera, with a command that exists."""
    path = tmp_path / request.param.name.replace("@", "@north")
    path.write_text(request.param.read_text().replace("/opt/reid-edge/bin/reid-edge", "/bin/true"))
    return path


@needs_systemd
def test_systemd_finds_no_fault_with_the_unit(unit):
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert not complaints


@needs_systemd
def test_the_unit_is_sandboxed(unit):
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", unit], capture_output=True, text=True)
    exposure = re.search(r"exposure level for .*: ([\d.]+)", done.stdout)
    assert exposure, done.stdout + done.stderr
    assert float(exposure[1]) < 2.5


def test_the_unit_has_a_watchdog_a_user_and_a_reload_and_keeps_memory_off_the_disk():
    text = UNIT.read_text()
    for line in (
        "LimitCORE=0:1",
        "MemorySwapMax=0",
        "Type=notify",
        "WatchdogSec=60",
        "User=reid-edge",
        "ExecReload=/bin/kill -HUP $MAINPID",
    ):
        assert f"\n{line}\n" in text


def test_the_gallerys_unit_is_as_tight_as_the_cameras():
    camera, gallery = (set(path.read_text().splitlines()) for path in (UNIT, GALLERY_UNIT))
    tight = re.compile(
        r"(Protect|Restrict|Private|NoNew|Lock|Capability|Ambient|UMask|RemoveIPC|LimitCORE|Memory.*Swap)"
    )
    assert {line for line in camera if tight.match(line)} <= gallery
    for line in ("Type=notify", "WatchdogSec=60", "User=reid-edge-gallery", "MemoryMax=1G", "Restart=always"):
        assert line in gallery


def test_the_gallerys_unit_gives_serve_options_that_there_are():
    (environment,) = re.findall(r"STORE=.*\nOPTIONS=.*", (GALLERY_UNIT.parent / "README.md").read_text())
    options = re.findall(r"(--[\w-]+)", environment)
    help_text = run_command("gallery", "serve", "--help").stdout
    assert options
    assert all(option in help_text for option in options)


def test_the_cameras_unit_may_open_cameras_and_the_gpu():
    """ProtectClock implies DeviceAllow=char-rtc, which in older systemd (JetPack 6 has 249) forbids all else."""
    lines = UNIT.read_text().splitlines()
    for setting in ("ProtectClock", "PrivateDevices", "DeviceAllow", "DevicePolicy"):
        assert not [line for line in lines if line.startswith(setting)]
    (tasks,) = [int(line.partition("=")[2]) for line in lines if line.startswith("TasksMax=")]
    assert tasks >= 256  # OpenCV, FFmpeg, GStreamer, CUDA and TensorRT together


def test_a_jetsons_drop_in_gives_the_groups_of_the_gpu_and_the_socket_of_csi_cameras():
    lines = (UNIT.parent / "jetson.conf").read_text().splitlines()
    for line in ("SupplementaryGroups=video render", "PrivateTmp=no", "ReadWritePaths=/tmp"):
        assert line in lines
    assert "After=nvargus-daemon.service" in lines
    assert "reid-edge@.service.d/jetson.conf" in (UNIT.parent / "README.md").read_text()


@needs_systemd
def test_systemd_finds_no_fault_with_the_unit_and_the_jetsons_drop_in(tmp_path):
    unit = tmp_path / "reid-edge@north.service"
    text = UNIT.read_text() + "\n" + (UNIT.parent / "jetson.conf").read_text()
    unit.write_text(text.replace("/opt/reid-edge/bin/reid-edge", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert not [line for line in done.stderr.splitlines() if unit.name in line]


@pytest.mark.parametrize("path", [path for path in CONTAINERS if "jetson" in path.name], ids=lambda path: path.name)
def test_a_jetsons_container_keeps_the_systems_opencv_and_a_numpy_that_it_was_built_for(path):
    text = path.read_text()
    for words in ("--system-site-packages", "onnx 'numpy<2'", "pip uninstall -y opencv-python-headless", "GStreamer:"):
        assert words in text
    assert "cuda-python" not in text


def test_a_container_gets_the_hosts_group_of_the_gpu_by_its_number():
    """Docker looks a name up in the image, where the group has another number."""
    files = [*(path for path in CONTAINERS if "jetson" in path.name), REPOSITORY / "docs/jetson.md"]
    for path in files:
        text = path.read_text().replace("\\\n#", "")
        runs = [line for line in text.splitlines() if "docker run --" in line]
        assert len(runs) == 2
        for line in runs:
            assert '--group-add "$(getent group render | cut -d: -f3)"' in line
        assert "groupadd" not in text
    assert '--group-add "$(getent group render | cut -d: -f3)"' in remedy(304)


def test_what_the_service_is_installed_from_is_what_was_copied():
    page, jetson = (UNIT.parent / "README.md").read_text(), (REPOSITORY / "docs/jetson.md").read_text()
    for name in re.findall(r"(?:cp|install -D -m 0644) (\S*(?:@\.service|\.conf)) ", page + jetson):
        assert (REPOSITORY / "deploy" / name).is_file(), name
    (copied,) = re.findall(r"scp -r (.*) jetson:", jetson)
    assert {"deploy/systemd", "street.avi"} <= set(copied.split())


def test_the_services_user_may_use_the_camera_and_the_gpu_in_commands_too():
    """The groups in a unit are the service's alone; --check and build run as the user, by sudo."""
    page, jetson = (UNIT.parent / "README.md").read_text(), (REPOSITORY / "docs/jetson.md").read_text()
    block = re.search(r"```sh\n(.*?)```", page, re.S)[1]
    assert block.index("usermod -aG video reid-edge") < block.index("--check")
    for text in (page, jetson):
        assert "usermod -aG video,render reid-edge" in text


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.name)
def test_a_container_installs_extras_that_exist_and_is_no_root(path):
    text = path.read_text()
    extras = re.search(r"/src\[([\w,-]+)\]", text)[1].split(",")
    known = re.findall(r"^([\w-]+) = \[", (REPOSITORY / "pyproject.toml").read_text(), re.M)
    assert set(extras) <= set(known)
    assert "\nUSER reid-edge\n" in text
