"""How many processes may work: cores once, of those that this process may use, within the limits of its groups."""

import os

import pytest

from pipeline.cores import n_workers, usable_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of four processors, two to a core, and no limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for processor, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{processor}/topology"
        folder.mkdir(parents=True)
        (folder / "core_cpus_list").write_text(f"{siblings}\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    return tmp_path


def cores_of(machine):
    return usable_cores(proc=machine / "proc", system=machine / "sys")


def test_two_threads_of_a_core_count_once(machine):
    assert cores_of(machine) == 2


def test_only_processors_that_may_be_used_count(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3})
    assert cores_of(machine) == 1


def test_old_kernels_call_the_list_otherwise(machine):
    for path in machine.rglob("core_cpus_list"):
        path.rename(path.with_name("thread_siblings_list"))
    assert cores_of(machine) == 2


def test_where_the_kernel_says_nothing_every_processor_is_a_core(machine):
    for path in machine.rglob("core_cpus_list"):
        path.unlink()
    (machine / "proc/self/cgroup").unlink()
    assert cores_of(machine) == 4


@pytest.mark.parametrize(
    ("text", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("190000 100000", 1), ("max 100000", 2), ("", 2)]
)
def test_a_control_group_of_version_2_limits(machine, text, cores):
    (machine / "proc/self/cgroup").write_text("0::/jobs/night\n")
    group = machine / "sys/fs/cgroup/jobs"
    (group / "night").mkdir(parents=True)
    (group / "cpu.max").write_text(text)  # of the group above
    assert cores_of(machine) == cores


@pytest.mark.parametrize(("quota", "cores"), [("100000", 1), ("-1", 2), ("400000", 2)])
def test_a_control_group_of_version_1_limits(machine, quota, cores):
    (machine / "proc/self/cgroup").write_text("3:memory:/night\n4:cpu,cpuacct:/night\n0::/\n")
    group = machine / "sys/fs/cgroup/cpu,cpuacct/night"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text(quota)
    (group / "cpu.cfs_period_us").write_text("100000")
    assert cores_of(machine) == cores


def test_cores_are_shared_by_the_jobs_that_may_run_at_once(monkeypatch):
    monkeypatch.setattr("pipeline.cores.usable_cores", lambda: 4)
    assert [n_workers(0, sharing=jobs) for jobs in (1, 2, 3, 4, 8)] == [4, 2, 1, 1, 1]
    assert n_workers(3, sharing=4) == 3  # as it was said


def test_this_machine_has_a_core():
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
