"""The lease: a trainer goes on under its own launcher, and under no other."""

from collections.abc import Callable
from pathlib import Path

from trainer import lease


def holding(path: Path) -> tuple[Callable[[], None], str]:
    """What a launcher does: how to let go, and the name of the launch."""
    held = lease.hold(path)
    assert held is not None
    return held.close, lease.sign(held)


def test_a_trainer_goes_on_as_long_as_its_launcher_holds_the_lease(tmp_path: Path) -> None:
    let_go, launch = holding(tmp_path / "lease")
    assert not lease.Watch(tmp_path / "lease", launch).stale()
    let_go()
    assert lease.Watch(tmp_path / "lease", launch).stale()
    assert not lease.Watch(tmp_path / "lease", launch).superseded()


def test_a_trainer_of_a_killed_launcher_does_not_take_the_next_one_for_its_own(tmp_path: Path) -> None:
    let_go, first = holding(tmp_path / "lease")
    let_go()
    _, second = holding(tmp_path / "lease")
    assert lease.hold(tmp_path / "lease") is None
    assert lease.Watch(tmp_path / "lease", first).stale()
    assert lease.Watch(tmp_path / "lease", first).superseded()
    assert not lease.Watch(tmp_path / "lease", second).stale()


def test_who_takes_the_lease_away_ends_the_trainer(tmp_path: Path) -> None:
    _, launch = holding(tmp_path / "lease")
    (tmp_path / "lease").unlink()
    assert lease.Watch(tmp_path / "lease", launch).stale()
    assert lease.Watch(tmp_path / "lease", launch).superseded()


def test_who_waits_for_a_lock_gets_it_when_it_is_let_go_and_stops_when_told_to(tmp_path: Path) -> None:
    let_go, _ = holding(tmp_path / "writer")
    asked: list[str] = []

    def after_three() -> bool:
        asked.append("asked")
        return len(asked) == 3

    assert lease.wait(tmp_path / "writer", 60.0, after_three) is None
    assert len(asked) == 3

    def let_go_meanwhile() -> bool:
        let_go()
        return False

    assert lease.wait(tmp_path / "writer", 60.0, let_go_meanwhile) is not None
