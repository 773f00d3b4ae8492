"""Parts of /proc and /sys as real machines show them, to be planted under a test's folder.

Where they come from is said at each; values that change are made up.
"""

from pathlib import Path


def plant(root: Path, *trees: dict[str, str]) -> Path:
    for tree in trees:
        for name, text in tree.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return root


def for_cpus(count: int, tree: dict[str, str]) -> dict[str, str]:
    """A tree whose names and texts hold ``{cpu}``, for each CPU."""
    return {name.format(cpu=cpu): text.format(cpu=cpu) for cpu in range(count) for name, text in tree.items()}


CPU = "sys/devices/system/cpu/cpu{cpu}"

#: An Intel NUC 11 (i5-1135G7: 4 cores, 8 threads; L1d 48K and L1i 32K, L2 1280K a core, L3 8192K shared).
#: Layout: the kernel's ABI/testing/sysfs-devices-system-cpu and admin-guide/thermal/intel_thermal_throttle.rst.
NUC = {
    "proc/cpuinfo": "".join(
        f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: 11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz\n"
        f"cpu MHz\t\t: {2400 + cpu}.000\nflags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni\n\n"
        for cpu in range(8)
    ),
    "proc/meminfo": "MemTotal:       16116660 kB\nMemFree:         9000000 kB\nMemAvailable:   12000000 kB\n",
    "proc/loadavg": "0.31 0.27 0.22 1/412 99123\n",
    "proc/self/status": "Name:\tpython\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7\n",
    "proc/sys/kernel/osrelease": "6.8.0-49-generic\n",
    "proc/sys/kernel/arch": "x86_64\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
    "sys/class/thermal/thermal_zone0/type": "acpitz\n",
    "sys/class/thermal/thermal_zone0/temp": "27800\n",
    "sys/class/thermal/cooling_device0/type": "Processor\n",
    "sys/class/thermal/cooling_device0/stats/total_trans": "2\n",
    "sys/class/thermal/cooling_device9/type": "Fan\n",
    "sys/class/thermal/cooling_device9/stats/total_trans": "77\n",
    "sys/class/hwmon/hwmon0/name": "acpitz\n",
    "sys/class/hwmon/hwmon0/temp1_input": "27800\n",
    "sys/class/hwmon/hwmon3/name": "coretemp\n",
    "sys/class/hwmon/hwmon3/temp1_input": "46000\n",
    "sys/class/hwmon/hwmon3/temp1_label": "Package id 0\n",
    "sys/class/hwmon/hwmon3/temp2_input": "44000\n",
    "sys/class/hwmon/hwmon3/temp2_label": "Core 0\n",
    "sys/class/drm/card1/device/uevent": "DRIVER=i915\nPCI_CLASS=30000\nPCI_ID=8086:9A49\n",
    **for_cpus(
        8,
        {
            f"{CPU}/cpufreq/scaling_governor": "powersave\n",
            f"{CPU}/cpufreq/scaling_cur_freq": "150000{cpu}\n",
            f"{CPU}/topology/physical_package_id": "0\n",
            f"{CPU}/thermal_throttle/core_throttle_count": "{cpu}\n",
            f"{CPU}/thermal_throttle/package_throttle_count": "42\n",
        },
    ),
    **{
        f"sys/devices/system/cpu/cpu{cpu}/{name}": text
        for cpu in range(8)
        for siblings in [f"{cpu % 4},{cpu % 4 + 4}"]
        for name, text in {
            "topology/core_cpus_list": siblings,
            "cache/index0/level": "1",
            "cache/index0/type": "Data",
            "cache/index0/size": "48K",
            "cache/index0/shared_cpu_list": siblings,
            "cache/index1/level": "1",
            "cache/index1/type": "Instruction",
            "cache/index1/size": "32K",
            "cache/index1/shared_cpu_list": siblings,
            "cache/index2/level": "2",
            "cache/index2/type": "Unified",
            "cache/index2/size": "1280K",
            "cache/index2/shared_cpu_list": siblings,
            "cache/index3/level": "3",
            "cache/index3/type": "Unified",
            "cache/index3/size": "8192K",
            "cache/index3/shared_cpu_list": "0-7",
        }.items()
    },
}

POWERCAP = "sys/class/powercap"
#: The kernel's power/powercap/powercap.rst; the range is an i7's. psys holds the package, mmio is the package again.
INTEL_RAPL = {
    f"{POWERCAP}/intel-rapl:0/name": "package-0\n",
    f"{POWERCAP}/intel-rapl:0/energy_uj": "262143000000\n",
    f"{POWERCAP}/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    f"{POWERCAP}/intel-rapl:0:0/name": "core\n",
    f"{POWERCAP}/intel-rapl:0:0/energy_uj": "23893449269\n",
    f"{POWERCAP}/intel-rapl:0:0/max_energy_range_uj": "262143328850\n",
    f"{POWERCAP}/intel-rapl:0:1/name": "uncore\n",
    f"{POWERCAP}/intel-rapl:0:1/energy_uj": "1000\n",
    f"{POWERCAP}/intel-rapl:0:1/max_energy_range_uj": "262143328850\n",
    f"{POWERCAP}/intel-rapl:0:2/name": "dram\n",
    f"{POWERCAP}/intel-rapl:0:2/energy_uj": "5000000\n",
    f"{POWERCAP}/intel-rapl:0:2/max_energy_range_uj": "65712999613\n",
    f"{POWERCAP}/intel-rapl:1/name": "psys\n",
    f"{POWERCAP}/intel-rapl:1/energy_uj": "900\n",
    f"{POWERCAP}/intel-rapl:1/max_energy_range_uj": "262143328850\n",
    f"{POWERCAP}/intel-rapl-mmio:0/name": "package-0\n",
    f"{POWERCAP}/intel-rapl-mmio:0/energy_uj": "100\n",
    f"{POWERCAP}/intel-rapl-mmio:0/max_energy_range_uj": "262143328850\n",
}
#: AMD's Zen, whose counters the kernel (drivers/powercap/intel_rapl_msr.c) shows under the same names.
AMD_RAPL = {
    f"{POWERCAP}/intel-rapl:0/name": "package-0\n",
    f"{POWERCAP}/intel-rapl:0/energy_uj": "1000000\n",
    f"{POWERCAP}/intel-rapl:0/max_energy_range_uj": "65532610987\n",
    f"{POWERCAP}/intel-rapl:0:0/name": "core\n",
    f"{POWERCAP}/intel-rapl:0:0/energy_uj": "500000\n",
    f"{POWERCAP}/intel-rapl:0:0/max_energy_range_uj": "65532610987\n",
}

HWMON = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
#: A Jetson Orin Nano Super with JetPack 6.2: NVIDIA's Jetson Linux Developer Guide (R36), "Jetson Orin Nano Series,
#: Jetson Orin NX Series and Jetson AGX Orin Series": rails, over-current counters, nvpmodel; release line and modes as
#: users of the board quote them; Cortex-A78AE is 0x41/0xd42.
ORIN_NANO = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64, "
    "DATE: Thu Sep 18 22:54:44 UTC 2025\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "var/lib/nvpmodel/status": "pmode:0002\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< POWER_MODEL ID=3 NAME=7W >\n< PM_CONFIG DEFAULT=1 >\n",
    "proc/cpuinfo": "".join(
        f"processor\t: {cpu}\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nBogoMIPS\t: 62.50\n"
        "Features\t: fp asimd aes fphp asimdhp cpuid asimddp uscat\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        "CPU variant\t: 0x0\nCPU part\t: 0xd42\nCPU revision\t: 1\n\n"
        for cpu in range(6)
    ),
    "proc/meminfo": "MemTotal:        7802520 kB\nMemAvailable:    5500000 kB\n",
    "proc/self/status": "Cpus_allowed_list:\t0-5\n",
    "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
    "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48125\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone2/temp": "-256000\n",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
    "sys/class/hwmon/hwmon0/temp1_input": "48125\n",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "37\n",
    f"{HWMON}/in1_label": "VDD_IN\n",
    f"{HWMON}/in1_input": "5000\n",
    f"{HWMON}/curr1_input": "2000\n",
    f"{HWMON}/in2_label": "VDD_CPU_GPU_CV\n",
    f"{HWMON}/in2_input": "4960\n",
    f"{HWMON}/curr2_input": "800\n",
    f"{HWMON}/in3_label": "VDD_SOC\n",
    f"{HWMON}/in3_input": "4960\n",
    f"{HWMON}/curr3_input": "300\n",
    f"{HWMON}/in7_label": "Sum of shunt voltages\n",
    f"{HWMON}/in7_input": "0\n",
    **for_cpus(
        6,
        {
            f"{CPU}/cpufreq/scaling_governor": "schedutil\n",
            f"{CPU}/cpufreq/scaling_min_freq": "729600\n",
            f"{CPU}/cpufreq/scaling_max_freq": "1728000\n",
        },
    ),
}

_SECOND = "sys/bus/i2c/drivers/ina3221/1-0041/hwmon/hwmon4"
#: A Jetson AGX Orin, which has no rail for the whole: same guide; readings of a board at work.
AGX_ORIN_RAILS = {
    f"{HWMON}/in1_label": "VDD_GPU_SOC\n",
    f"{HWMON}/in1_input": "843\n",
    f"{HWMON}/curr1_input": "6170\n",
    f"{HWMON}/in2_label": "VDD_CPU_CV\n",
    f"{HWMON}/in2_input": "780\n",
    f"{HWMON}/curr2_input": "3437\n",
    f"{HWMON}/in3_label": "VIN_SYS_5V0\n",
    f"{HWMON}/in3_input": "4968\n",
    f"{HWMON}/curr3_input": "953\n",
    f"{_SECOND}/in1_label": "NC\n",
    f"{_SECOND}/in1_input": "0\n",
    f"{_SECOND}/curr1_input": "0\n",
    f"{_SECOND}/in2_label": "VDDQ_VDD2_1V8AO\n",
    f"{_SECOND}/in2_input": "1800\n",
    f"{_SECOND}/curr2_input": "341\n",
}
_INA238 = "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5"
#: A Jetson AGX Thor: an INA238 at the module's supply (hwmon/ina238.rst: no labels, microwatts) beside an INA3221.
THOR_RAILS = {
    f"{_INA238}/in1_input": "19500\n",
    f"{_INA238}/curr1_input": "2000\n",
    f"{_INA238}/power1_input": "39000000\n",
    f"{HWMON}/in1_label": "VDD_GPU\n",
    f"{HWMON}/in1_input": "800\n",
    f"{HWMON}/curr1_input": "9000\n",
}

_IIO = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
#: A Jetson Nano with L4T 32, whose own driver gives milliwatts: L4T 32 guide, "Software-Based Power Consumption
#: Modeling".
NANO_RAILS = {
    f"{_IIO}/rail_name_0": "POM_5V_IN\n",
    f"{_IIO}/in_power0_input": "3212\n",
    f"{_IIO}/rail_name_1": "POM_5V_GPU\n",
    f"{_IIO}/in_power1_input": "120\n",
    f"{_IIO}/rail_name_2": "POM_5V_CPU\n",
    f"{_IIO}/in_power2_input": "900\n",
}

#: A Raspberry Pi 5 and, as big.LITTLE with two kinds of cores, an RK3588: /proc/cpuinfo of mainline kernels.
RASPBERRY_PI = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\n"
    "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
    "Revision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
    "proc/self/status": "Cpus_allowed_list:\t0-3\n",
}
RK3588_CPUINFO = {
    "proc/cpuinfo": "".join(
        f"processor\t: {cpu}\nCPU implementer\t: 0x41\nCPU part\t: {'0xd05' if cpu < 4 else '0xd0b'}\n\n"
        for cpu in range(8)
    )
}

#: A container of Docker with control groups version 2: a namespace of its own, the limits at its root.
DOCKER_V2 = {
    ".dockerenv": "",
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 5000\nnr_periods 90\nnr_throttled 7\nthrottled_usec 100\n",
    "sys/fs/cgroup/memory.max": "2147483648\n",
}
#: A service of systemd: the limit is that of a slice above.
SYSTEMD_SLICE = {
    "proc/self/cgroup": "0::/reid.slice/camera.service\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "sys/fs/cgroup/reid.slice/cpu.max": "200000 100000\n",
    "sys/fs/cgroup/reid.slice/camera.service/cpu.max": "max 100000\n",
    "sys/fs/cgroup/reid.slice/camera.service/memory.max": "max\n",
}
#: Docker with version 1 and no namespace: the path is the host's, the mount shows this group only.
DOCKER_V1 = {
    "proc/self/cgroup": "5:memory:/docker/0123abcd\n4:cpu,cpuacct:/docker/0123abcd\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
}
#: The same with no limit: the kernel's largest page-aligned number, and −1.
UNLIMITED_V1 = {
    "proc/self/cgroup": "4:memory:/\n1:cpu:/\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
}
