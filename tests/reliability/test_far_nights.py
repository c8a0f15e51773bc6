"""Suite 12: a root on an S3 server; connections dropped, answers late, writers killed, two at once."""

import random
import shutil
import time

import pytest
from far_nights import FarNight, FarTonight, make_far_tonight, reading_far, unlisted
from nights import TONIGHT, ended, kill, rounds, spread
from s3_server import S3
from tcp_proxy import passing


@pytest.fixture(scope="module")
def far_tonight(server, s3, tmp_path_factory) -> FarTonight:
    return make_far_tonight(tmp_path_factory.mktemp("far") / "nights", s3)


def made_good(far: FarTonight, night: FarNight) -> None:
    """Run the job again, check the results, and let retention remove what nobody lists."""
    night.succeeds(*TONIGHT)
    far.check(night)


@rounds(1, 50)
def test_a_job_killed_at_any_moment_is_made_good_by_the_next_run_here_or_elsewhere(far_tonight, figure, n):
    rng, in_time, left, reads = random.Random(8), 0, 0, 0
    for number in range(n):
        night = far_tonight.begin(f"killed-{n}-{number}")
        with reading_far(night) as reader:
            process = night.begin()
            time.sleep(rng.random() * far_tonight.seconds)
            in_time += kill(process)
            night.content()  # Raises where a manifest lists what is not there.
            again = night if number % 2 else night.on("another")
            made_good(far_tonight, again)
        assert reader.errors == []
        assert reader.runs <= far_tonight.runs
        reads += reader.n_reads
        left += len(unlisted(again.stored()))
        shutil.rmtree(night.folder)
    figure(f"12 a root on S3, killed at random moments: {n}, {in_time} of a running job: {n} equal")
    figure(f"12 meanwhile {reads:,} reads by the pointer, none partial or mixed; {left} objects left that nobody lists")
    assert in_time > n * 0.6


@rounds(1, 40)
def test_a_job_killed_at_a_request_is_made_good_by_the_next_run(far_tonight, figure, n):
    """The signal comes as the request arrives, and it is passed on or not."""
    killed, places = 0, spread(far_tonight.n_requests, n) if n > 1 else [far_tonight.n_requests // 2]
    for place in places:
        night = far_tonight.begin(f"at-{n}-{place}")
        with passing(far_tonight.s3.port) as proxy:
            proxy.decide = lambda number, request, place=place: "hold" if number == place else "pass"
            process = night.through(far_tonight.s3.through(proxy.port)).begin()
            while process.is_alive() and len(proxy.requests) < place:
                time.sleep(0.001)
            if place % 2:
                proxy.release("pass")
            killed += kill(process)
            proxy.release("drop")
        made_good(far_tonight, night)
        shutil.rmtree(night.folder)
    figure(
        f"12 killed at one of {far_tonight.n_requests} requests: {len(places)}, {killed} of a running job, all equal"
    )


FATES = [
    ("requests or answers lost", ("drop", "drop answer")),
    pytest.param("requests lost", ("drop",), marks=pytest.mark.reliability),
    pytest.param("answers lost", ("drop answer",), marks=pytest.mark.reliability),
]


@pytest.mark.parametrize(("what", "fates"), FATES)
def test_every_request_may_fail_once(far_tonight, figure, what, fates):
    """Each request is lost the first time that it is made, or its answer is; the job ends well, to the same bytes."""
    night = far_tonight.begin("-".join(["lost", *fates]).replace(" ", "-"))
    seen: set[str] = set()

    def first_time(number, request):
        known = request in seen
        seen.add(request)
        return "pass" if known else fates[len(seen) % len(fates)]

    with passing(far_tonight.s3.port) as proxy:
        proxy.decide = first_time
        made_good(far_tonight, night.through(far_tonight.s3.through(proxy.port)))
        n_requests = len(proxy.requests)
    assert len(seen) > 50
    figure(f"12 {what}: each of {len(seen)} once, {n_requests} sent: exit 0, equal")


@pytest.mark.reliability
def test_slow_answers_only_take_time(far_tonight, figure):
    night = far_tonight.begin("slow")
    with passing(far_tonight.s3.port) as proxy:
        proxy.decide = lambda number, request: "delay" if number % 20 == 0 else "pass"
        made_good(far_tonight, night.through(far_tonight.s3.through(proxy.port)))
        late = len(proxy.requests) // 20
    figure(f"12 answers late by a second: {late} of a job: exit 0, equal")


@pytest.mark.reliability
def test_a_store_that_is_away_is_told_and_what_was_done_is_not_done_again(far_tonight, figure):
    night = far_tonight.begin("away")
    with passing(far_tonight.s3.port) as proxy:
        proxy.decide = lambda number, request: "drop" if number > 60 else "pass"
        started = time.monotonic()
        code = night.through(far_tonight.s3.through(proxy.port)).code(*TONIGHT)
        seconds = time.monotonic() - started
    assert code == 30, night.log.read_text()
    assert "there is no answer" in night.log.read_text()
    night.content()
    made_good(far_tonight, night)
    figure(f"12 a store that goes away: exit 30 after {seconds:.0f} s, with the URL; equal after the next run")


@rounds(1, 10)
def test_two_machines_at_once_make_one_result(far_tonight, figure, n):
    for number in range(n):
        night = far_tonight.begin(f"both-{n}-{number}")
        other = night.on("another")
        processes = [each.begin() for each in (night, other)]
        for process in processes:
            ended(process)
        codes = [process.exitcode for process in processes]
        assert codes == [0, 0], night.log.read_text() + other.log.read_text()
        far_tonight.check(night)
    figure(f"12 two machines run the same night at once: {n} times, both exit 0, one result each time")


@pytest.mark.reliability
def test_what_killed_jobs_left_goes_with_retention(far_tonight, figure):
    night, score = far_tonight.begin("left"), min(far_tonight.runs)
    for number in range(5):
        process = night.begin()
        time.sleep(far_tonight.seconds * (0.3 + 0.1 * number))
        kill(process)
    left = f"score/{score}/20261123T000000Z-000000000000/scores.h5"
    far_tonight.s3.open().pipe_file(f"{far_tonight.s3.bucket}/left/{left}", b"half")
    night.succeeds(*TONIGHT)
    n_left = len(unlisted(night.stored()))
    assert left in unlisted(night.stored())
    night.configured(hours=1e-6).succeeds(*TONIGHT, "--scoring-n-best", "1")  # a run that does something, and cleans
    assert [key for key in unlisted(night.stored()) if not key.startswith("in-use/")] == []
    figure(f"12 what five killed jobs left: {n_left} objects, all gone with retention")


def test_the_server_has_what_two_writers_need(s3: S3):
    """Without conditional writes the suites above would prove little."""
    opened = s3.open()
    opened.call_s3("put_object", Bucket=s3.bucket, Key="once", Body=b"1", IfNoneMatch="*")
    with pytest.raises(OSError, match="pre-conditions"):
        opened.call_s3("put_object", Bucket=s3.bucket, Key="once", Body=b"2", IfNoneMatch="*")
    assert opened.cat_file(f"{s3.bucket}/once") == b"1"
